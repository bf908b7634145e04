//! A radix tree of fixed depth over leaves of 64 entries.
//!
//! ```text
//! offset:  | root 8 bits | upper 9 bits | lower 9 bits | place in leaf 6 bits |
//! ```
//!
//! A leaf keeps the fields of its entries apart, so that a scan over ages reads stamps and kinds and nothing else.
//! A full leaf costs 14.1 bytes an entry, the directory above dense leaves another 0.13. Nodes and leaves go when
//! they are empty, so memory follows the offsets in use and not the size of the device. The price is the sparse
//! case: a leaf with one entry costs as much as a full one. It can never cost more than 904 bytes an entry for
//! leaves, nor more than 4104 for each of two nodes above one.

use super::fallible::TryBox;
use super::{NoMemory, Tree};
use crate::entry::{Entry, Meta, Packed, What};

const LEAF_BITS: u32 = 6;
const LEAF: usize = 1 << LEAF_BITS;
const NODE_BITS: u32 = 9;
const NODE: usize = 1 << NODE_BITS;
const ROOT: usize = 1 << (u32::BITS - LEAF_BITS - 2 * NODE_BITS);

/// 64 places. The entry at a place is the one field of each array; a place that is not occupied has an empty `meta`.
struct Leaf {
    /// A bit for each place that holds an entry.
    occupied: u64,
    stamp: [u32; LEAF],
    meta: [Meta; LEAF],
    a: [u32; LEAF],
    b: [u32; LEAF],
}

impl Leaf {
    const EMPTY: Leaf =
        Leaf { occupied: 0, stamp: [0; LEAF], meta: [Meta::EMPTY; LEAF], a: [0; LEAF], b: [0; LEAF] };

    fn is_occupied(&self, place: usize) -> bool {
        self.occupied >> place & 1 != 0
    }

    /// The entry at a place. The bitmap and `meta` both say whether there is one, and where they differ one of
    /// them was damaged.
    fn get(&self, place: usize) -> Option<Entry> {
        let packed =
            Packed { a: self.a[place], b: self.b[place], stamp: self.stamp[place], meta: self.meta[place] };
        match (self.is_occupied(place), packed.meta) {
            (true, _) => Some(packed.unpack()),
            (false, Meta::EMPTY) => None,
            (false, _) => Some(Entry { what: What::Damaged, ..packed.unpack() }),
        }
    }

    fn set(&mut self, place: usize, entry: Entry) {
        let Packed { a, b, stamp, meta } = Packed::pack(entry);
        (self.a[place], self.b[place], self.stamp[place], self.meta[place]) = (a, b, stamp, meta);
        self.occupied |= 1 << place;
    }

    fn unset(&mut self, place: usize) {
        self.meta[place] = Meta::EMPTY;
        self.occupied &= !(1 << place);
    }

    /// The occupied places, ascending.
    fn places(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let place = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (place < u64::BITS).then_some((place, place as usize))
        })
    }
}

/// A directory of nodes or leaves. One below the root is freed with its last child.
struct Node<C, const N: usize> {
    children: usize,
    child: [Option<TryBox<C>>; N],
}

impl<C, const N: usize> Node<C, N> {
    const EMPTY: Self = Node { children: 0, child: [const { None }; N] };

    /// The child at `at`; where there is none, `new` becomes it.
    fn child_or_new(&mut self, at: usize, new: C, heap: &mut usize) -> Result<&mut C, NoMemory> {
        match &mut self.child[at] {
            Some(child) => Ok(child),
            none => {
                let new = none.insert(TryBox::new(new)?);
                self.children += 1;
                *heap += size_of::<C>();
                Ok(new)
            }
        }
    }

    /// Makes `new` the child at `at`, where there is none.
    fn attach(&mut self, at: usize, new: TryBox<C>, heap: &mut usize) -> &mut C {
        self.children += 1;
        *heap += size_of::<C>();
        self.child[at].insert(new)
    }

    fn detach(&mut self, at: usize, heap: &mut usize) -> Option<TryBox<C>> {
        let child = self.child[at].take()?;
        self.children -= 1;
        *heap -= size_of::<C>();
        Some(child)
    }
}

type Lower = Node<Leaf, NODE>;
type Upper = Node<Lower, NODE>;
type Root = Node<Upper, ROOT>;

/// The way to a place: the index at each level.
#[derive(Clone, Copy)]
struct Path {
    root: usize,
    upper: usize,
    lower: usize,
    place: usize,
}

impl Path {
    fn to(offset: u32) -> Path {
        let digit = |shift: u32, size: usize| (offset >> shift) as usize & (size - 1);
        Path {
            root: digit(LEAF_BITS + 2 * NODE_BITS, ROOT),
            upper: digit(LEAF_BITS + NODE_BITS, NODE),
            lower: digit(LEAF_BITS, NODE),
            place: digit(0, LEAF),
        }
    }
}

/// See the head of this file.
pub(super) struct Radix {
    root: Root,
    /// The leaf that was emptied last, kept so that a lone entry that comes and goes does not go through the
    /// allocator each time.
    spare: Option<TryBox<Leaf>>,
    len: usize,
    /// Bytes of the nodes and leaves in the tree.
    heap: usize,
}

impl Radix {
    pub(super) fn new() -> Radix {
        Radix { root: Root::EMPTY, spare: None, len: 0, heap: 0 }
    }

    fn leaf(&self, path: Path) -> Option<&Leaf> {
        let upper = self.root.child[path.root].as_deref()?;
        let lower = upper.child[path.upper].as_deref()?;
        lower.child[path.lower].as_deref()
    }

    fn leaf_mut(&mut self, path: Path) -> Option<&mut Leaf> {
        let upper = self.root.child[path.root].as_deref_mut()?;
        let lower = upper.child[path.upper].as_deref_mut()?;
        lower.child[path.lower].as_deref_mut()
    }

    /// Puts `entry` into a new leaf at the end of `path`, where there is none. May leave empty nodes where it fails.
    fn insert_leaf(&mut self, path: Path, entry: Entry) -> Result<(), NoMemory> {
        let upper = self.root.child_or_new(path.root, Upper::EMPTY, &mut self.heap)?;
        let lower = upper.child_or_new(path.upper, Lower::EMPTY, &mut self.heap)?;
        let spare = self.spare.take().map_or_else(|| TryBox::new(Leaf::EMPTY), Ok)?;
        lower.attach(path.lower, spare, &mut self.heap).set(path.place, entry);
        Ok(())
    }

    /// Frees the nodes on `path` that have no child.
    fn prune(&mut self, path: Path) {
        let Some(upper) = self.root.child[path.root].as_deref_mut() else { return };
        if let Some(lower) = upper.child[path.upper].as_deref()
            && lower.children == 0
        {
            upper.detach(path.upper, &mut self.heap);
        }
        if upper.children == 0 {
            self.root.detach(path.root, &mut self.heap);
        }
    }

    /// Takes the empty leaf at the end of `path` out.
    fn remove_leaf(&mut self, path: Path) {
        let Some(upper) = self.root.child[path.root].as_deref_mut() else { return };
        let Some(lower) = upper.child[path.upper].as_deref_mut() else { return };
        if let Some(mut leaf) = lower.detach(path.lower, &mut self.heap) {
            *leaf = Leaf::EMPTY;
            self.spare = Some(leaf);
        }
        self.prune(path);
    }

    /// Calls `visit` with each leaf and the offset of its first place, ascending.
    fn for_each_leaf(&self, mut visit: impl FnMut(u32, &Leaf)) {
        for (upper, high) in self.root.child.iter().zip(0u32..) {
            let Some(upper) = upper.as_deref() else { continue };
            for (lower, middle) in upper.child.iter().zip(high << NODE_BITS..) {
                let Some(lower) = lower.as_deref() else { continue };
                for (leaf, low) in lower.child.iter().zip(middle << NODE_BITS..) {
                    if let Some(leaf) = leaf.as_deref() {
                        visit(low << LEAF_BITS, leaf);
                    }
                }
            }
        }
    }
}

impl Tree for Radix {
    fn get(&self, offset: u32) -> Option<Entry> {
        let path = Path::to(offset);
        self.leaf(path)?.get(path.place)
    }

    fn insert(&mut self, offset: u32, entry: Entry) -> Result<Option<Entry>, NoMemory> {
        let path = Path::to(offset);
        let Some(leaf) = self.leaf_mut(path) else {
            self.insert_leaf(path, entry).inspect_err(|_| self.prune(path))?;
            self.len += 1;
            return Ok(None);
        };
        let replaced = leaf.get(path.place);
        let new = !leaf.is_occupied(path.place);
        leaf.set(path.place, entry);
        self.len += usize::from(new);
        Ok(replaced)
    }

    fn remove(&mut self, offset: u32) -> Option<Entry> {
        let path = Path::to(offset);
        let leaf = self.leaf_mut(path)?;
        let removed = leaf.get(path.place)?;
        let counted = leaf.is_occupied(path.place);
        leaf.unset(path.place);
        let emptied = leaf.occupied == 0;
        self.len -= usize::from(counted);
        if emptied {
            self.remove_leaf(path);
        }
        Some(removed)
    }

    fn update(&mut self, offset: u32, change: &mut dyn FnMut(&mut Entry)) -> bool {
        let path = Path::to(offset);
        let Some(leaf) = self.leaf_mut(path) else { return false };
        let Some(mut entry) = leaf.get(path.place) else { return false };
        change(&mut entry);
        let new = !leaf.is_occupied(path.place);
        leaf.set(path.place, entry);
        self.len += usize::from(new);
        true
    }

    fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self) -> usize {
        size_of::<Radix>() + self.heap + self.spare.as_ref().map_or(0, |_| size_of::<Leaf>())
    }

    fn for_each(&self, visit: &mut dyn FnMut(u32, Entry)) {
        self.for_each_leaf(|first, leaf| {
            for (place, at) in leaf.places() {
                if let Some(entry) = leaf.get(at) {
                    visit(first + place, entry);
                }
            }
        });
    }

    fn for_each_stamp(&self, visit: &mut dyn FnMut(u32, u32, Meta)) {
        self.for_each_leaf(|first, leaf| {
            for (place, at) in leaf.places() {
                visit(first + place, leaf.stamp[at], leaf.meta[at]);
            }
        });
    }

    fn next_at(&self, from: u32) -> Option<u32> {
        // Down the path of `from`, and at each level on to the first child behind it; a path with no more children goes
        // on at the level above.
        let path = Path::to(from);
        for (upper, high) in self.root.child.iter().zip(0u32..).skip(path.root) {
            let Some(upper) = upper.as_deref() else { continue };
            let at_root = high as usize == path.root;
            for (lower, middle) in
                upper.child.iter().zip(high << NODE_BITS..).skip(if at_root { path.upper } else { 0 })
            {
                let Some(lower) = lower.as_deref() else { continue };
                let at_upper = at_root && middle as usize % NODE == path.upper;
                for (leaf, low) in
                    lower.child.iter().zip(middle << NODE_BITS..).skip(if at_upper { path.lower } else { 0 })
                {
                    let Some(leaf) = leaf.as_deref() else { continue };
                    let at_lower = at_upper && low as usize % NODE == path.lower;
                    let below = if at_lower { (1u64 << path.place) - 1 } else { 0 };
                    let left = leaf.occupied & !below;
                    if left != 0 {
                        return Some(low << LEAF_BITS | left.trailing_zeros());
                    }
                }
            }
        }
        None
    }
}
