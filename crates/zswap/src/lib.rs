//! The compressed cache for swap pages: Linux zswap as a library.
//!
//! Pages on their way to swap are compressed into a pool in RAM. They come back by decompression instead of I/O, and when
//! the pool is full the oldest leave for the swap device. It trades CPU time and some RAM for I/O.
//!
//! ```text
//! cache     what it is made of, parameters, gauges     area      one swap type: index, age, what is under way
//! store     frontswap's store                          entry     what is known of a page, in 14 bytes
//! load      load, invalidate_page, invalidate_area     tree      the index: radix or red-black
//! swap      the layer around: cache, else device       lru       the order of age
//! writeback from the pool to the device                pool      an allocator and a compressor
//! shrinker  the worker, and memory pressure            worker    working memory of the threads
//! profile   the documented systems, as data            params, stats, error
//! ```
//!
//! What it can never do: give back bytes that were not the last ones stored for an entry, report a page as absent that
//! was stored and neither dropped by a refusal nor invalidated, start a thread, or panic on what it is given.

mod area;
mod cache;
mod checksum;
mod entry;
mod error;
mod load;
mod lru;
mod params;
mod pool;
mod profile;
mod same_filled;
mod shrinker;
mod stats;
mod store;
mod swap;
mod sync;
mod tree;
mod worker;
mod writeback;

pub use cache::{InitError, Lookup, Options, SWAP_TYPES, SwapEntry, SwaponError, Zswap, system_ram_bytes};
pub use error::{LoadError, ParamError, Refusal, SwapOutError};
pub use load::{Keep, Source};
pub use params::Param;
pub use profile::{Access, Eviction, PROFILES, Profile, Rules, SameFilled};
pub use stats::{Counter, Place, Stats, StatsBlock};
pub use swap::Placed;
pub use tree::TreeKind;
pub use zcomp::{PAGE_SIZE, Page};
