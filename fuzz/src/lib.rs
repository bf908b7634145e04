//! What the fuzz targets check.

pub mod codec;
pub mod engine;
pub mod outside;
