//! A program that does with its memory what makes paging hard, and checks every byte of it. It knows nothing of who pages it.
//!
//! `hazards NAME [random]`, with words that cannot be compressed where it says so, ends with 0 and prints `NAME right`, or says what was wrong and aborts. Each case makes more memory than the
//! cap it is run under and goes over it again and again, so that what it is about is out when it happens.

use std::collections::VecDeque;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tests::need;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / 8;

/// Private anonymous memory of its own.
struct Memory {
    base: NonNull<u64>,
    pages: usize,
}

// SAFETY: plain memory; the cases that share it between threads share it by ranges that do not overlap.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

fn map(pages: usize, protection: i32, flags: i32) -> NonNull<u64> {
    // SAFETY: new memory at an address of the kernel's choosing.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
    assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    NonNull::new(base.cast()).expect("not null")
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Memory {
    fn new(mib: usize) -> Memory {
        let pages = (mib << 20) / PAGE;
        Memory { base: map(pages, READ_WRITE, PRIVATE), pages }
    }

    fn page(&self, page: usize) -> *mut u64 {
        assert!(page < self.pages);
        // SAFETY: within the mapping, checked above.
        unsafe { self.base.as_ptr().add(page * WORDS) }
    }

    fn address(&self, page: usize) -> *mut libc::c_void {
        self.page(page).cast()
    }

    /// Words that depend on the page and `version`: some of them all alike, so that pages compress.
    fn fill(&self, page: usize, version: u64) {
        for word in 0..WORDS {
            // SAFETY: within the page.
            unsafe { self.page(page).add(word).write_volatile(value(page, word, version)) };
        }
    }

    fn fill_all(&self, version: u64) {
        (0..self.pages).for_each(|page| self.fill(page, version));
    }

    fn check(&self, page: usize, version: u64) {
        for word in 0..WORDS {
            // SAFETY: within the page.
            let seen = unsafe { self.page(page).add(word).read_volatile() };
            let expected = value(page, word, version);
            if seen != expected {
                eprintln!("page {page} word {word}: {seen:#x} and not {expected:#x}");
                std::process::abort();
            }
        }
    }

    fn check_all(&self, version: u64) {
        (0..self.pages).for_each(|page| self.check(page, version));
    }

    fn check_zero(&self, page: usize) {
        for word in 0..WORDS {
            // SAFETY: within the page.
            let seen = unsafe { self.page(page).add(word).read_volatile() };
            if seen != 0 {
                eprintln!("page {page} word {word}: {seen:#x} and not zero");
                std::process::abort();
            }
        }
    }

    /// Moves it to another place, which is given up for it.
    fn move_to(&self, place: &Memory) {
        let (flags, len) = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, self.pages * PAGE);
        // SAFETY: memory and place are the callers' own, who use the old address no more.
        let moved = unsafe { libc::mremap(self.address(0), len, len, flags, place.address(0)) };
        assert_eq!(moved, place.address(0), "{}", std::io::Error::last_os_error());
    }

    #[expect(clippy::mut_from_ref, reason = "it is the mapping that is lent, not the value that names it")]
    fn bytes(&self, page: usize, len: usize) -> &mut [u8] {
        assert!(page * PAGE + len <= self.pages * PAGE);
        // SAFETY: within the mapping; each case uses a range by one name at a time.
        unsafe { std::slice::from_raw_parts_mut(self.page(page).cast(), len) }
    }
}

fn value(page: usize, word: usize, version: u64) -> u64 {
    static IS_RANDOM: LazyLock<bool> =
        LazyLock::new(|| std::env::args().nth(2).is_some_and(|word| word == "random"));
    if version == 0 {
        0
    } else if *IS_RANDOM {
        let mixed = ((page * WORDS + word) as u64 ^ version << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
    } else if word.is_multiple_of(16) {
        (page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version << 20 ^ word as u64
    } else {
        version
    }
}

/// Memory that pushes everything else out when it is swept.
struct Ballast(Memory);

impl Ballast {
    fn new() -> Ballast {
        let ballast = Ballast(Memory::new(96));
        ballast.0.fill_all(3);
        ballast
    }

    fn sweep(&self) {
        self.0.check_all(3);
    }
}

fn ok(result: libc::c_int, what: &str) {
    assert_eq!(result, 0, "{what}: {}", std::io::Error::last_os_error());
}

fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits") % below
}

/// Threads that read, write, give up, unmap and protect pages of their own part.
fn churn() {
    let memory = Memory::new(64);
    memory.fill_all(1);
    std::thread::scope(|scope| {
        for part in 0..3 {
            let memory = &memory;
            scope.spawn(move || {
                let (first, count) = (part * memory.pages / 3, memory.pages / 3);
                let mut versions = vec![1u64; count];
                let mut state = part as u64 + 1;
                for step in 0..25_000u64 {
                    let at = random(&mut state, count);
                    let page = first + at;
                    memory.check(page, versions[at]);
                    match random(&mut state, 64) {
                        0..24 => {
                            versions[at] = step + 2;
                            memory.fill(page, versions[at]);
                        }
                        24..27 => {
                            // SAFETY: a page of this thread's part.
                            ok(
                                unsafe { libc::madvise(memory.address(page), PAGE, libc::MADV_DONTNEED) },
                                "madvise",
                            );
                            versions[at] = 0;
                        }
                        27 => {
                            // SAFETY: a page of this thread's part; mapped again before anybody touches it.
                            unsafe {
                                ok(libc::munmap(memory.address(page), PAGE), "munmap");
                                let again = libc::mmap(
                                    memory.address(page),
                                    PAGE,
                                    READ_WRITE,
                                    PRIVATE | libc::MAP_FIXED_NOREPLACE,
                                    -1,
                                    0,
                                );
                                assert_eq!(
                                    again,
                                    memory.address(page),
                                    "{}",
                                    std::io::Error::last_os_error()
                                );
                            }
                            versions[at] = 0;
                        }
                        28 => {
                            // SAFETY: a page of this thread's part.
                            unsafe {
                                ok(libc::mprotect(memory.address(page), PAGE, libc::PROT_NONE), "mprotect");
                                ok(libc::mprotect(memory.address(page), PAGE, READ_WRITE), "mprotect");
                            }
                        }
                        _ => {}
                    }
                }
                for (at, version) in versions.iter().enumerate() {
                    memory.check(first + at, *version);
                }
            });
        }
    });
}

/// Processes of a crowd, and what each of them has.
const CROWD: usize = 8;
const OF_EACH: usize = 24;

/// More processes than CPUs, each with memory that it reads, writes, gives up, moves and forks at random, under a thousand signals a second, while they are
/// stopped, continued and killed.
fn crowd() {
    let begin = |number: usize, steps: u64| {
        // SAFETY: one thread of ours; the child does what it could do without a fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            one_of_a_crowd(number, steps);
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        child
    };
    // SAFETY: a signal to a child that has not been waited for.
    let tell = |child: i32, signal: i32| ok(unsafe { libc::kill(child, signal) }, "kill");
    let mut children: Vec<i32> = (0..CROWD).map(|number| begin(number, 20_000)).collect();
    let mut state = 7;
    while !children.is_empty() {
        let stopped = children[random(&mut state, children.len())];
        tell(stopped, libc::SIGSTOP);
        let lost = begin(children.len(), u64::MAX);
        std::thread::sleep(Duration::from_millis(60));
        tell(lost, libc::SIGKILL);
        assert_eq!(wait_for(lost), libc::SIGKILL, "it was at work");
        tell(stopped, libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(40));
        children.retain(|child| {
            let mut status = 0;
            // SAFETY: writes a status.
            let is_over = unsafe { libc::waitpid(*child, &raw mut status, libc::WNOHANG) } == *child;
            assert_eq!(status, 0, "child {child}");
            !is_over
        });
    }
}

fn one_of_a_crowd(number: usize, steps: u64) {
    // SAFETY: the handler lives as long as the process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        ok(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), "sigaction");
        let each = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: each, it_value: each };
        ok(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), "setitimer");
    }
    let mut parts: Vec<(Memory, Vec<u64>)> = (0..OF_EACH)
        .map(|_| {
            let memory = Memory::new(1);
            let versions = vec![1; memory.pages];
            memory.fill_all(1);
            (memory, versions)
        })
        .collect();
    let mut state = number as u64;
    for step in (2..).take_while(|step| *step < steps) {
        let part = random(&mut state, parts.len());
        let (memory, versions) = &mut parts[part];
        let page = random(&mut state, memory.pages);
        memory.check(page, versions[page]);
        match random(&mut state, 2000) {
            0..700 => {
                versions[page] = step;
                memory.fill(page, step);
            }
            700..740 => {
                let pages = 1 + random(&mut state, (memory.pages - page).min(PART));
                // SAFETY: pages of this process.
                ok(
                    unsafe { libc::madvise(memory.address(page), pages * PAGE, libc::MADV_DONTNEED) },
                    "madvise",
                );
                versions[page..page + pages].fill(0);
            }
            740..750 => {
                let place = map(memory.pages, libc::PROT_NONE, PRIVATE);
                // SAFETY: the old addresses are used no more; the place was made for it.
                let base = unsafe {
                    let (len, flags) = (memory.pages * PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
                    libc::mremap(memory.address(0), len, len, flags, place.as_ptr())
                };
                assert_ne!(base, libc::MAP_FAILED, "move: {}", std::io::Error::last_os_error());
                memory.base = place;
            }
            750..752 => {
                // SAFETY: one thread of ours; the child does nothing that is not safe after a fork.
                let child = unsafe { libc::fork() };
                assert!(child >= 0);
                if child == 0 {
                    versions.iter().enumerate().for_each(|(page, version)| memory.check(page, *version));
                    // SAFETY: the end of the child.
                    unsafe { libc::_exit(0) };
                }
                assert_eq!(wait_for(child), 0, "the child");
            }
            _ => {}
        }
    }
    for (memory, versions) in &parts {
        versions.iter().enumerate().for_each(|(page, version)| memory.check(page, *version));
    }
    assert!(HANDLED.load(SeqCst) > 20, "{} signals", HANDLED.load(SeqCst));
}

/// Pages that are changed, given up and moved as one.
const PART: usize = 32;

/// Threads that go through memory in long runs.
fn runs() {
    go_through(|step| step, |at| at);
}

/// Threads that go through memory backwards, and by leaps.
fn blocks() {
    go_through(|step| usize::MAX / 2 - step, |at| (PART - 1 - at) * 5 % PART);
}

/// Threads that go through memory so that much is brought in at once, while others of them write, give up and move what lies next to it:
/// the part that is next after so many steps, and the page in it.
fn go_through(part_at: impl Fn(usize) -> usize + Sync, page_at: impl Fn(usize) -> usize + Sync) {
    let memory = Memory::new(96);
    memory.fill_all(1);
    let versions: Vec<_> = (0..memory.pages / PART).map(|_| Mutex::new(1u64)).collect();
    std::thread::scope(|scope| {
        for number in 1..4u64 {
            let (memory, versions, part_at, page_at) = (&memory, &versions, &part_at, &page_at);
            scope.spawn(move || {
                let mut state = number;
                let first = random(&mut state, versions.len());
                for step in 0..3 * versions.len() {
                    let part = (part_at(step) + first) % versions.len();
                    let mut version = versions[part].lock().expect("nobody panics");
                    let pages = part * PART..(part + 1) * PART;
                    (0..PART).for_each(|at| memory.check(pages.start + page_at(at), *version));
                    match random(&mut state, 32) {
                        0..4 => {
                            *version = (step as u64) << 2 | number;
                            pages.for_each(|page| memory.fill(page, *version));
                        }
                        4..6 => {
                            // SAFETY: the part's lock is held.
                            ok(
                                unsafe {
                                    libc::madvise(
                                        memory.address(pages.start),
                                        PART * PAGE,
                                        libc::MADV_DONTNEED,
                                    )
                                },
                                "madvise",
                            );
                            *version = 0;
                        }
                        6 => {
                            let place = map(PART, libc::PROT_NONE, PRIVATE).as_ptr().cast();
                            let here = memory.address(pages.start);
                            // There and back; the place left meanwhile stays mapped, so that nobody else is given it.
                            for (from, to) in [(here, place), (place, here)] {
                                let flags =
                                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
                                // SAFETY: the part's lock is held, and the other place is ours.
                                let moved =
                                    unsafe { libc::mremap(from, PART * PAGE, PART * PAGE, flags, to) };
                                assert_eq!(moved, to, "{}", std::io::Error::last_os_error());
                            }
                            // SAFETY: made above.
                            ok(unsafe { libc::munmap(place, PART * PAGE) }, "munmap");
                        }
                        _ => {}
                    }
                }
            });
        }
    });
}

/// System calls that read and write buffers that are out.
fn calls() {
    let ballast = Ballast::new();
    let memory = Memory::new(4);
    let mut file = tempfile::tempfile().expect("a file");
    for round in 1..6u64 {
        memory.fill_all(round);
        ballast.sweep();
        // write from, and read into, memory that is out.
        file.rewind().expect("seek");
        file.write_all(memory.bytes(0, 4 << 20)).expect("write");
        memory.fill_all(100);
        ballast.sweep();
        file.rewind().expect("seek");
        file.read_exact(memory.bytes(0, 4 << 20)).expect("read");
        memory.check_all(round);
        // A pipe, by vectors of many pieces.
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written.
        ok(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe");
        ballast.sweep();
        let piece = |page: usize| libc::iovec { iov_base: memory.address(page), iov_len: 512 };
        let pieces: Vec<_> = (0..16).map(|at| piece(at * 3)).collect();
        // SAFETY: the vectors name memory of ours.
        let sent = unsafe { libc::writev(ends[1], pieces.as_ptr(), 16) };
        assert_eq!(sent, 16 * 512);
        ballast.sweep();
        let pieces: Vec<_> = (0..16).map(|at| piece(500 + at * 3)).collect();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::readv(ends[0], pieces.as_ptr(), 16) }, 16 * 512);
        for at in 0..16 {
            assert_eq!(memory.bytes(at * 3, 512), memory.bytes(500 + at * 3, 512));
        }
        // SAFETY: both are ours.
        unsafe {
            libc::close(ends[0]);
            libc::close(ends[1]);
        }
        // Messages over a socket.
        let (mut one, mut other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        ballast.sweep();
        one.write_all(memory.bytes(7, PAGE)).expect("send");
        other.read_exact(memory.bytes(900, PAGE)).expect("receive");
        assert_eq!(memory.bytes(7, PAGE), memory.bytes(900, PAGE));
    }
    // A futex in a page that is out.
    let word = Memory::new(1);
    // SAFETY: the word lives as long as the case.
    let word = unsafe { AtomicU32::from_ptr(word.page(3).cast()) };
    ballast.sweep();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while word.load(SeqCst) == 0 {
                // SAFETY: a wait on a word of ours.
                unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, 0, 0, 0) };
            }
        });
        ballast.sweep();
        word.store(1, SeqCst);
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
    });
}

/// Direct reads land in pages while everything around them is on its way out.
fn direct() {
    let path = std::env::temp_dir().join(format!("hazards-{}", std::process::id()));
    let source = Memory::new(8);
    source.fill_all(5);
    std::fs::write(&path, source.bytes(0, 8 << 20)).expect("a file");
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(&path);
    let file = file.or_else(|error| {
        need::skip("direct", &format!("reads of {} are not direct: {error}", path.display()));
        std::fs::File::open(&path)
    });
    let file = file.expect("it opens");
    let _ = std::fs::remove_file(&path);
    let ballast = Ballast::new();
    let target = Memory::new(8);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(SeqCst) == 0 {
                ballast.sweep();
            }
        });
        for round in 0..30 {
            target.fill_all(100 + round);
            for first in (0..target.pages).step_by(64) {
                use std::os::unix::fs::FileExt;
                file.read_exact_at(target.bytes(first, 64 * PAGE), (first * PAGE) as u64).expect("read");
            }
            for page in 0..target.pages {
                assert!(target.bytes(page, PAGE) == source.bytes(page, PAGE), "page {page}");
            }
        }
        done.store(1, SeqCst);
    });
}

/// Content given up is gone, at once and for good.
fn given_up() {
    let ballast = Ballast::new();
    let memory = Memory::new(16);
    for round in 1..8 {
        memory.fill_all(round);
        ballast.sweep();
        // SAFETY: all of it is ours.
        ok(unsafe { libc::madvise(memory.address(0), 8 << 20, libc::MADV_DONTNEED) }, "madvise");
        for page in 0..memory.pages / 2 {
            memory.check_zero(page);
        }
        (memory.pages / 2..memory.pages).for_each(|page| memory.check(page, round));
        memory.fill_all(round + 50);
        // The kernel may drop these at any time, until they are written.
        // SAFETY: as above.
        ok(unsafe { libc::madvise(memory.address(0), 8 << 20, libc::MADV_FREE) }, "madvise");
        (0..memory.pages / 4).for_each(|page| memory.fill(page, round + 90));
        ballast.sweep();
        (0..memory.pages / 4).for_each(|page| memory.check(page, round + 90));
        for page in memory.pages / 4..memory.pages / 2 {
            // SAFETY: within the page.
            let first = unsafe { memory.page(page).read_volatile() };
            assert!(first == 0 || first == value(page, 0, round + 50), "neither old nor zero");
        }
    }
}

/// Moved, grown and shrunk memory takes its content with it.
fn moved() {
    let ballast = Ballast::new();
    let mut memory = Memory::new(8);
    memory.fill_all(1);
    for round in 1..20u64 {
        ballast.sweep();
        let (pages, grown) = (memory.pages, memory.pages + 300);
        // SAFETY: the old addresses are used no more.
        let base =
            unsafe { libc::mremap(memory.address(0), pages * PAGE, grown * PAGE, libc::MREMAP_MAYMOVE) };
        assert_ne!(base, libc::MAP_FAILED, "grow: {}", std::io::Error::last_os_error());
        memory = Memory { base: NonNull::new(base.cast()).expect("not null"), pages: grown };
        (0..pages).for_each(|page| memory.check(page, round));
        (pages..grown).for_each(|page| memory.check_zero(page));
        let place = map(grown, libc::PROT_NONE, PRIVATE);
        ballast.sweep();
        // SAFETY: as above; the place was made for it.
        let base = unsafe {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(memory.address(0), grown * PAGE, grown * PAGE, flags, place.as_ptr())
        };
        assert_ne!(base, libc::MAP_FAILED, "move: {}", std::io::Error::last_os_error());
        memory = Memory { base: place, pages: grown };
        (0..pages).for_each(|page| memory.check(page, round));
        // SAFETY: as above.
        let base = unsafe { libc::mremap(memory.address(0), grown * PAGE, pages * PAGE, 0) };
        assert_eq!(base.cast(), place.as_ptr(), "shrink");
        memory.pages = pages;
        memory.fill_all(round + 1);
    }
}

/// Locked memory stays in memory, shared memory is left alone.
fn kept() {
    let ballast = Ballast::new();
    let locked = Memory::new(1);
    locked.fill_all(9);
    // SAFETY: memory of ours.
    let could = unsafe { libc::mlock(locked.address(0), 1 << 20) } == 0;
    if !could {
        let why = std::io::Error::last_os_error();
        need::skip("kept", &format!("locked memory is not looked at, mlock: {why}"));
    }
    let shared = Memory { base: map(256, READ_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS), pages: 256 };
    shared.fill_all(8);
    // SAFETY: makes a descriptor.
    let fd = unsafe { libc::memfd_create(c"hazards".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: just made.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.set_len(1 << 20).expect("a size");
    // SAFETY: a new mapping of a file of that size.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), 1 << 20, READ_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(base, libc::MAP_FAILED);
    let memfd = Memory { base: NonNull::new(base.cast()).expect("not null"), pages: 256 };
    memfd.fill_all(7);
    for _ in 0..10 {
        ballast.sweep();
        if could {
            let mut there = [0u8; 256];
            // SAFETY: one byte a page of the range.
            ok(unsafe { libc::mincore(locked.address(0), 1 << 20, there.as_mut_ptr()) }, "mincore");
            assert!(there.iter().all(|page| page & 1 == 1), "a locked page is not in memory");
        }
        locked.check_all(9);
        shared.check_all(8);
        memfd.check_all(7);
    }
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: i32) {
    // On the alternate stack, whose pages are out.
    let local = [HANDLED.load(SeqCst); 512];
    HANDLED.store(std::hint::black_box(local)[511] + 1, SeqCst);
}

/// Signals are handled on a stack that is out.
fn signals() {
    let ballast = Ballast::new();
    let stack = Memory::new(1);
    let alternate = libc::stack_t { ss_sp: stack.address(0), ss_flags: 0, ss_size: 1 << 20 };
    // SAFETY: the stack and the handler live as long as the process.
    unsafe {
        ok(libc::sigaltstack(&raw const alternate, std::ptr::null_mut()), "sigaltstack");
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        ok(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), "sigaction");
    }
    for round in 1..30 {
        ballast.sweep();
        // SAFETY: a signal to ourselves, with a handler.
        ok(unsafe { libc::raise(libc::SIGUSR1) }, "raise");
        assert_eq!(HANDLED.load(SeqCst), round);
    }
}

/// Thousands of mappings, none next to another of its kind.
fn mappings() {
    let ballast = Ballast::new();
    let memories: Vec<Memory> = (0..4000)
        .map(|at| {
            let base = map(5, READ_WRITE, PRIVATE);
            // SAFETY: the last page of a mapping of ours: it keeps this mapping from joining the next.
            ok(
                unsafe { libc::mprotect(base.as_ptr().add(4 * WORDS).cast(), PAGE, libc::PROT_NONE) },
                "mprotect",
            );
            let memory = Memory { base, pages: 4 };
            memory.fill_all(at + 1);
            memory
        })
        .collect();
    for _ in 0..3 {
        ballast.sweep();
        for (at, memory) in (0..).zip(&memories) {
            memory.check_all(at + 1);
        }
    }
}

/// Far more is mapped than there is, and little of it touched.
fn sparse() {
    let pages = (8usize << 30) / PAGE;
    let memory = Memory { base: map(pages, READ_WRITE, PRIVATE | libc::MAP_NORESERVE), pages };
    let ballast = Ballast::new();
    let mut state = 3;
    let touched: Vec<usize> = (0..4000).map(|_| random(&mut state, pages)).collect();
    touched.iter().for_each(|page| memory.fill(*page, 6));
    for _ in 0..3 {
        ballast.sweep();
        touched.iter().for_each(|page| memory.check(*page, 6));
    }
    let mut state = 99;
    for _ in 0..1000 {
        let page = random(&mut state, pages);
        if !touched.contains(&page) {
            memory.check_zero(page);
        }
    }
}

fn wait_for(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: writes a status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

/// Children read what was out when they were forked, whatever either side writes afterwards, and are paged themselves.
fn forks() {
    let memory = Memory::new(64);
    memory.fill_all(1);
    for round in 1..4 {
        // SAFETY: one thread of ours; the child does nothing that is not safe after a fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // Its own copy, while the parent writes.
            memory.check_all(round);
            memory.fill_all(round + 100);
            memory.check_all(round + 100);
            // SAFETY: a grandchild, and the end of this one.
            unsafe {
                let grandchild = libc::fork();
                if grandchild == 0 {
                    memory.check_all(round + 100);
                    libc::_exit(0);
                }
                assert_eq!(wait_for(grandchild), 0, "the grandchild");
                libc::_exit(0);
            }
        }
        memory.fill_all(round + 1);
        memory.check_all(round + 1);
        assert_eq!(wait_for(child), 0, "the child");
        memory.check_all(round + 1);
    }
}

/// Many short children, by fork and by exec.
fn bomb() {
    let memory = Memory::new(64);
    memory.fill_all(1);
    for round in 0..200 {
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            memory.check(round % memory.pages, 1);
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(wait_for(child), 0);
        if round % 10 == 0 {
            let status = std::process::Command::new("/bin/true").status().expect("it starts");
            assert!(status.success());
            memory.check_all(1);
        }
    }
}

/// A daemon: the parent ends, the child lives on with what was out.
fn daemon() {
    let memory = Memory::new(64);
    memory.fill_all(4);
    let (mut done, mut tell) = std::io::pipe().expect("a pipe");
    // SAFETY: as in `forks`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(done);
        // SAFETY: the second fork of a daemon.
        if unsafe { libc::fork() } == 0 {
            std::thread::sleep(Duration::from_millis(200));
            memory.check_all(4);
            memory.fill_all(5);
            memory.check_all(5);
            tell.write_all(b"y").expect("tell");
        }
        // SAFETY: the end of the child.
        unsafe { libc::_exit(0) };
    }
    drop(tell);
    assert_eq!(wait_for(child), 0);
    // The parent's own copy is gone before the daemon has read its.
    memory.fill_all(6);
    let mut answer = [0];
    done.read_exact(&mut answer).expect("the daemon found every page right");
    memory.check_all(6);
}

/// Three processes that live on when the program has ended, and who paged it with that: with pages that are out, and with children
/// that they fork all the time, those of one moment still there in the next, and with memory that moves. All of them find what they had.
fn left() {
    const PROCESSES: usize = 3;
    let (mut at_work, tell) = std::io::pipe().expect("a pipe");
    // SAFETY: as in `forks`.
    if (0..PROCESSES).all(|_| unsafe { libc::fork() } > 0) {
        drop(tell);
        at_work.read_exact(&mut [0; PROCESSES]).expect("they are at work");
        std::process::exit(0);
    }
    drop(at_work);
    let memory = Memory::new(24);
    memory.fill_all(1);
    memory.check_all(1);
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| wander(&over));
        outlive(&memory, begun, tell);
        over.store(true, SeqCst);
        mover.join().expect("what wandered is right");
    });
}

/// Memory that is moved on and on, and looked at in the end.
fn wander(over: &AtomicBool) {
    const PLACES: usize = 5000;
    let first = Memory::new(4);
    first.fill_all(7);
    let pages = first.pages;
    let places = map(pages * PLACES, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE);
    let mut here = first.base;
    let mut place = 0;
    while !over.load(SeqCst) && place < PLACES {
        // SAFETY: within the places, of which each is used once; the old address is used no more.
        here = unsafe {
            let next = places.add(place * pages * WORDS);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let moved = libc::mremap(here.as_ptr().cast(), pages * PAGE, pages * PAGE, flags, next.as_ptr());
            assert_eq!(moved, next.as_ptr().cast(), "{}", std::io::Error::last_os_error());
            next
        };
        place += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    Memory { base: here, pages }.check_all(7);
}

/// Memory that moves to where other memory has just left, by another thread: what was there and what is there now must not be
/// taken for one another, in whatever order that is heard of.
fn chase() {
    let ballast = Ballast::new();
    let [mut first, mut second] = [1, 1].map(Memory::new);
    for round in 1..16 {
        first.fill_all(round);
        second.fill_all(round + 100);
        ballast.sweep();
        let place = |base| Memory { base, pages: first.pages };
        let (left, free) =
            (place(first.base), place(map(first.pages, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE)));
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let begun = Instant::now();
                // SAFETY: nothing is done to memory but to ask whether it is there.
                while unsafe { libc::mincore(left.address(0), PAGE, [0u8; 1].as_mut_ptr()) } == 0 {
                    assert!(begun.elapsed() < Duration::from_secs(10), "it does not move");
                }
                second.move_to(&left);
            });
            first.move_to(&free);
            follower.join().expect("it moves");
        });
        (first, second) = (free, left);
        first.check_all(round);
        second.check_all(round + 100);
    }
}

/// Threads whose memory grows and shrinks and moves to wherever there is room, which is where others' has just been.
fn jostle() {
    const THREADS: u64 = 8;
    const STEPS: u64 = 150;
    const MOST: usize = 64;
    let ballast = Ballast::new();
    let left = AtomicUsize::new(THREADS as usize);
    std::thread::scope(|scope| {
        for number in 1..=THREADS {
            let left = &left;
            scope.spawn(move || {
                let mut state = number;
                let mut memory = Memory { base: map(MOST, READ_WRITE, PRIVATE), pages: MOST };
                for step in 1..=STEPS {
                    let version = step << 4 | number;
                    memory.fill_all(version);
                    std::thread::sleep(Duration::from_millis(random(&mut state, 64) as u64));
                    for _ in 0..random(&mut state, 3) {
                        let pages = 1 + random(&mut state, MOST);
                        let (from, len) = (memory.address(0), memory.pages * PAGE);
                        // SAFETY: the memory is this thread's own.
                        let to = unsafe { libc::mremap(from, len, pages * PAGE, libc::MREMAP_MAYMOVE) };
                        assert_ne!(to, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
                        let kept = memory.pages.min(pages);
                        memory = Memory { base: NonNull::new(to.cast()).expect("not null"), pages };
                        (0..kept).for_each(|page| memory.check(page, version));
                        (kept..pages).for_each(|page| memory.check_zero(page));
                        memory.fill_all(version);
                    }
                    if random(&mut state, 4) == 0 {
                        let pages = 1 + random(&mut state, MOST);
                        // SAFETY: as above, and it is used no more.
                        ok(unsafe { libc::munmap(memory.address(0), memory.pages * PAGE) }, "munmap");
                        memory = Memory { base: map(pages, READ_WRITE, PRIVATE), pages };
                        (0..pages).for_each(|page| memory.check_zero(page));
                    }
                }
                left.fetch_sub(1, SeqCst);
            });
        }
        while left.load(SeqCst) > 0 {
            ballast.sweep();
        }
    });
}

/// The part of [`left`] that forks.
fn outlive(memory: &Memory, begun: Instant, mut tell: std::io::PipeWriter) {
    const CHILDREN: usize = 8;
    /// Every which page is another in each round. The rest stay as they are: what came back has to stay right too.
    const CHANGING: usize = 32;
    let mut told = false;
    let mut children = VecDeque::new();
    for round in 2.. {
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // Longer than it takes to bring back what its parents had out.
            std::thread::sleep(Duration::from_millis(400));
            for page in (0..memory.pages).step_by(CHANGING) {
                memory.check(page, round - 1);
                memory.check(page + 1, 1);
            }
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        children.push_back(child);
        (0..memory.pages).step_by(CHANGING).for_each(|page| memory.fill(page, round));
        if children.len() > CHILDREN {
            assert_eq!(wait_for(children.pop_front().expect("there are some")), 0, "a child");
        }
        // By then pages are out.
        if !told && round >= 4 && begun.elapsed() > Duration::from_secs(1) {
            tell.write_all(b"y").expect("tell");
            told = true;
        }
        if begun.elapsed() > Duration::from_secs(4) && round > 20 {
            for page in 0..memory.pages {
                memory.check(page, if page.is_multiple_of(CHANGING) { round } else { 1 });
            }
            break;
        }
    }
    children.into_iter().for_each(|child| assert_eq!(wait_for(child), 0, "a child"));
}

/// Goes over its memory until it is ended.
fn forever() {
    let memory = Memory::new(96);
    memory.fill_all(1);
    println!("filled");
    loop {
        memory.check_all(1);
    }
}

/// io_uring with fixed buffers: their pages are pinned for as long as they are registered, and the kernel reads into them
/// and writes from them without looking at the program's page tables.
fn fixed() {
    use io_uring::{IoUring, opcode, types};
    const PIECE: usize = 64;
    let mut file = tempfile::tempfile().expect("a file");
    let source = Memory::new(4);
    source.fill_all(9);
    file.write_all(source.bytes(0, 4 << 20)).expect("write");
    let target = Memory::new(4);
    target.fill_all(1);
    let ballast = Ballast::new();
    // What is out comes back to be pinned.
    ballast.sweep();
    let mut ring = IoUring::new(8).expect("a ring");
    let buffers: Vec<_> = (0..target.pages)
        .step_by(PIECE)
        .map(|page| libc::iovec { iov_base: target.address(page), iov_len: PIECE * PAGE })
        .collect();
    // SAFETY: the memory is unmapped only when the process ends, and used by one name at a time.
    unsafe { ring.submitter().register_buffers(&buffers) }.expect("the buffers are registered");
    target.check_all(1);
    let out = types::Fd(file.as_raw_fd());
    for round in 0..20u64 {
        for (number, buffer) in (0u16..).zip(&buffers) {
            let offset = u64::from(number) * (PIECE * PAGE) as u64;
            let (at, len) = (buffer.iov_base.cast::<u8>(), (PIECE * PAGE) as u32);
            let entry = if round % 2 == 0 {
                opcode::ReadFixed::new(out, at, len, number).offset(offset).build()
            } else {
                opcode::WriteFixed::new(out, at, len, number).offset(offset).build()
            };
            // SAFETY: the buffer is registered and lives on; the operation is waited for here.
            unsafe { ring.submission().push(&entry) }.expect("there is room");
            ballast.0.check(usize::from(number) * 7, 3);
            ring.submit_and_wait(1).expect("it is done");
            let done = ring.completion().next().expect("an answer").result();
            assert_eq!(done, (PIECE * PAGE) as i32);
        }
        if round % 2 == 0 {
            target.check_all(9 + round / 2);
            target.fill_all(10 + round / 2);
        }
        ballast.sweep();
    }
    target.check_all(19);
    ring.submitter().unregister_buffers().expect("they were registered");
    ballast.sweep();
    target.check_all(19);
}

/// Memory that is given up and taken again, far below the cap, after it was above it once.
fn again() {
    const ROUNDS: u64 = 60;
    let memory = Memory::new(96);
    memory.fill_all(1);
    memory.check_all(1);
    let give_up = |pages: usize| {
        // SAFETY: its content is needed no more.
        ok(unsafe { libc::madvise(memory.address(0), pages * PAGE, libc::MADV_DONTNEED) }, "give up");
    };
    give_up(memory.pages);
    for round in 0..ROUNDS {
        let pages = memory.pages * 2 / 5;
        // SAFETY: within the page.
        (0..pages).for_each(|page| unsafe { memory.page(page).write_volatile(round + 1) });
        for page in 0..pages {
            // SAFETY: within the page.
            let seen =
                unsafe { [memory.page(page).read_volatile(), memory.page(page).add(1).read_volatile()] };
            assert_eq!(seen, [round + 1, 0], "what was written, and what was given up");
        }
        give_up(pages);
    }
}

/// What a child is to find empty it finds empty, whatever was out when it was forked.
fn wiped() {
    let (kept, wiped) = (Memory::new(8), Memory::new(8));
    // SAFETY: memory of ours.
    ok(unsafe { libc::madvise(wiped.address(0), 8 << 20, libc::MADV_WIPEONFORK) }, "madvise");
    let ballast = Ballast::new();
    for round in 1..4 {
        kept.fill_all(round);
        wiped.fill_all(round + 10);
        ballast.sweep();
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            (0..wiped.pages).for_each(|page| wiped.check_zero(page));
            kept.check_all(round);
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(wait_for(child), 0, "the child");
        wiped.check_all(round + 10);
    }
}

/// Memory that nobody may write for a while, and then may again, leaves then as other memory does.
fn thawed() {
    let frozen = Memory::new(40);
    frozen.fill_all(8);
    let protect = |protection| {
        // SAFETY: memory of ours, which nobody writes meanwhile.
        ok(unsafe { libc::mprotect(frozen.address(0), frozen.pages * PAGE, protection) }, "mprotect");
    };
    // The pager knows it by then, and is about to have it out.
    let ballast = Memory::new(64);
    (0..ballast.pages / 2).for_each(|page| ballast.fill(page, 3));
    protect(libc::PROT_READ);
    ballast.fill_all(3);
    ballast.check_all(3);
    protect(READ_WRITE);
    let begun = Instant::now();
    loop {
        ballast.check_all(3);
        let mut there = vec![0u8; frozen.pages];
        // SAFETY: one byte a page of the range.
        ok(unsafe { libc::mincore(frozen.address(0), frozen.pages * PAGE, there.as_mut_ptr()) }, "mincore");
        let resident = there.iter().filter(|page| **page & 1 == 1).count();
        if resident < frozen.pages / 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{resident} of {} stay", frozen.pages);
        std::thread::sleep(Duration::from_millis(100));
    }
    frozen.check_all(8);
}

/// The first thread ends, and another goes on and takes memory.
fn headless() {
    std::thread::spawn(|| {
        let ballast = Ballast::new();
        ballast.sweep();
        println!("headless right");
        std::process::exit(0);
    });
    // SAFETY: ends this thread, which has nothing left to do; the standard library is told nothing of it, and asks nothing.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Has the kernel refuse all of its threads to send and receive messages, as programs do that restrict themselves.
fn sandboxed() {
    let memory = Memory::new(32);
    memory.fill_all(2);
    let ballast = Ballast::new();
    ballast.sweep();
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let (load, is, end) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let call = |number: libc::c_long| u32::try_from(number).expect("it is small");
    let mut steps = [
        // The number of the call, which comes first.
        step(load, 0, 0),
        step(is, call(libc::SYS_recvmsg), 2),
        step(is, call(libc::SYS_sendmsg), 1),
        step(end, libc::SECCOMP_RET_ALLOW, 0),
        step(end, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
    ];
    let filter = libc::sock_fprog { len: 5, filter: steps.as_mut_ptr() };
    // SAFETY: restricts this process; the filter lives until the call returns.
    unsafe {
        ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let set = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter);
        assert_eq!(set, 0, "seccomp: {}", std::io::Error::last_os_error());
    }
    for version in 3..6 {
        memory.check_all(version - 1);
        memory.fill_all(version);
        ballast.sweep();
    }
    memory.check_all(5);
}

/// A thread that ends without having touched the page in which the kernel is to say so.
fn joined() {
    static GO: AtomicU32 = AtomicU32::new(0);
    static READY: AtomicBool = AtomicBool::new(false);
    /// Where the head of the robust futexes is, and the thread's number before it, as the C library has them.
    const HEAD: usize = 1024;
    const NUMBER: usize = HEAD - 16;
    extern "C" fn body(head: *mut libc::c_void) -> libc::c_int {
        // SAFETY: system calls on what lives until the process ends; the last one does not return.
        unsafe {
            libc::syscall(libc::SYS_set_robust_list, head, 24);
            READY.store(true, SeqCst);
            while GO.load(SeqCst) == 0 {
                libc::syscall(libc::SYS_futex, GO.as_ptr(), libc::FUTEX_WAIT, 0, 0);
            }
            libc::syscall(libc::SYS_exit, 0)
        };
        0
    }
    let (stack, memory) = (Memory::new(1), Memory::new(32));
    memory.fill_all(2);
    let page = memory.address(100).cast::<u8>();
    // SAFETY: within the page, aligned; nobody else has it. An empty list names itself.
    let (head, number) = unsafe { (page.add(HEAD).cast::<[usize; 3]>(), page.add(NUMBER).cast::<u32>()) };
    // SAFETY: as above; the stack is the thread's alone, and all of it lives until the process ends.
    unsafe {
        head.write([head as usize, 0, 0]);
        number.write(1234);
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_CHILD_CLEARTID;
        let none = std::ptr::null_mut::<libc::c_void>();
        let thread = libc::clone(body, stack.address(200), flags, head.cast(), none, none, number);
        assert!(thread > 0, "clone: {}", std::io::Error::last_os_error());
    }
    while !READY.load(SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ballast = Ballast::new();
    for _ in 0..4 {
        ballast.sweep();
    }
    GO.store(1, SeqCst);
    // SAFETY: wakes whoever waits there.
    unsafe { libc::syscall(libc::SYS_futex, GO.as_ptr(), libc::FUTEX_WAKE, 1) };
    // To look sooner would bring the page back.
    std::thread::sleep(Duration::from_secs(1));
    // SAFETY: the thread has ended, and the page is ours.
    assert_eq!(unsafe { number.read_volatile() }, 0, "who joins this thread waits for ever");
}

/// Leaves two children behind that are stopped, and go on when somebody says so: one that was stopped at once, and one that had time
/// to get to know the supervisor.
fn halted() {
    let memory = Memory::new(16);
    memory.fill_all(2);
    let ballast = Ballast::new();
    let children = [0, 200].map(|milliseconds| {
        // In between and not afterwards: only then does anybody ask what the first one has to say.
        (0..5).for_each(|_| ballast.sweep());
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            std::thread::sleep(Duration::from_millis(milliseconds));
            // SAFETY: a signal to ourselves.
            unsafe { libc::raise(libc::SIGSTOP) };
            // What is told to it is told by then.
            std::thread::sleep(Duration::from_millis(500));
            memory.check_all(2);
            println!("child right");
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        child
    });
    for child in children {
        // SAFETY: waits for a child of ours, and asks for nothing else.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WUNTRACED) };
        println!("{child}");
    }
    // Not the end of a case.
    std::process::exit(0);
}

/// Has a child that does nothing, with its pages out.
fn parted() {
    let memory = Memory::new(96);
    memory.fill_all(2);
    memory.check_all(2);
    // SAFETY: as in `forks`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        std::thread::sleep(Duration::from_secs(120));
        memory.check_all(2);
        // SAFETY: the end of the child.
        unsafe { libc::_exit(0) };
    }
    println!("{child}");
    wait_for(child);
}

/// Says which signals are ignored.
fn ignored() {
    for signal in 1..32 {
        // SAFETY: asks for a signal's action; all zeros is a valid structure to be filled.
        let is_ignored = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        };
        // That one is the standard library's.
        if is_ignored && signal != libc::SIGPIPE {
            println!("{signal}");
        }
    }
}

/// Ends by a signal, with most of its memory out.
fn crash() {
    let ballast = Ballast::new();
    ballast.sweep();
    std::process::abort();
}

/// Says how many descriptors it has, for comparison with a run without anybody.
fn plain() {
    let names = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    println!("{names} descriptors");
}

/// Of `madvise`, since Linux 6.13; libc has no names for them yet.
const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// The kernel takes a process of one thread only into another user namespace, and the agent is one more.
fn apart() {
    let namespace = || std::fs::read_link("/proc/self/ns/user").expect("a namespace");
    // SAFETY: a call without pointers; what it changes is meant to change.
    let unshare = || match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error()),
    };
    let before = namespace();
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    // SAFETY: there is one thread; the child calls what is said here and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(ours);
        let told = match unshare() {
            Ok(()) => u8::from(namespace() == before),
            Err(Some(libc::EPERM | libc::ENOSPC)) => 2,
            Err(_) => 3,
        };
        theirs.write_all(&[told]).expect("it is told");
        // Until the parent has followed.
        let _ = theirs.read(&mut [0]);
        std::process::exit(0);
    }
    drop(theirs);
    let mut told = [9];
    ours.read_exact(&mut told).expect("the child tells");
    if told == [2] {
        println!("SKIP apart: no user namespaces may be made here (/proc/sys/user/max_user_namespaces)");
    } else {
        assert_eq!(told, [0], "0: the child is elsewhere, 1: where it was, 3: refused");
        let theirs = std::fs::File::open(format!("/proc/{child}/ns/user")).expect("the child's namespace");
        // As long as there is another thread of our own, it is refused.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = stopped.recv();
        });
        assert_eq!(unshare(), Err(Some(libc::EINVAL)));
        drop(stop);
        thread.join().expect("it ends");
        // SAFETY: a descriptor that is open.
        ok(unsafe { libc::setns(theirs.as_raw_fd(), libc::CLONE_NEWUSER) }, "setns");
        assert_ne!(namespace(), before);
    }
    drop(ours);
    wait_for(child);
    let memory = Memory::new(32);
    let ballast = Ballast::new();
    for round in 1..4 {
        memory.fill_all(round);
        ballast.sweep();
        // Pages are out: the agent stays, and with it the refusal.
        let in_vain = unshare();
        assert!(in_vain == Err(Some(libc::EINVAL)) || told == [2], "{in_vain:?}");
        memory.check_all(round);
    }
}

/// What lay where pages were made to be guards is gone when they are none any more.
fn guarded() {
    let memory = Memory::new(32);
    let ballast = Ballast::new();
    let half = memory.pages / 2;
    for round in 1..4 {
        memory.fill_all(round);
        ballast.sweep();
        // SAFETY: memory of ours.
        let installed = unsafe { libc::madvise(memory.address(half), half * PAGE, MADV_GUARD_INSTALL) };
        let refused = std::io::Error::last_os_error().raw_os_error();
        if installed != 0 && refused == Some(libc::EINVAL) {
            println!("SKIP guarded: this kernel is older than 6.13");
            return;
        }
        ok(installed, "MADV_GUARD_INSTALL");
        // SAFETY: as above.
        ok(
            unsafe { libc::madvise(memory.address(half), half * PAGE, MADV_GUARD_REMOVE) },
            "MADV_GUARD_REMOVE",
        );
        (half..memory.pages).for_each(|page| memory.check_zero(page));
        (0..half).for_each(|page| memory.check(page, round));
    }
    // SAFETY: no memory at all is at that address.
    let refused = unsafe { libc::madvise(std::ptr::without_provenance_mut(PAGE), PAGE, libc::MADV_DONTNEED) };
    assert_eq!((refused, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOMEM)));
}

/// The agent's thread has no rights, in a child as little, and nobody notices by what may be done with the process.
fn rights() {
    let memory = Memory::new(32);
    let ballast = Ballast::new();
    let look = |dumpable: libc::c_int| {
        let mut agents = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("threads") {
            let status = task.expect("a thread").path().join("status");
            let Ok(status) = std::fs::read_to_string(status) else { continue };
            let has = |line: &str| status.lines().any(|it| it.split_whitespace().eq(line.split_whitespace()));
            if has("Name: uzswap-agent") {
                agents += 1;
                let own = 0x9000_0000 + u64::from(std::process::id());
                let [user, group] = ["Uid", "Gid"].map(|name| format!("{name}: {own} {own} {own} {own}"));
                let given_up = [user.as_str(), &group, "Groups:"];
                assert!(given_up.into_iter().all(has), "{status}");
                let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"];
                assert!(sets.iter().all(|set| has(&format!("{set}: 0000000000000000"))), "{status}");
            }
        }
        assert_eq!(agents, 1);
        // SAFETY: asks.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, dumpable);
    };
    look(1);
    for dumpable in [1, 0] {
        // SAFETY: whether this process dumps core.
        ok(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable) }, "PR_SET_DUMPABLE");
        memory.fill_all(7);
        ballast.sweep();
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            look(dumpable);
            memory.check_all(7);
            // For a while another user, as which a child begins.
            // SAFETY: this process's rights.
            ok(unsafe { libc::seteuid(12345) }, "seteuid");
            // SAFETY: as in `forks`.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                // SAFETY: this process's rights; its threads are readable again.
                unsafe {
                    ok(libc::seteuid(0), "seteuid");
                    ok(libc::prctl(libc::PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE");
                }
                look(1);
                // SAFETY: the end of the child.
                unsafe { libc::_exit(0) };
            }
            assert_eq!(wait_for(child), 0, "the child's child");
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(wait_for(child), 0, "the child");
        memory.check_all(7);
    }
}

/// A child maps memory where its parent had some that did not come along, and lets what is before it grow into that.
fn holes() {
    let (whole, second) = (Memory::new(16), Memory::new(16));
    let half = whole.pages / 2;
    // SAFETY: memory of ours; the hole is nobody's until the child maps something there.
    unsafe {
        ok(libc::madvise(whole.address(half), half * PAGE, libc::MADV_DONTFORK), "MADV_DONTFORK");
        ok(libc::munmap(second.address(half), half * PAGE), "munmap");
    }
    let ballast = Ballast::new();
    for round in 1..6 {
        whole.fill_all(round);
        ballast.sweep();
        // SAFETY: as in `forks`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // The agent has begun by then.
            std::thread::sleep(Duration::from_millis(20));
            // SAFETY: the child has nothing there.
            unsafe {
                let bytes = half * PAGE;
                let grown = libc::mremap(whole.address(0), bytes, 2 * bytes, 0);
                assert_eq!(grown, whole.address(0), "mremap: {}", std::io::Error::last_os_error());
                let fixed = PRIVATE | libc::MAP_FIXED;
                let mapped = libc::mmap(second.address(half), bytes, READ_WRITE, fixed, -1, 0);
                assert_eq!(mapped, second.address(half));
            }
            (half..whole.pages).for_each(|page| whole.check_zero(page));
            (half..whole.pages).for_each(|page| whole.fill(page, round + 10));
            (half..second.pages).for_each(|page| second.fill(page, round + 20));
            ballast.sweep();
            (0..half).for_each(|page| whole.check(page, round));
            (half..whole.pages).for_each(|page| whole.check(page, round + 10));
            (half..second.pages).for_each(|page| second.check(page, round + 20));
            // SAFETY: the end of the child.
            unsafe { libc::_exit(0) };
        }
        assert_eq!(wait_for(child), 0, "the child");
        whole.check_all(round);
    }
}

/// A child finds memory empty though its parent ends at once, as that of a daemon does.
fn orphaned() {
    let wiped = Memory::new(8);
    // SAFETY: memory of ours.
    ok(unsafe { libc::madvise(wiped.address(0), 8 << 20, libc::MADV_WIPEONFORK) }, "madvise");
    let ballast = Ballast::new();
    for round in 0..4 {
        let mut ends = [0; 2];
        // SAFETY: two descriptors.
        ok(unsafe { libc::pipe(ends.as_mut_ptr()) }, "pipe");
        // SAFETY: as in `forks`.
        let parent = unsafe { libc::fork() };
        assert!(parent >= 0);
        if parent == 0 {
            wiped.fill_all(round + 7);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1500) {
                ballast.sweep();
            }
            // SAFETY: as in `forks`; the parent's end.
            unsafe {
                if libc::fork() != 0 {
                    libc::_exit(0);
                }
            }
            (0..wiped.pages).for_each(|page| wiped.check_zero(page));
            // SAFETY: a byte; the end of the child.
            unsafe {
                libc::write(ends[1], b"0".as_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        // SAFETY: a descriptor of ours.
        ok(unsafe { libc::close(ends[1]) }, "close");
        assert_eq!(wait_for(parent), 0, "the parent");
        let mut byte = 0u8;
        // SAFETY: a byte.
        let read = unsafe { libc::read(ends[0], (&raw mut byte).cast(), 1) };
        assert_eq!((read, byte), (1, b'0'), "the child");
        // SAFETY: a descriptor of ours.
        ok(unsafe { libc::close(ends[0]) }, "close");
    }
}

/// Shared segments take the place of memory that is out, and go again.
fn attached() {
    let memory = Memory::new(32);
    let (first, bytes) = (memory.pages / 4, memory.pages / 2 * PAGE);
    let inside = first..first + bytes / PAGE;
    let ballast = Ballast::new();
    for round in 1..4 {
        memory.fill_all(round);
        ballast.sweep();
        let there = memory.address(first);
        // SAFETY: memory of ours, which a new segment replaces whole, and new memory that; the segment goes with it.
        unsafe {
            let segment = libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
            assert!(segment >= 0, "shmget: {}", std::io::Error::last_os_error());
            let at = libc::shmat(segment, there, libc::SHM_REMAP);
            ok(libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut()), "IPC_RMID");
            assert_eq!(at, there, "shmat");
            inside.clone().for_each(|page| memory.check_zero(page));
            inside.clone().for_each(|page| memory.fill(page, 99));
            inside.clone().for_each(|page| memory.check(page, 99));
            if round == 1 {
                ok(libc::shmdt(at), "shmdt");
                let grown = libc::mremap(memory.address(0), first * PAGE, first * PAGE + bytes, 0);
                assert_eq!(grown, memory.address(0), "mremap: {}", std::io::Error::last_os_error());
            } else {
                assert_eq!(libc::mmap(at, bytes, READ_WRITE, PRIVATE | libc::MAP_FIXED, -1, 0), at, "mmap");
            }
            // Into a hole, which is where the kernel puts things.
            let hole = map(bytes / PAGE, READ_WRITE, PRIVATE).as_ptr().cast::<libc::c_void>();
            ok(libc::munmap(hole.byte_add(PAGE), bytes - PAGE), "munmap");
            let other = libc::shmget(libc::IPC_PRIVATE, bytes - PAGE, libc::IPC_CREAT | 0o600);
            assert!(other >= 0, "shmget: {}", std::io::Error::last_os_error());
            for start in [hole.byte_add(PAGE), hole] {
                let at = libc::shmat(other, start, libc::SHM_REMAP);
                assert_eq!(at, start, "shmat: {}", std::io::Error::last_os_error());
                ok(libc::shmdt(at), "shmdt");
            }
            ok(libc::shmctl(other, libc::IPC_RMID, std::ptr::null_mut()), "IPC_RMID");
            let again = libc::shmat(segment, there, libc::SHM_REMAP);
            let why = std::io::Error::last_os_error().raw_os_error();
            assert_eq!((again.addr(), why), (usize::MAX, Some(libc::EINVAL)), "a segment that is no more");
        }
        inside.clone().for_each(|page| memory.check_zero(page));
        inside.clone().for_each(|page| memory.fill(page, round + 10));
        ballast.sweep();
        let version = |page: usize| if inside.contains(&page) { round + 10 } else { round };
        (0..memory.pages).for_each(|page| memory.check(page, version(page)));
    }
}

/// Memory that may be executed leaves too, and what is in it can be.
fn code() {
    let pages = (64 << 20) / PAGE;
    let memory = Memory { base: map(pages, READ_WRITE | libc::PROT_EXEC, PRIVATE), pages };
    memory.fill_all(4);
    let call = |page: usize| {
        // SAFETY: the page begins with the instruction `ret`.
        let function: extern "C" fn() = unsafe { std::mem::transmute(memory.address(page)) };
        function();
    };
    const RET: u64 = 0xc3;
    for page in (0..pages).step_by(7) {
        // SAFETY: within the page.
        unsafe { memory.page(page).write_volatile(RET) };
    }
    let ballast = Memory::new(32);
    for round in 0..3 {
        ballast.fill_all(round);
        (0..pages).step_by(7).for_each(call);
        ballast.check_all(round);
    }
    for page in 0..pages {
        if page % 7 == 0 {
            // SAFETY: within the page.
            unsafe { memory.page(page).write_volatile(value(page, 0, 4)) };
        }
        memory.check(page, 4);
    }
}

/// Terabytes that are reserved, and a little of them used here and there.
fn reserved() {
    const AREAS: usize = 24;
    let pages = (40 << 40) / PAGE;
    let memory = Memory { base: map(pages, READ_WRITE, PRIVATE | libc::MAP_NORESERVE), pages };
    let each = |work: &dyn Fn(usize)| {
        for area in 0..AREAS {
            let from = area * (pages / AREAS);
            (from..from + (4 << 20) / PAGE).for_each(work);
        }
    };
    for round in 1..4 {
        each(&|page| memory.fill(page, round));
        each(&|page| memory.check(page, round));
    }
}

/// What others look at is there.
fn arguments() {
    let look = |name: &str| std::fs::read(format!("/proc/self/{name}")).expect("it can be read");
    let before = ["cmdline", "environ"].map(look);
    assert!(before.iter().all(|text| !text.is_empty()));
    let ballast = Ballast::new();
    for _ in 0..5 {
        ballast.sweep();
        assert_eq!(["cmdline", "environ"].map(look), before);
    }
}

/// Each thread ends by itself, and the process with the last of them.
fn over() {
    let ballast = Ballast::new();
    ballast.sweep();
    println!("over right");
    // SAFETY: the end of the only thread, which has nothing to leave.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let cases: [(&str, fn()); 41] = [
        ("churn", churn),
        ("chase", chase),
        ("jostle", jostle),
        ("crowd", crowd),
        ("runs", runs),
        ("blocks", blocks),
        ("calls", calls),
        ("direct", direct),
        ("fixed", fixed),
        ("again", again),
        ("crash", crash),
        ("given-up", given_up),
        ("moved", moved),
        ("kept", kept),
        ("signals", signals),
        ("mappings", mappings),
        ("sparse", sparse),
        ("forks", forks),
        ("bomb", bomb),
        ("daemon", daemon),
        ("left", left),
        ("forever", forever),
        ("wiped", wiped),
        ("thawed", thawed),
        ("headless", headless),
        ("sandboxed", sandboxed),
        ("joined", joined),
        ("guarded", guarded),
        ("rights", rights),
        ("apart", apart),
        ("holes", holes),
        ("orphaned", orphaned),
        ("attached", attached),
        ("code", code),
        ("reserved", reserved),
        ("arguments", arguments),
        ("over", over),
        ("halted", halted),
        ("parted", parted),
        ("ignored", ignored),
        ("plain", plain),
    ];
    let Some((_, case)) = cases.iter().find(|(known, _)| *known == name) else {
        eprintln!("usage: hazards {} [random]", cases.map(|(name, _)| name).join("|"));
        std::process::exit(2);
    };
    case();
    println!("{name} right");
}
