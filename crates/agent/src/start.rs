//! Coming into the program: the constructor, and the child's side of a fork.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use linux_raw_sys::general as nr;

use crate::hands;
use crate::protocol::{BATCH, PAGE_SIZE, PASSWORD, SOCKET_VARIABLE};
use crate::{rights, sys};

/// Where the supervisor is, and what it wants to hear.
#[derive(Clone, Copy)]
pub(crate) struct Supervisor {
    pub(crate) address: Address,
    pub(crate) password: [u8; PASSWORD],
}

/// A `sockaddr_un`, and how much of it counts.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Address {
    family: u16,
    path: [u8; 108],
    pub(crate) len: usize,
}

/// Where everything of this process's agent is. It lies in memory of the agent's own, in front of the thread's stack.
#[repr(C)]
pub(crate) struct Place {
    pub(crate) supervisor: Supervisor,
    pub(crate) probe: usize,
    pub(crate) staging: usize,
    /// Begin and end of the agent's own memory.
    pub(crate) own: (usize, usize),
    pub(crate) forked: bool,
    /// There was a thread before.
    pub(crate) is_back: bool,
    /// The thread has rights to give up.
    pub(crate) has_rights: bool,
    /// Not 0 until it has done that, or ended; where it has none, until it has ended.
    pub(crate) is_starting: AtomicU32,
}

/// Pages of the thread's stack; its largest frame holds a command and a reply.
const STACK_PAGES: usize = 8;
/// Place, and pages that fault when the stack overflows or the staging area is overrun.
const GUARD_PAGES: usize = 1;

/// The current [`Place`], for the child's side of a fork; 0 before there is one.
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// What glibc and musl pass to a constructor.
type Constructor = extern "C" fn(i32, *const *const u8, *const *const u8);

/// Runs before the program's own constructors.
#[cfg_attr(feature = "preload", unsafe(link_section = ".init_array"))]
#[used]
static CONSTRUCTOR: Constructor = construct;

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> i32;
}

extern "C" fn construct(_: i32, _: *const *const u8, environment: *const *const u8) {
    // SAFETY: the environment as the C library passes it: pointers to strings, ended by null.
    let Some(supervisor) = (unsafe { supervisor_in(environment) }) else { return };
    if start(supervisor, None).is_ok() {
        // SAFETY: an ordinary call of libc before the program has threads.
        unsafe { pthread_atfork(None, None, Some(after_fork)) };
    }
}

/// In a child that a fork made there is no agent thread yet, and what the parent's agent had mapped did not come along.
extern "C" fn after_fork() {
    let parent = CURRENT.load(Ordering::Relaxed);
    if parent == 0 {
        return;
    }
    // SAFETY: the place is in a private page that a fork copies; it is written only before it gets current.
    let (supervisor, probe, has_rights) = unsafe {
        let place = &*(parent as *const Place);
        (place.supervisor, place.probe, place.has_rights)
    };
    let _ = start(supervisor, Some(Inherited { base: parent, probe, has_rights }));
}

/// What a forked child has from its parent: the page with the parent's place, behind which the parent had the rest, and the probe.
struct Inherited {
    base: usize,
    probe: usize,
    has_rights: bool,
}

/// Maps what the thread needs and starts it; where it has rights, waits until it has none.
fn start(supervisor: Supervisor, inherited: Option<Inherited>) -> Result<(), u32> {
    let parts = [1, GUARD_PAGES, STACK_PAGES, GUARD_PAGES, BATCH, GUARD_PAGES];
    let pages: usize = parts.iter().sum();
    // Where the parent's is, which did not come along. The kernel would choose the first hole, and that may be one that the program made,
    // and knows that it may map something there.
    let again = inherited
        .as_ref()
        .map(|parent| parent.base)
        .filter(|base| sys::map_at(base + PAGE_SIZE, (pages - 1) * PAGE_SIZE).is_ok());
    let base = again.map_or_else(|| sys::map(pages * PAGE_SIZE), Ok)?;
    let at = |part: usize| base + parts.iter().take(part).sum::<usize>() * PAGE_SIZE;
    for guard in [1, 3, 5] {
        sys::plain(nr::__NR_mprotect, [at(guard), GUARD_PAGES * PAGE_SIZE, 0])?;
    }
    // No huge page may straddle what is moved page by page.
    sys::madvise(base, pages * PAGE_SIZE, nr::MADV_NOHUGEPAGE).or_else(ignore)?;
    // A child has agent memory of its own. The place stays: the child's side of the fork reads it.
    sys::madvise(at(1), (pages - 1) * PAGE_SIZE, nr::MADV_DONTFORK)?;
    // A child has no more than its parent had.
    let may_have_rights = inherited.as_ref().is_none_or(|parent| parent.has_rights);
    let probe = match inherited {
        Some(parent) => parent.probe,
        None => {
            let page = sys::map(PAGE_SIZE)?;
            // The number that the supervisor puts there is for one process.
            sys::madvise(page, PAGE_SIZE, nr::MADV_WIPEONFORK)?;
            page
        }
    };
    let place = base as *mut Place;
    let new = Place {
        supervisor,
        probe,
        staging: at(4),
        own: (base, base + pages * PAGE_SIZE),
        forked: CURRENT.load(Ordering::Relaxed) != 0,
        is_back: false,
        has_rights: may_have_rights && rights::are_any(),
        is_starting: AtomicU32::new(1),
    };
    // SAFETY: the first page was mapped above or is the parent's copied, which nobody reads any more; it is page-aligned, larger
    // than a Place, and nobody else's.
    let place = unsafe {
        place.write(new);
        &*place
    };
    CURRENT.store(base, Ordering::Relaxed);
    begin(place)
}

/// Starts the thread of a place, and waits until it has given up its rights.
fn begin(place: &'static Place) -> Result<(), u32> {
    let base = core::ptr::from_ref(place) as usize;
    let stack_end = base + (1 + GUARD_PAGES + STACK_PAGES) * PAGE_SIZE;
    // SAFETY: the stack was mapped behind the place for this thread alone, which is the only one there is; the thread calls the kernel only.
    unsafe { sys::start_thread(stack_end, hands::run, base, &place.is_starting) }?;
    while place.has_rights && place.is_starting.load(Ordering::Acquire) != 0 {
        sys::wait_while(&place.is_starting, 1);
    }
    Ok(())
}

/// Where everything of this process's agent is.
pub(crate) fn current() -> Option<&'static Place> {
    let base = CURRENT.load(Ordering::Relaxed);
    // SAFETY: a place that is current is initialised, and stays mapped; it is written only where nobody uses it (begin_again).
    (base != 0).then(|| unsafe { &*(base as *const Place) })
}

/// Starts the thread of a place once more, after it has ended.
pub(crate) fn begin_again() -> Result<(), u32> {
    let base = CURRENT.load(Ordering::Relaxed) as *mut Place;
    if base.is_null() {
        return Ok(());
    }
    // SAFETY: the place that is current, as in start(); its thread has ended, and no other uses it.
    let place = unsafe {
        let (has_rights, is_starting) = (rights::are_any(), AtomicU32::new(1));
        base.write(Place { has_rights, is_back: true, is_starting, ..base.read() });
        &*base
    };
    begin(place)
}

fn ignore(_: u32) -> Result<usize, u32> {
    // A kernel without huge pages knows no advice about them.
    Ok(0)
}

/// Who the supervisor is, if the environment says so and it can be one.
///
/// # Safety
/// `environment` is null or a null-ended array of pointers to C strings.
unsafe fn supervisor_in(environment: *const *const u8) -> Option<Supervisor> {
    let mut entry = environment;
    if entry.is_null() {
        return None;
    }
    loop {
        // SAFETY: not past the null that ends the array (caller, and the check below).
        let text = unsafe { *entry };
        if text.is_null() {
            return None;
        }
        // SAFETY: text is a C string (caller), and value_of gives the rest of it.
        if let Some(value) = unsafe { value_of(text) } {
            // SAFETY: as above.
            return unsafe { parse(value) };
        }
        // SAFETY: the null was not reached yet.
        entry = unsafe { entry.add(1) };
    }
}

/// Reads `PASSWORD:PATH`.
///
/// # Safety
/// `text` is a C string.
unsafe fn parse(text: *const u8) -> Option<Supervisor> {
    let mut address = Address { family: linux_raw_sys::net::AF_UNIX as u16, path: [0; 108], len: 0 };
    let mut password = [0; PASSWORD];
    let mut at = 0;
    loop {
        // SAFETY: within the C string, whose end is the zero checked here.
        let byte = unsafe { *text.add(at) };
        if byte == 0 {
            break;
        }
        match at.checked_sub(PASSWORD) {
            None => *password.get_mut(at)? = byte,
            Some(0) if byte == b':' => {}
            Some(0) => return None,
            // The last byte stays zero.
            Some(behind) => *address.path.get_mut(behind - 1).filter(|_| behind <= 107)? = byte,
        }
        at += 1;
    }
    let len = at.checked_sub(PASSWORD + 1).filter(|len| *len > 0)?;
    address.len = 2 + len + 1;
    Some(Supervisor { address, password })
}

/// What follows `UZSWAP_AGENT=` if that is how `text` begins.
///
/// # Safety
/// `text` is a C string.
unsafe fn value_of(text: *const u8) -> Option<*const u8> {
    let mut at = 0;
    for byte in SOCKET_VARIABLE.bytes().chain([b'=']) {
        // SAFETY: every byte before this one matched and was not zero, so this one is in the string.
        if unsafe { *text.add(at) } != byte {
            return None;
        }
        at += 1;
    }
    // SAFETY: as above.
    Some(unsafe { text.add(at) })
}
