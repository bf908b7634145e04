//! Tests of the engine through its public face, on devices and allocators that misbehave on demand.

mod support;

mod kernel_cases;
mod profiles;
mod races;
mod refusals;
mod threads;
