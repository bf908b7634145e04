//! `-o NAME=VALUE`: a profile, and parameters of the cache.

use zswap::{Options, Profile, Zswap};

use crate::failure::Failure;

/// A profile, and parameters by name in the order given.
pub type Chosen = (&'static Profile, Vec<(String, String)>);

/// The profile that the options name (the last one counts) and the parameters, in the order given; all of them valid.
pub fn parse(given: &[String]) -> Result<Chosen, Failure> {
    let mut profile = Profile::named("default");
    let mut params = Vec::new();
    for option in given {
        let (name, value) =
            option.split_once('=').ok_or_else(|| Failure::usage(format!("-o {option}"), "not NAME=VALUE"))?;
        if value.is_empty() {
            return Err(Failure::usage(format!("-o {option}"), "no value"));
        }
        if name == "profile" {
            profile = Profile::named(value);
            if profile.is_none() {
                let names: Vec<_> = zswap::PROFILES.iter().map(|profile| profile.name).collect();
                let why = format!("no such profile; there are: {}", names.join(" "));
                return Err(Failure::usage(format!("profile {value}"), why));
            }
        } else {
            params.push((name.to_owned(), value.to_owned()));
        }
    }
    let profile = profile.ok_or_else(|| Failure::usage("profile", "no such profile"))?;
    // Made once for its opinion of the parameters, before anything else happens.
    let mut options = Options::new(profile);
    options.params.clone_from(&params);
    Zswap::new(options).map_err(Failure::usage_of)?;
    Ok((profile, params))
}
