//! Compressors by name, and what is said of names that are none.

use zcomp::LookupError;

mod common;

#[test]
fn every_name_finds_a_compressor_of_that_name() {
    for name in zcomp::names().iter().chain(&common::EVERY) {
        assert_eq!(common::find(name).name(), *name);
    }
    assert_eq!(zcomp::names(), ["lzo", "lzo-rle", "lz4", "lz4hc", "zstd", "deflate", "weft"]);
}

#[test]
fn blanks_around_a_name_and_default_parameters_drop_out() {
    for (given, name) in [
        ("  lz4\n", "lz4"),
        ("\tzstd ", "zstd"),
        ("zstd(level=3)", "zstd"),
        ("zstd( level = -5 )", "zstd(level=-5)"),
        ("lz4(acceleration=1)", "lz4"),
        ("deflate(level=6)", "deflate"),
        ("lz4hc(level=9)\n", "lz4hc"),
        ("weft(simd=1)", "weft"),
    ] {
        assert_eq!(common::find(given).name(), name, "{given:?}");
    }
}

#[test]
fn auto_is_what_takes_least_time_here() {
    #[cfg(target_arch = "x86_64")]
    let fast = is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    let fast = false;
    assert_eq!(common::find("auto").name(), if fast { "weft" } else { "lz4" });
    assert_eq!(
        refusal("auto(simd=1)"),
        LookupError::BadParameter(format!("{} without parameters", common::find("auto").name()))
    );
}

fn refusal(name: &str) -> LookupError {
    match zcomp::lookup(name) {
        Ok(found) => panic!("{name:?} found {}", found.name()),
        Err(error) => error,
    }
}

#[test]
fn what_is_no_name_is_unknown() {
    for name in [
        "",
        " ",
        "lzo1x",
        "LZ4",
        "lz4 hc",
        "zstd(level=3",
        "zstd)",
        "(",
        "()",
        "lz\x004",
        "null",
        "zstd(level=3)x",
    ] {
        let error = refusal(name);
        assert_eq!(error, LookupError::Unknown, "{name:?}");
        assert_eq!(error.errno(), libc::ENOENT);
    }
}

#[test]
fn hardware_that_is_not_here_is_named() {
    for (name, what) in [("deflate-iaa", "IAA"), ("842", "POWER")] {
        let error = refusal(name);
        assert!(matches!(error, LookupError::Unavailable(why) if why.contains(what)), "{error:?}");
        assert_eq!(error.errno(), libc::ENOENT);
    }
}

#[test]
fn a_bad_parameter_is_told_what_is_allowed() {
    for (name, allowed) in [
        ("zstd(level=20)", "-50 to 19"),
        ("zstd(level=-51)", "-50 to 19"),
        ("zstd(level=99999999999)", "-50 to 19"),
        ("zstd(level=)", "-50 to 19"),
        ("zstd(level=1.5)", "-50 to 19"),
        ("zstd(level)", "-50 to 19"),
        ("zstd()", "-50 to 19"),
        ("zstd(speed=1)", "level"),
        ("zstd(level=1,level=2)", "-50 to 19"),
        ("lz4hc(level=1)", "2 to 9"),
        ("lz4hc(level=10)", "2 to 9"),
        ("lz4(acceleration=0)", "1 to 65537"),
        ("deflate(level=0)", "1 to 12"),
        ("deflate(level=13)", "1 to 12"),
        ("weft(simd=2)", "0 to 1"),
        ("lzo(level=1)", "without"),
        ("lzo-rle()", "without"),
    ] {
        let error = refusal(name);
        assert!(
            matches!(&error, LookupError::BadParameter(text) if text.contains(allowed)),
            "{name}: {error:?}"
        );
        assert_eq!(error.errno(), libc::EINVAL);
    }
}
