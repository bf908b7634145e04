//! `swapon`: from the command line to a plan, and from the terminal to the background.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use swapdev::Via;
use swapdev::swapon::Priority;
use zswap::{PAGE_SIZE, Profile};

use crate::cli::Swapon;
use crate::failure::Failure;
use crate::{options, serve, size, steer};

/// What is to be served, as far as the command line says.
pub struct Plan {
    /// The instance's name.
    pub name: String,
    /// Slots in bytes; by the backing or by RAM without.
    pub size: Option<u64>,
    /// The backing file or device.
    pub backing: Option<PathBuf>,
    /// How the kernel reaches us.
    pub via: Via,
    /// Of the swap area.
    pub priority: Priority,
    /// Whose behaviour the cache has.
    pub profile: &'static Profile,
    /// Parameters, in the order given.
    pub params: Vec<(String, String)>,
}

/// `uzswap swapon`.
pub fn run(args: &Swapon) -> Result<(), Failure> {
    let plan = plan(args)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::job("swapon", "only root may turn swap on; run it as root"));
    }
    if args.foreground {
        return serve::run(&plan, |device| println!("{}", device.display()));
    }
    in_background(&plan)
}

fn plan(args: &Swapon) -> Result<Plan, Failure> {
    steer::check(&args.name)?;
    let ram = zswap::system_ram_bytes();
    let (profile, params) = options::parse(&args.options)?;
    let size = args.size.as_deref().map(|text| size::parse(text, ram)).transpose();
    let size = size.map_err(|why| Failure::usage("--size", why))?;
    if let Some(bytes) = size
        && (bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE as u64))
    {
        return Err(Failure::usage(
            "--size",
            format!("{bytes} bytes are not a whole number of {PAGE_SIZE}-byte pages above 0"),
        ));
    }
    let priority = args.priority.parse().ok().and_then(Priority::new);
    Ok(Plan {
        name: args.name.clone(),
        size,
        backing: args.backing.clone(),
        via: args.via.parse().map_err(|error| Failure::usage("--via", error))?,
        priority: priority.ok_or_else(|| Failure::usage("--priority", "not a number from 0 to 32767"))?,
        profile,
        params,
    })
}

/// Serves in a child that has left the terminal, and returns when the device is on or has failed to be.
fn in_background(plan: &Plan) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::job("background", error);
    let (ready, tell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| cannot(e.into()))?;
    // SAFETY: this process has one thread, so the child is a whole copy of it and may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(cannot(std::io::Error::last_os_error())),
        0 => {
            drop(ready);
            let mut tell = Some(File::from(tell));
            let served = rustix::process::setsid().map_err(|error| cannot(error.into())).and_then(|_| {
                serve::run(plan, |device| {
                    if let Some(mut tell) = tell.take() {
                        // A parent that is gone does not need to know.
                        let _ = tell.write_all(format!("0{}", device.display()).as_bytes());
                    }
                    leave_terminal(&steer::root().join(&plan.name));
                })
            });
            if let Err(failure) = served {
                if let Some(mut tell) = tell {
                    let _ = tell.write_all(failure.wire().as_bytes());
                } else {
                    eprintln!("uzswap: {}", failure.text());
                }
                std::process::exit(1);
            }
            std::process::exit(0)
        }
        _ => {
            drop(tell);
            let mut text = String::new();
            File::from(ready).read_to_string(&mut text).map_err(cannot)?;
            match text.strip_prefix('0') {
                Some(device) => {
                    println!("{device}");
                    Ok(())
                }
                None => Err(Failure::from_wire(&text)),
            }
        }
    }
}

/// Standard input and output are nobody's from here on; messages go to the file `log` of the instance.
fn leave_terminal(dir: &Path) {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let log = File::options().append(true).create(true).open(dir.join("log"));
        let _ = rustix::stdio::dup2_stdin(null.as_fd());
        let _ = rustix::stdio::dup2_stdout(null.as_fd());
        let _ = rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null).as_fd());
    }
    let _ = std::env::set_current_dir("/");
}
