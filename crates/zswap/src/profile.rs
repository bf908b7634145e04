//! Profiles: the behaviour of each system that the founding documents describe, as data.
//!
//! A profile says which parameters exist and when they may be set, their first values, and the few rules of the engine
//! that differed. The engine asks the rules; nothing else in it knows a profile's name.

use crate::params::Param;
use crate::tree::TreeKind;

/// When a parameter may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Any time.
    Runtime,
    /// Only when the cache is made (a boot parameter, in the kernel).
    Start,
}

/// Who makes room in a full pool, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    /// The store itself writes back up to 16 of the oldest entries of its swap type and tries once more; also when the
    /// allocator has no memory (2012 patch set).
    StoreOldest,
    /// The store itself has the allocator name its oldest page and writes back what is in it, trying up to 8 pages
    /// (3.11).
    StoreAllocatorPage,
    /// The store is refused and the shrink worker writes back until the accept threshold is reached (5.10 and later).
    Worker,
}

/// Which same-filled pages are kept as one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SameFilled {
    /// None: they are compressed like any page (before 4.16).
    None,
    /// Zero-filled ones only; the kernel keeps those in the swap layer (6.12 and later).
    Zero,
    /// Any repeated machine word (4.16 to 6.11, and ours).
    Any,
}

/// What differed between the systems inside the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How a full pool is emptied.
    pub eviction: Eviction,
    /// Pages that do not compress are kept raw where they can be written back later (6.18); else they are refused.
    pub raw_incompressible: bool,
    /// Which same-filled pages cost no pool memory; where the profile has switches for them, those decide too.
    pub same_filled: SameFilled,
    /// What `exclusive_loads` is where the profile has no such parameter.
    pub exclusive_loads: bool,
    /// A stored entry counts as referenced, so that the first look at it only ages it (6.12 and later).
    pub store_references: bool,
}

/// A named system.
#[derive(Debug)]
pub struct Profile {
    /// What `-o profile=` takes.
    pub name: &'static str,
    /// One line on what it is.
    pub about: &'static str,
    /// The parameters that exist, with their first values.
    pub params: &'static [(Param, Access, &'static str)],
    /// The zpools that may be chosen.
    pub zpools: &'static [&'static str],
    /// The zpool it starts with.
    pub zpool: &'static str,
    /// The index it starts with.
    pub tree: TreeKind,
    /// The engine's rules.
    pub rules: Rules,
}

use Access::{Runtime, Start};

const ANY_ZPOOL: &[&str] = &["zbud", "zsmalloc"];

/// All profiles, `default` last.
///
/// `enabled` starts as Y in all of them: whoever starts us has decided that. The kernel starts with N.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "v1",
        about: "the patch set of 2012-13: zsmalloc, lzo, red-black tree and LRU per swap type, ratio policy",
        params: &[
            (Param::Enabled, Start, "Y"),
            (Param::Compressor, Start, "lzo"),
            (Param::MaxPoolPercent, Runtime, "20"),
            (Param::MaxCompressionRatio, Runtime, "80"),
        ],
        zpools: &["zsmalloc"],
        zpool: "zsmalloc",
        tree: TreeKind::Rbtree,
        rules: Rules {
            eviction: Eviction::StoreOldest,
            raw_incompressible: false,
            same_filled: SameFilled::None,
            exclusive_loads: false,
            store_references: false,
        },
    },
    Profile {
        name: "3.11",
        about: "Linux 3.11: zbud, lzo, red-black tree, eviction driven by the allocator",
        params: &[
            (Param::Enabled, Start, "Y"),
            (Param::Compressor, Start, "lzo"),
            (Param::MaxPoolPercent, Runtime, "20"),
        ],
        zpools: &["zbud"],
        zpool: "zbud",
        tree: TreeKind::Rbtree,
        rules: Rules {
            eviction: Eviction::StoreAllocatorPage,
            raw_incompressible: false,
            same_filled: SameFilled::None,
            exclusive_loads: false,
            store_references: false,
        },
    },
    Profile {
        name: "zpool",
        about: "Linux 4.x to 6.14: any allocator and compressor, switched at run time",
        params: &[
            (Param::Enabled, Runtime, "Y"),
            (Param::Compressor, Runtime, "lzo"),
            (Param::Zpool, Runtime, "zbud"),
            (Param::MaxPoolPercent, Runtime, "20"),
            (Param::AcceptThresholdPercent, Runtime, "90"),
            (Param::SameFilledPagesEnabled, Runtime, "Y"),
            (Param::NonSameFilledPagesEnabled, Runtime, "Y"),
            (Param::ExclusiveLoads, Runtime, "N"),
            (Param::ShrinkerEnabled, Runtime, "N"),
        ],
        zpools: ANY_ZPOOL,
        zpool: "zbud",
        tree: TreeKind::Rbtree,
        rules: Rules {
            eviction: Eviction::Worker,
            raw_incompressible: false,
            same_filled: SameFilled::Any,
            exclusive_loads: false,
            store_references: false,
        },
    },
    Profile {
        name: "6.18",
        about: "Linux 6.18: zsmalloc only, raw incompressible pages, second chance, shrinker",
        params: &[
            (Param::Enabled, Runtime, "Y"),
            (Param::Compressor, Runtime, "lzo"),
            (Param::MaxPoolPercent, Runtime, "20"),
            (Param::AcceptThresholdPercent, Runtime, "90"),
            (Param::ShrinkerEnabled, Runtime, "N"),
        ],
        zpools: &["zsmalloc"],
        zpool: "zsmalloc",
        tree: TreeKind::Radix,
        rules: Rules {
            eviction: Eviction::Worker,
            raw_incompressible: true,
            same_filled: SameFilled::Zero,
            exclusive_loads: true,
            store_references: true,
        },
    },
    Profile {
        name: "default",
        about: "ours: every parameter, the best measured defaults",
        params: &[
            (Param::Enabled, Runtime, "Y"),
            (Param::Compressor, Runtime, "auto"),
            (Param::Zpool, Runtime, "zsmalloc"),
            (Param::MaxPoolPercent, Runtime, "20"),
            (Param::MaxPoolBytes, Runtime, "0"),
            (Param::AcceptThresholdPercent, Runtime, "90"),
            (Param::MaxCompressionRatio, Runtime, "100"),
            (Param::SameFilledPagesEnabled, Runtime, "Y"),
            (Param::NonSameFilledPagesEnabled, Runtime, "Y"),
            (Param::ExclusiveLoads, Runtime, "Y"),
            (Param::ShrinkerEnabled, Runtime, "N"),
            (Param::Tree, Start, "radix"),
        ],
        zpools: ANY_ZPOOL,
        zpool: "zsmalloc",
        tree: TreeKind::Radix,
        rules: Rules {
            eviction: Eviction::Worker,
            raw_incompressible: true,
            same_filled: SameFilled::Any,
            exclusive_loads: true,
            store_references: false,
        },
    },
];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// When `param` may be set, if this system has it.
    pub fn access(&self, param: Param) -> Option<Access> {
        self.params.iter().find(|(it, ..)| *it == param).map(|(_, access, _)| *access)
    }
}
