//! Each tree against the standard library's ordered map, under refused allocations.

use std::collections::BTreeMap;

use zpool::Handle;

use super::radix::Radix;
use super::rbtree::Rbtree;
use super::{NoMemory, Tree, TreeKind, make, refusal};
use crate::entry::{Entry, Kind, Meta, What};

/// xorshift64*: a seed names a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(limit)) >> 32).unwrap()
    }

    fn entry(&mut self) -> Entry {
        let what = match self.below(10) {
            0 => What::Damaged,
            1 | 2 => What::Same { word: self.next() },
            3 => What::Device { checksum: self.below(u32::MAX) },
            _ => What::Pool {
                pool: u8::try_from(self.below(32)).unwrap(),
                handle: Handle::from_raw(self.below(Handle::LIMIT)).unwrap(),
                len: u16::try_from(1 + self.below(4096)).unwrap(),
                checksum: self.below(u32::MAX),
            },
        };
        Entry { what, referenced: self.below(2) == 1, stamp: self.below(u32::MAX) }
    }
}

fn kind(what: What) -> Kind {
    match what {
        What::Pool { .. } => Kind::Pool,
        What::Same { .. } => Kind::Same,
        What::Device { .. } => Kind::Device,
        What::Damaged => Kind::Damaged,
    }
}

/// A tree, with a check of its own rules.
trait Checked: Tree {
    fn check(&self);
}

impl Checked for Radix {
    fn check(&self) {}
}

impl Checked for Rbtree {
    fn check(&self) {
        Rbtree::check(self);
    }
}

/// Ways of choosing the next offset.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    Dense,
    Sparse,
    Clustered,
    Ascending,
    Descending,
    Edges,
}

const PATTERNS: [Pattern; 6] = [
    Pattern::Dense,
    Pattern::Sparse,
    Pattern::Clustered,
    Pattern::Ascending,
    Pattern::Descending,
    Pattern::Edges,
];

impl Pattern {
    /// The offset of operation `step`; `room` is about how many different offsets there are.
    fn offset(self, random: &mut Random, step: u32, room: u32) -> u32 {
        match self {
            Pattern::Dense => random.below(room),
            Pattern::Sparse => random.below(room).wrapping_mul(0x9e37_79b1),
            Pattern::Clustered => random.below(8) * 0x0812_3456 + random.below(room / 8),
            Pattern::Ascending => step % room,
            Pattern::Descending => room - 1 - step % room,
            Pattern::Edges => {
                let edge = 1u32.checked_shl(random.below(33)).unwrap_or(0);
                edge.wrapping_add(random.below(3)).wrapping_sub(1)
            }
        }
    }
}

/// Everything the trait can be asked gives the model's answer.
fn compare(tree: &dyn Tree, model: &BTreeMap<u32, Entry>) {
    assert_eq!(tree.len(), model.len());
    let mut all = Vec::new();
    tree.for_each(&mut |offset, entry| all.push((offset, entry)));
    assert!(all.iter().copied().eq(model.iter().map(|(offset, entry)| (*offset, *entry))));
    let mut stamps = Vec::new();
    tree.for_each_stamp(&mut |offset, stamp, meta: Meta| {
        stamps.push((offset, stamp, meta.referenced(), meta.kind()));
    });
    stamps.sort_unstable_by_key(|(offset, ..)| *offset);
    assert!(stamps.into_iter().eq(model.iter().map(|(offset, entry)| (
        *offset,
        entry.stamp,
        entry.referenced,
        kind(entry.what)
    ))));
}

/// Random operations. Returns how many inserts were refused.
fn run<T: Checked>(tree: &mut T, pattern: Pattern, seed: u64, steps: u32, room: u32) -> u32 {
    let empty = tree.bytes();
    let mut model = BTreeMap::new();
    let mut random = Random(seed);
    let mut refused = 0;
    for step in 0..steps {
        let offset = pattern.offset(&mut random, step, room);
        // The tree grows in the first half and shrinks in the second, through every size both ways.
        let removals = if step < steps / 2 { 2 } else { 5 };
        match random.below(8) {
            0 => assert_eq!(tree.get(offset), model.get(&offset).copied()),
            1 => {
                let entry = random.entry();
                let found = tree.update(offset, &mut |old| {
                    assert_eq!(Some(&*old), model.get(&offset));
                    *old = entry;
                });
                assert_eq!(found, model.contains_key(&offset));
                model.entry(offset).and_modify(|old| *old = entry);
            }
            n if n < 2 + removals => assert_eq!(tree.remove(offset), model.remove(&offset)),
            _ => {
                let entry = random.entry();
                if random.below(2) == 0 {
                    refusal::after(Some(random.below(2)));
                }
                let bytes = tree.bytes();
                match tree.insert(offset, entry) {
                    Ok(replaced) => assert_eq!(replaced, model.insert(offset, entry)),
                    Err(NoMemory) => {
                        refused += 1;
                        assert!(!model.contains_key(&offset), "replacing takes no memory");
                        assert_eq!(tree.get(offset), None);
                        assert!(tree.bytes() <= bytes + 64, "a failed insert keeps memory");
                    }
                }
                refusal::after(None);
            }
        }
        tree.check();
        if step % (steps / 16) == 0 {
            compare(tree, &model);
        }
    }
    compare(tree, &model);
    let offsets: Vec<u32> = model.keys().copied().collect();
    for offset in offsets {
        assert_eq!(tree.remove(offset), model.remove(&offset));
        tree.check();
    }
    compare(tree, &model);
    assert!(tree.bytes() <= empty + 3 * 4096, "{} bytes held by an empty tree", tree.bytes());
    refused
}

#[test]
fn radix_is_a_map() {
    let mut refused = 0;
    for pattern in PATTERNS {
        for (seed, room) in [(1, 64), (2, 700), (3, 40_000)] {
            refused += run(&mut Radix::new(), pattern, seed, 40_000, room);
        }
    }
    assert!(refused > 50, "only {refused} allocations refused");
}

#[test]
fn rbtree_is_a_map_and_keeps_its_rules() {
    let mut refused = 0;
    for pattern in PATTERNS {
        for (seed, room) in [(1, 16), (2, 100), (3, 700)] {
            refused += run(&mut Rbtree::new(), pattern, seed, 8_000, room);
        }
    }
    assert!(refused > 5, "only {refused} allocations refused");
}

/// Every order of inserting and removing few keys, with the rules checked at each step.
#[test]
fn rbtree_keeps_its_rules_in_every_order_of_six() {
    let entry = Random(9).entry();
    let orders = orders_of_six();
    assert_eq!(orders.len(), 720);
    for inserts in &orders {
        for removals in orders.iter().step_by(7) {
            let mut tree = Rbtree::new();
            for key in inserts {
                assert_eq!(tree.insert(*key, entry), Ok(None));
                tree.check();
            }
            for key in removals {
                assert_eq!(tree.remove(*key), Some(entry));
                tree.check();
            }
        }
    }
}

fn orders_of_six() -> Vec<Vec<u32>> {
    let mut orders = vec![Vec::new()];
    for key in 0..6 {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<u32>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, key);
                    order
                })
            })
            .collect();
    }
    orders
}

/// A large tree of each kind, each the other's oracle.
#[test]
fn trees_agree_with_each_other() {
    for pattern in PATTERNS {
        let mut trees = TreeKind::ALL.map(make);
        let mut random = Random(77);
        for step in 0..300_000 {
            let offset = pattern.offset(&mut random, step, 100_000);
            let entry = random.entry();
            let remove = random.below(3) == 0;
            let answers = trees
                .each_mut()
                .map(|tree| if remove { tree.remove(offset) } else { tree.insert(offset, entry).unwrap() });
            assert_eq!(answers[0], answers[1]);
        }
        let all = trees.each_ref().map(|tree| {
            let mut all = Vec::new();
            tree.for_each(&mut |offset, entry| all.push((offset, entry)));
            all
        });
        assert!(all[0] == all[1], "{pattern:?}");
    }
}

/// Each allocation of an insert refused in turn: nothing changes, and the next try works.
#[test]
fn a_refused_insert_changes_nothing() {
    for kind in TreeKind::ALL {
        let mut tree = make(kind);
        let empty = tree.bytes();
        let entry = Random(5).entry();
        let mut refusals = 0;
        loop {
            refusal::after(Some(refusals));
            let inserted = tree.insert(u32::MAX, entry);
            if refusal::after(None).is_some() {
                assert_eq!(inserted, Ok(None), "{kind}");
                break;
            }
            assert_eq!(inserted, Err(NoMemory), "{kind}");
            assert_eq!((tree.len(), tree.get(u32::MAX)), (0, None));
            assert!(tree.bytes() <= empty + 64, "{kind}: {} bytes kept", tree.bytes());
            refusals += 1;
        }
        assert!(refusals >= 2, "{kind}: {refusals} refusals");
        assert_eq!(tree.get(u32::MAX), Some(entry));
        refusal::after(Some(0));
        assert_eq!(tree.insert(u32::MAX, entry), Ok(Some(entry)), "replacing takes no memory");
        assert!(tree.update(u32::MAX, &mut |entry| entry.stamp = 1));
        refusal::after(None);
    }
}

#[test]
fn names() {
    assert_eq!(TreeKind::default(), TreeKind::Radix);
    for kind in TreeKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    for name in ["", "Radix", "radix ", "btree"] {
        assert!(name.parse::<TreeKind>().is_err());
    }
}

/// The memory goal: what the module's head says about dense trees.
#[test]
fn bytes_an_entry() {
    const PAGES: u32 = 1 << 18;
    let entry = Random(5).entry();
    println!("{:8} {:>28} {:>8}", "tree", "offsets", "B/entry");
    for kind in TreeKind::ALL {
        for (name, step, of) in [
            ("dense", 1, 1),
            ("random half", 1, 2),
            ("random tenth", 1, 10),
            ("one in 64", 64, 1),
            ("one in 32768", 32_768, 1),
        ] {
            let mut tree = make(kind);
            let mut random = Random(3);
            for index in 0..PAGES {
                if let Some(offset) = index.checked_mul(step)
                    && random.below(of) == 0
                {
                    tree.insert(offset, entry).unwrap();
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "for display")]
            let each = tree.bytes() as f64 / tree.len() as f64;
            println!("{kind:8} {name:>28} {each:8.2}");
            if name == "dense" {
                assert!(each < if kind == TreeKind::Radix { 14.5 } else { 32.5 }, "{kind}: {each}");
            }
        }
    }
}
