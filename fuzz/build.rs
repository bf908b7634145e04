//! Compiles what counts blocks in the C libraries.

fn main() {
    println!("cargo::rerun-if-changed=counters.cc");
    cc::Build::new()
        .cpp(true)
        .cpp_link_stdlib(None)
        .link_lib_modifier("+whole-archive")
        .file("counters.cc")
        .compile("counters");
    // libFuzzer has a `__sanitizer_cov_trace_pc` of its own, which only warns; the first one, ours, is taken.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,muldefs");
}
