//! The device itself: made, looked at with tools that are not ours, used, and taken away. Needs root, FUSE and loop devices.

mod bytes;
mod dead;
mod device;
mod file;
mod kit;
mod machine;
