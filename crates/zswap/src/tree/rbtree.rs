//! A red-black tree keyed by offset: the mapping that the documents of 2012 describe.
//!
//! A node is 32 bytes: key, three links, the packed entry, the colour. Nodes are numbered and live in one slab of
//! chunks that grows and shrinks by a chunk; the slab has no holes, because the node with the last number moves into
//! the place of a removed one. What this trades for costs that no pattern of offsets changes: twice the memory of a
//! dense radix tree and about log2(n) cache misses an operation. It can never hold more than 2^32 - 1 entries.
//!
//! The rules: the root is black; a red node has no red child; every way from the root down to a missing child passes
//! the same number of black nodes. So no way is more than twice as long as another.
//!
//! Insert:
//! 1. Go down by key to where a child is missing and put the new node there, red.
//! 2. While its parent is red (so there is a grandparent, black):
//!    - uncle red: parent and uncle become black, the grandparent red; go on from the grandparent.
//!    - uncle black or missing: if the node is an inner grandchild, rotate the parent outwards, which makes it an
//!      outer one; paint parent black, grandparent red; rotate the grandparent away. Done.
//! 3. Paint the root black.
//!
//! Remove:
//! 1. A node with two children takes over key and entry of its successor, the leftmost node of its right subtree, and
//!    the successor goes in its place. So the node that goes has at most one child.
//! 2. Put that child in the place of the node. If there was one, the node was black and the child red: paint it black,
//!    done. A red node leaves no debt either. A black one leaves its side one black short:
//! 3. At (parent, short side), with the sibling on the other side (it exists, or that side would be shorter still):
//!    - sibling red: paint it black and the parent red, rotate the parent to the short side; the new sibling is black.
//!    - sibling black with no red child: paint it red. A red parent becomes black, done; under a black parent the whole
//!      subtree is now short, so go on one level up; at the root, done.
//!    - sibling black with a red child: if only the near one is red, paint it black and the sibling red and rotate the
//!      sibling away, which makes the far one red; then the sibling takes the parent's colour, parent and far child
//!      become black, and the parent is rotated to the short side. Done.
//! 4. The node with the last number moves into the number that is free now.

use super::fallible::{TryBox, reserve};
use super::{NoMemory, Tree};
use crate::entry::{Entry, Meta, Packed};

/// A node's number.
type Link = u32;

/// No node.
const NIL: Link = u32::MAX;

/// Which child: `child[LEFT]` has the smaller keys.
type Side = usize;
const LEFT: Side = 0;
const RIGHT: Side = 1;

#[derive(Clone, Copy)]
struct Node {
    key: u32,
    parent: Link,
    child: [Link; 2],
    a: u32,
    b: u32,
    stamp: u32,
    meta: Meta,
    red: bool,
}

const _: () = assert!(size_of::<Node>() == 32);

impl Node {
    const VACANT: Node =
        Node { key: 0, parent: NIL, child: [NIL; 2], a: 0, b: 0, stamp: 0, meta: Meta::EMPTY, red: false };

    fn entry(&self) -> Entry {
        Packed { a: self.a, b: self.b, stamp: self.stamp, meta: self.meta }.unpack()
    }

    fn set_entry(&mut self, entry: Entry) {
        let Packed { a, b, stamp, meta } = Packed::pack(entry);
        (self.a, self.b, self.stamp, self.meta) = (a, b, stamp, meta);
    }
}

const CHUNK: usize = 128;

/// Nodes 0 to `len - 1`, in chunks of 4 KiB. One empty chunk is kept, so that a slab that breathes around a chunk's
/// edge does not go through the allocator each time.
struct Slab {
    chunks: Vec<TryBox<[Node; CHUNK]>>,
    len: u32,
}

impl Slab {
    fn at(&self, link: Link) -> &Node {
        &self.chunks[link as usize / CHUNK][link as usize % CHUNK]
    }

    fn at_mut(&mut self, link: Link) -> &mut Node {
        &mut self.chunks[link as usize / CHUNK][link as usize % CHUNK]
    }

    fn push(&mut self, node: Node) -> Result<Link, NoMemory> {
        if self.len == NIL {
            return Err(NoMemory);
        }
        if self.len as usize == self.chunks.len() * CHUNK {
            reserve(&mut self.chunks, 1)?;
            self.chunks.push(TryBox::new([Node::VACANT; CHUNK])?);
        }
        let link = self.len;
        self.len += 1;
        *self.at_mut(link) = node;
        Ok(link)
    }

    fn pop(&mut self) {
        self.len -= 1;
        if self.chunks.len() > (self.len as usize).div_ceil(CHUNK) + 1 {
            self.chunks.pop();
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Node> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len as usize)
    }
}

/// See the head of this file.
pub(super) struct Rbtree {
    nodes: Slab,
    root: Link,
}

impl Rbtree {
    pub(super) fn new() -> Rbtree {
        Rbtree { nodes: Slab { chunks: Vec::new(), len: 0 }, root: NIL }
    }

    fn find(&self, key: u32) -> Option<Link> {
        let mut at = self.root;
        while at != NIL {
            let node = self.nodes.at(at);
            if key == node.key {
                return Some(at);
            }
            at = node.child[side_of(key, node)];
        }
        None
    }

    fn child(&self, of: Link, side: Side) -> Link {
        self.nodes.at(of).child[side]
    }

    fn parent(&self, of: Link) -> Link {
        self.nodes.at(of).parent
    }

    fn is_red(&self, link: Link) -> bool {
        link != NIL && self.nodes.at(link).red
    }

    fn paint(&mut self, link: Link, red: bool) {
        self.nodes.at_mut(link).red = red;
    }

    /// The side of its parent on which a node other than the root hangs.
    fn side(&self, link: Link) -> Side {
        if self.child(self.parent(link), LEFT) == link { LEFT } else { RIGHT }
    }

    /// Makes whatever points down to `old` point to `new`: the parent of `old`, or the root.
    fn relink(&mut self, old: Link, new: Link) {
        let parent = self.parent(old);
        if parent == NIL {
            self.root = new;
        } else {
            let side = self.side(old);
            self.nodes.at_mut(parent).child[side] = new;
        }
    }

    /// Hangs `child`, which may be [`NIL`], below `parent`.
    fn hang(&mut self, parent: Link, side: Side, child: Link) {
        self.nodes.at_mut(parent).child[side] = child;
        if child != NIL {
            self.nodes.at_mut(child).parent = parent;
        }
    }

    /// Moves `top` down to `side`; its child on the other side, which exists, comes up.
    fn rotate(&mut self, top: Link, side: Side) {
        let up = self.child(top, 1 - side);
        self.relink(top, up);
        self.nodes.at_mut(up).parent = self.parent(top);
        self.hang(top, 1 - side, self.child(up, side));
        self.hang(up, side, top);
    }

    fn fix_insert(&mut self, mut at: Link) {
        loop {
            let parent = self.parent(at);
            if !self.is_red(parent) {
                break;
            }
            let grandparent = self.parent(parent);
            let side = self.side(parent);
            let uncle = self.child(grandparent, 1 - side);
            if self.is_red(uncle) {
                self.paint(parent, false);
                self.paint(uncle, false);
                self.paint(grandparent, true);
                at = grandparent;
                continue;
            }
            let outer = if self.side(at) == side {
                parent
            } else {
                self.rotate(parent, side);
                at
            };
            self.paint(outer, false);
            self.paint(grandparent, true);
            self.rotate(grandparent, 1 - side);
            break;
        }
        self.paint(self.root, false);
    }

    /// Pays one black back at `side` of `parent`.
    fn fix_remove(&mut self, mut parent: Link, mut side: Side) {
        loop {
            let mut sibling = self.child(parent, 1 - side);
            if self.is_red(sibling) {
                self.paint(sibling, false);
                self.paint(parent, true);
                self.rotate(parent, side);
                sibling = self.child(parent, 1 - side);
            }
            let near = self.child(sibling, side);
            let mut far = self.child(sibling, 1 - side);
            if !self.is_red(near) && !self.is_red(far) {
                self.paint(sibling, true);
                let grandparent = self.parent(parent);
                if self.is_red(parent) || grandparent == NIL {
                    self.paint(parent, false);
                    return;
                }
                side = self.side(parent);
                parent = grandparent;
                continue;
            }
            if !self.is_red(far) {
                self.paint(near, false);
                self.paint(sibling, true);
                self.rotate(sibling, 1 - side);
                (far, sibling) = (sibling, near);
            }
            self.paint(sibling, self.is_red(parent));
            self.paint(parent, false);
            self.paint(far, false);
            self.rotate(parent, side);
            return;
        }
    }

    /// The first node of the subtree at `at`, in order of keys.
    fn leftmost(&self, mut at: Link) -> Link {
        loop {
            match self.child(at, LEFT) {
                NIL => return at,
                child => at = child,
            }
        }
    }

    /// The node after `at` in order of keys, or [`NIL`].
    fn next(&self, mut at: Link) -> Link {
        let right = self.child(at, RIGHT);
        if right != NIL {
            return self.leftmost(right);
        }
        loop {
            let parent = self.parent(at);
            if parent == NIL || self.child(parent, LEFT) == at {
                return parent;
            }
            at = parent;
        }
    }

    /// Takes a node with at most one child out of the tree.
    fn unlink(&mut self, link: Link) {
        let Node { parent, child: [left, right], red, .. } = *self.nodes.at(link);
        let child = if left == NIL { right } else { left };
        let side = if parent == NIL { LEFT } else { self.side(link) };
        self.relink(link, child);
        if child != NIL {
            let child = self.nodes.at_mut(child);
            (child.parent, child.red) = (parent, false);
        } else if !red && parent != NIL {
            self.fix_remove(parent, side);
        }
    }

    /// Gives the number of an unlinked node to the last one, so that the slab has no hole.
    fn vacate(&mut self, link: Link) {
        let last = self.nodes.len - 1;
        if link != last {
            let node = *self.nodes.at(last);
            self.relink(last, link);
            *self.nodes.at_mut(link) = node;
            for child in node.child {
                if child != NIL {
                    self.nodes.at_mut(child).parent = link;
                }
            }
        }
        self.nodes.pop();
    }
}

fn side_of(key: u32, node: &Node) -> Side {
    if key < node.key { LEFT } else { RIGHT }
}

impl Tree for Rbtree {
    fn get(&self, offset: u32) -> Option<Entry> {
        self.find(offset).map(|link| self.nodes.at(link).entry())
    }

    fn insert(&mut self, offset: u32, entry: Entry) -> Result<Option<Entry>, NoMemory> {
        let (mut parent, mut side, mut at) = (NIL, LEFT, self.root);
        while at != NIL {
            let node = self.nodes.at_mut(at);
            if offset == node.key {
                let replaced = node.entry();
                node.set_entry(entry);
                return Ok(Some(replaced));
            }
            (parent, side) = (at, side_of(offset, node));
            at = node.child[side];
        }
        let mut node = Node { key: offset, parent, red: true, ..Node::VACANT };
        node.set_entry(entry);
        let link = self.nodes.push(node)?;
        if parent == NIL {
            self.root = link;
        } else {
            self.hang(parent, side, link);
        }
        self.fix_insert(link);
        Ok(None)
    }

    fn remove(&mut self, offset: u32) -> Option<Entry> {
        let found = self.find(offset)?;
        let node = *self.nodes.at(found);
        let removed = node.entry();
        let goes = if node.child.contains(&NIL) {
            found
        } else {
            let successor = self.leftmost(node.child[RIGHT]);
            let Node { key, a, b, stamp, meta, .. } = *self.nodes.at(successor);
            *self.nodes.at_mut(found) = Node { key, a, b, stamp, meta, ..node };
            successor
        };
        self.unlink(goes);
        self.vacate(goes);
        Some(removed)
    }

    fn update(&mut self, offset: u32, change: &mut dyn FnMut(&mut Entry)) -> bool {
        let Some(link) = self.find(offset) else { return false };
        let node = self.nodes.at_mut(link);
        let mut entry = node.entry();
        change(&mut entry);
        node.set_entry(entry);
        true
    }

    fn len(&self) -> usize {
        self.nodes.len as usize
    }

    fn bytes(&self) -> usize {
        let chunks = &self.nodes.chunks;
        size_of::<Rbtree>()
            + chunks.capacity() * size_of::<TryBox<[Node; CHUNK]>>()
            + chunks.len() * size_of::<[Node; CHUNK]>()
    }

    fn for_each(&self, visit: &mut dyn FnMut(u32, Entry)) {
        let mut at = if self.root == NIL { NIL } else { self.leftmost(self.root) };
        while at != NIL {
            let node = self.nodes.at(at);
            visit(node.key, node.entry());
            at = self.next(at);
        }
    }

    fn for_each_stamp(&self, visit: &mut dyn FnMut(u32, u32, Meta)) {
        for node in self.nodes.iter() {
            visit(node.key, node.stamp, node.meta);
        }
    }

    fn next_at(&self, from: u32) -> Option<u32> {
        let mut best = None;
        let mut at = self.root;
        while at != NIL {
            let key = self.nodes.at(at).key;
            at = if key < from {
                self.child(at, RIGHT)
            } else {
                best = Some(key);
                self.child(at, LEFT)
            };
        }
        best
    }
}

#[cfg(test)]
impl Rbtree {
    /// Panics where a rule of the tree or a link is broken.
    pub(super) fn check(&self) {
        assert!(!self.is_red(self.root), "the root is red");
        let mut seen = 0;
        self.check_below(self.root, NIL, &mut seen, 0, u32::MAX);
        assert_eq!(seen, self.nodes.len, "the tree and the slab disagree");
        assert!(self.nodes.chunks.len() <= (self.nodes.len as usize).div_ceil(CHUNK) + 1, "slab not shrunk");
    }

    /// Returns the black height.
    fn check_below(&self, at: Link, parent: Link, seen: &mut u32, low: u32, high: u32) -> u32 {
        if at == NIL {
            return 1;
        }
        assert!(at < self.nodes.len, "a link leads out of the slab");
        *seen += 1;
        let node = self.nodes.at(at);
        assert_eq!(node.parent, parent, "a parent link is wrong");
        assert!((low..=high).contains(&node.key), "the keys are out of order");
        let [left, right] = node.child;
        assert!(!node.red || (!self.is_red(left) && !self.is_red(right)), "red under red");
        let below = |key: u32| key.checked_sub(1).expect("a smaller key");
        let above = |key: u32| key.checked_add(1).expect("a greater key");
        let left_height =
            if left == NIL { 1 } else { self.check_below(left, at, seen, low, below(node.key)) };
        let right_height =
            if right == NIL { 1 } else { self.check_below(right, at, seen, above(node.key), high) };
        assert_eq!(left_height, right_height, "black heights differ");
        left_height + u32::from(!node.red)
    }
}
