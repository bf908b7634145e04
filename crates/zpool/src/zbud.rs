//! zbud: at most two objects a page, for reclaim that is simple and predictable (3.11 to 6.14).
//!
//! The name misleads: this is no buddy allocator. Objects are paired in a page as they come; the first lies at the page's
//! left end behind the first chunk, which is the header's, the last at its right end. Density is limited to two to one,
//! and in return giving up one page means moving out two objects at most. A page never holds less than one object, so
//! zbud can never take more pages than the objects would take uncompressed.
//!
//! ```text
//! | header | first object ->  |  free chunks  |  <- last object |      64 chunks of 64 bytes
//! ```
//!
//! Pages with one object are kept by the number of their free chunks, and a new object goes into the first page found from
//! the chunks it needs upward (first fit). Pages are ordered by age for whoever drives eviction from here, as 3.11 did:
//! a page is newest when something was put into it.
//!
//! The header chunk stays unused: the links are kept beside the pages, where nothing but this module writes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::registry::CreateError;
use crate::span::Span;
use crate::sync::Mutex;
use crate::{BadHandle, ClassStats, Config, Handle, MallocError, PAGE_SIZE, Zpool};

const CHUNK: usize = 64;
/// Chunks that objects may use.
const CHUNKS: usize = PAGE_SIZE / CHUNK - 1;
/// The largest object: the other buddy would need a chunk.
const MAX_OBJECT: usize = PAGE_SIZE - 2 * CHUNK;
/// Addresses made usable at once.
const USABLE_STEP: usize = 2 << 20;
const NONE: u32 = u32::MAX;

/// A page with at least one object, or (no chunks in use) none.
#[derive(Clone, Copy)]
struct Page {
    /// Chunks of the first and the last object; 0: none.
    chunks: [u8; 2],
    /// Neighbours among pages with as many free chunks.
    fit: Links,
    /// Neighbours in age.
    age: Links,
}

#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    const NONE: Links = Links { prev: NONE, next: NONE };
}

/// Which of a page's two chains of links.
#[derive(Clone, Copy)]
enum Chain {
    Fit,
    Age,
}

impl Page {
    const EMPTY: Page = Page { chunks: [0; 2], fit: Links::NONE, age: Links::NONE };

    fn free_chunks(&self) -> usize {
        CHUNKS - usize::from(self.chunks[0]) - usize::from(self.chunks[1])
    }

    fn is_empty(&self) -> bool {
        self.chunks == [0; 2]
    }

    fn links(&mut self, chain: Chain) -> &mut Links {
        match chain {
            Chain::Fit => &mut self.fit,
            Chain::Age => &mut self.age,
        }
    }
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

struct Inner {
    pages: Vec<Page>,
    /// Pages without memory, to be used again first.
    vacant: Vec<u32>,
    /// Pages with one object, by free chunks. Pages with two are on no list of fit.
    unbuddied: [List; CHUNKS],
    /// Newest first.
    age: List,
    objects: usize,
}

/// See the head of this file.
pub(crate) struct Zbud {
    config: Config,
    span: Span,
    inner: Mutex<Inner>,
    total: AtomicUsize,
    metadata: AtomicUsize,
}

impl Zbud {
    pub(crate) fn new(config: &Config) -> Result<Zbud, CreateError> {
        let most = Handle::LIMIT as usize / 2 * PAGE_SIZE;
        let empty = List { head: NONE, tail: NONE };
        Ok(Zbud {
            config: config.clone(),
            span: Span::reserve(most, 16 * USABLE_STEP).map_err(|_| CreateError::NoMemory)?,
            inner: Mutex::new(Inner {
                pages: Vec::new(),
                vacant: Vec::new(),
                unbuddied: [empty; CHUNKS],
                age: empty,
                objects: 0,
            }),
            total: AtomicUsize::new(0),
            metadata: AtomicUsize::new(size_of::<Zbud>()),
        })
    }

    /// Where the object of `handle` is: its offset in the span and its slot's length. `None`: it is not live.
    fn find(inner: &Inner, handle: Handle) -> Option<(usize, usize)> {
        let (page, buddy) = split(handle);
        let chunks = usize::from(inner.pages.get(page as usize)?.chunks[buddy]);
        let start = if buddy == 0 { CHUNK } else { PAGE_SIZE - chunks * CHUNK };
        (chunks > 0).then_some((page as usize * PAGE_SIZE + start, chunks * CHUNK))
    }

    /// A page without objects, backed by memory.
    fn take_page(&self, inner: &mut Inner) -> Result<u32, MallocError> {
        if !self.config.may_grow(1) {
            return Err(MallocError::NoMemory);
        }
        if inner.vacant.is_empty() {
            inner.pages.try_reserve(1).map_err(|_| MallocError::NoMemory)?;
            // So that giving the page back never needs memory.
            inner.vacant.try_reserve(inner.pages.len() + 1).map_err(|_| MallocError::NoMemory)?;
            let page = u32::try_from(inner.pages.len()).map_err(|_| MallocError::NoMemory)?;
            let end = (page as usize + 1) * PAGE_SIZE;
            if end > self.span.reserved() {
                return Err(MallocError::NoMemory);
            }
            if !self.span.is_usable(end) {
                let usable = end.next_multiple_of(USABLE_STEP).min(self.span.reserved());
                self.span.make_usable(usable).map_err(|_| MallocError::NoMemory)?;
            }
            inner.pages.push(Page::EMPTY);
            inner.vacant.push(page);
        }
        let page = *inner.vacant.last().ok_or(MallocError::NoMemory)?;
        self.span.populate(page as usize * PAGE_SIZE, PAGE_SIZE).map_err(|_| MallocError::NoMemory)?;
        inner.vacant.pop();
        self.total.fetch_add(1, Relaxed);
        let tables = inner.pages.capacity() * size_of::<Page>() + inner.vacant.capacity() * size_of::<u32>();
        self.metadata.store(size_of::<Zbud>() + tables, Relaxed);
        Ok(page)
    }
}

/// Page and buddy of a handle.
fn split(handle: Handle) -> (u32, usize) {
    (handle.raw() / 2, (handle.raw() % 2) as usize)
}

impl Inner {
    fn list(&mut self, chain: Chain, fit: usize) -> &mut List {
        match chain {
            Chain::Fit => &mut self.unbuddied[fit],
            Chain::Age => &mut self.age,
        }
    }

    /// Puts `page` at the head of a list; `fit` says which, on the chain of fit.
    fn link(&mut self, chain: Chain, fit: usize, page: u32) {
        let head = std::mem::replace(&mut self.list(chain, fit).head, page);
        *self.pages[page as usize].links(chain) = Links { prev: NONE, next: head };
        if head == NONE {
            self.list(chain, fit).tail = page;
        } else {
            self.pages[head as usize].links(chain).prev = page;
        }
    }

    fn unlink(&mut self, chain: Chain, fit: usize, page: u32) {
        let Links { prev, next } = std::mem::replace(self.pages[page as usize].links(chain), Links::NONE);
        if prev == NONE {
            self.list(chain, fit).head = next;
        } else {
            self.pages[prev as usize].links(chain).next = next;
        }
        if next == NONE {
            self.list(chain, fit).tail = prev;
        } else {
            self.pages[next as usize].links(chain).prev = prev;
        }
    }

    /// Whether a page has exactly one object, and so is on a list of fit.
    fn is_unbuddied(&self, page: u32) -> bool {
        let chunks = self.pages[page as usize].chunks;
        (chunks[0] == 0) != (chunks[1] == 0)
    }
}

impl Zpool for Zbud {
    fn driver(&self) -> &'static str {
        "zbud"
    }

    fn max_object(&self) -> usize {
        MAX_OBJECT
    }

    fn malloc(&self, size: usize) -> Result<Handle, MallocError> {
        if size == 0 {
            return Err(MallocError::ZeroSize);
        }
        if size > MAX_OBJECT {
            return Err(MallocError::TooBig { max: MAX_OBJECT });
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 62 chunks, by the check above")]
        let need = size.div_ceil(CHUNK) as u8;
        let mut inner = self.inner.lock();
        let fitting = (usize::from(need)..CHUNKS).find(|&fit| inner.unbuddied[fit].head != NONE);
        let page = match fitting {
            Some(fit) => {
                let page = inner.unbuddied[fit].head;
                inner.unlink(Chain::Fit, fit, page);
                inner.unlink(Chain::Age, 0, page);
                page
            }
            None => self.take_page(&mut inner)?,
        };
        let buddy = u32::from(inner.pages[page as usize].chunks[0] != 0);
        inner.pages[page as usize].chunks[buddy as usize] = need;
        if inner.is_unbuddied(page) {
            let fit = inner.pages[page as usize].free_chunks();
            inner.link(Chain::Fit, fit, page);
        }
        inner.link(Chain::Age, 0, page);
        inner.objects += 1;
        Handle::from_raw(page * 2 + buddy).ok_or(MallocError::NoMemory)
    }

    fn free(&self, handle: Handle) -> Result<(), BadHandle> {
        let (page, buddy) = split(handle);
        let mut inner = self.inner.lock();
        Zbud::find(&inner, handle).ok_or(BadHandle(handle))?;
        if inner.is_unbuddied(page) {
            let fit = inner.pages[page as usize].free_chunks();
            inner.unlink(Chain::Fit, fit, page);
        }
        inner.pages[page as usize].chunks[buddy] = 0;
        inner.objects -= 1;
        if inner.pages[page as usize].is_empty() {
            inner.unlink(Chain::Age, 0, page);
            self.span.release(page as usize * PAGE_SIZE, PAGE_SIZE);
            self.total.fetch_sub(1, Relaxed);
            inner.vacant.push(page);
        } else {
            let fit = inner.pages[page as usize].free_chunks();
            inner.link(Chain::Fit, fit, page);
        }
        Ok(())
    }

    fn obj_read(&self, handle: Handle, read: &mut dyn FnMut(&[u8])) -> Result<(), BadHandle> {
        let inner = self.inner.lock();
        let (offset, len) = Zbud::find(&inner, handle).ok_or(BadHandle(handle))?;
        // SAFETY: the slot is a live object's, and the lock is held until `read` returns, so nobody writes to it or frees it.
        read(unsafe { self.span.bytes(offset, len) });
        Ok(())
    }

    fn obj_write(&self, handle: Handle, bytes: &[u8]) -> Result<(), BadHandle> {
        let inner = self.inner.lock();
        let (offset, len) = Zbud::find(&inner, handle).ok_or(BadHandle(handle))?;
        // SAFETY: the slot is a live object's, and the lock is held, so nobody reads it or frees it.
        let slot = unsafe { self.span.bytes_mut(offset, len) };
        slot.get_mut(..bytes.len()).ok_or(BadHandle(handle))?.copy_from_slice(bytes);
        Ok(())
    }

    fn total_pages(&self) -> usize {
        self.total.load(Relaxed)
    }

    fn metadata_bytes(&self) -> usize {
        self.metadata.load(Relaxed)
    }

    /// Objects do not move: there is nothing to compact.
    fn compact(&self) -> usize {
        0
    }

    fn oldest_page(&self) -> Option<Vec<Handle>> {
        let inner = self.inner.lock();
        let page = inner.age.tail;
        let chunks = inner.pages.get(page as usize)?.chunks;
        let live = |buddy: &u32| chunks[*buddy as usize] > 0;
        Some([0, 1].into_iter().filter(live).filter_map(|buddy| Handle::from_raw(page * 2 + buddy)).collect())
    }

    fn rotate_page(&self, handle: Handle) {
        let (page, _) = split(handle);
        let mut inner = self.inner.lock();
        if inner.pages.get(page as usize).is_some_and(|page| !page.is_empty()) {
            inner.unlink(Chain::Age, 0, page);
            inner.link(Chain::Age, 0, page);
        }
    }

    /// One row: the class of all pages, with a slot for each of the two buddies.
    fn class_stats(&self) -> Vec<ClassStats> {
        let inner = self.inner.lock();
        let pages = self.total_pages();
        let mut fullness = [0; 12];
        for page in inner.pages.iter().filter(|page| !page.is_empty()) {
            let used = CHUNKS - page.free_chunks();
            fullness[if used == CHUNKS { 11 } else { 1 + used * 10 / CHUNKS }] += 1;
        }
        vec![ClassStats {
            class: 0,
            size: MAX_OBJECT,
            fullness,
            obj_allocated: 2 * pages,
            obj_used: inner.objects,
            pages_used: pages,
            pages_per_zspage: 1,
            freeable: 0,
        }]
    }
}
