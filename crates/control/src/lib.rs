//! How a running instance is seen and steered from outside.
//!
//! * [`Block`]: counters and facts in a file that any process may map and read, without asking the server; it answers
//!   while the server is busy or hung.
//! * [`serve`] and [`request`]: a socket that only root may use, for what changes something.
//!
//! Neither is ever in the way of a page: the block is written with plain stores, and the socket has a thread of its own.

mod block;
mod socket;

pub use block::{Block, BlockError, Fact, Writer};
pub use socket::{Reply, Request, RequestError, Server, request, serve};
