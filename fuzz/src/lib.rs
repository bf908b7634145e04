//! What the fuzz targets check, and what they begin with.

pub mod codec;
pub mod engine;
#[path = "../../crates/zcomp/tests/common/fenced.rs"]
mod fenced;
pub mod outside;

/// Where a target puts its first inputs before it starts, if anywhere: the variable `FUZZ_SEEDS` names the folder.
pub fn seeds() -> Option<std::path::PathBuf> {
    std::env::var_os("FUZZ_SEEDS").map(Into::into)
}
