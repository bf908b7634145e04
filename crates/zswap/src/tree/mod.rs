//! The index of one swap type: from a page's offset to its [`Entry`].
//!
//! | tree | bytes an entry, dense | what it trades |
//! | --- | --- | --- |
//! | `radix` (default) | 14.3 | memory where offsets lie far apart (at worst 9 KiB an entry) for speed and density |
//! | `rbtree` | 32 | speed and density for a cost that no pattern of offsets changes; the documented mapping of 2012 |
//!
//! Entries are held by value: there is no second allocation an entry and no pointer to one. An index can never
//! abort for want of memory, and never says that a page is absent where its entry was damaged.
//!
//! Where the offsets of one swap type are shared out among several trees, do that by blocks of offsets at least as
//! large as a leaf of [`radix`] and give each tree offsets with the tree's number divided out; else each of them
//! pays for directories that the others fill.

mod fallible;
mod radix;
mod rbtree;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::entry::{Entry, Meta};
pub(crate) use fallible::NoMemory;
#[cfg(test)]
pub(crate) use fallible::refusal;

/// A map from swap offsets to entries.
pub(crate) trait Tree: Send + Sync {
    /// The entry at `offset`. One whose bits were damaged is there, as [`What::Damaged`](crate::entry::What).
    fn get(&self, offset: u32) -> Option<Entry>;

    /// Puts `entry` at `offset` and returns the one it replaces. Replacing takes no memory. Without memory nothing
    /// changes.
    fn insert(&mut self, offset: u32, entry: Entry) -> Result<Option<Entry>, NoMemory>;

    /// Takes the entry out.
    fn remove(&mut self, offset: u32) -> Option<Entry>;

    /// Changes the entry at `offset` in place; takes no memory. Returns whether there was one.
    fn update(&mut self, offset: u32, change: &mut dyn FnMut(&mut Entry)) -> bool;

    /// Entries held.
    fn len(&self) -> usize;

    /// Bytes asked from the system, the tree itself included.
    fn bytes(&self) -> usize;

    /// Visits all entries in ascending order of their offsets.
    fn for_each(&self, visit: &mut dyn FnMut(u32, Entry));

    /// Visits offset, stamp and kind of all entries as fast as memory streams, in no promised order.
    fn for_each_stamp(&self, visit: &mut dyn FnMut(u32, u32, Meta));

    /// The lowest offset of at least `from` that holds an entry.
    fn next_at(&self, from: u32) -> Option<u32>;
}

/// The trees there are, by the names that the `tree` parameter takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TreeKind {
    /// `radix`
    #[default]
    Radix,
    /// `rbtree`
    Rbtree,
}

impl TreeKind {
    /// All of them, the default first.
    pub const ALL: [TreeKind; 2] = [TreeKind::Radix, TreeKind::Rbtree];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            TreeKind::Radix => "radix",
            TreeKind::Rbtree => "rbtree",
        }
    }
}

impl fmt::Display for TreeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No tree has this name (ENOENT).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownTree;

impl FromStr for TreeKind {
    type Err = UnknownTree;

    fn from_str(name: &str) -> Result<TreeKind, UnknownTree> {
        TreeKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownTree)
    }
}

/// An empty tree of this kind.
pub(crate) fn make(kind: TreeKind) -> Box<dyn Tree> {
    match kind {
        TreeKind::Radix => Box::new(radix::Radix::new()),
        TreeKind::Rbtree => Box::new(rbtree::Rbtree::new()),
    }
}
