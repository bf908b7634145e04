//! Any program in less memory than it needs: the supervisor's side of `uzswap run`.
//!
//! ```text
//!  the program's processes                     this process
//!  ┌───────────────────────────┐   faults,   ┌─────────────────────────────────────┐
//!  │ its memory, registered    │── events ──▶│ fault    one thread a memory        │
//!  │                           │◀── pages ───│             │                       │
//!  │ agent: one thread         │◀── orders ──│ evict    one thread; discovery      │──▶ zswap ──▶ swap file
//!  │   UFFDIO_MOVE to staging  │── copies ──▶│             │                       │
//!  └───────────────────────────┘             │ watch    sizes, new processes       │
//!                                            │ tend     what ended, what is kept   │
//!                                            └─────────────────────────────────────┘
//! ```
//!
//! The cache, the policy and every byte that was moved out are here, in one process that shares nothing with the program;
//! inside the program there are only hands (crate `agent`). So a fork needs no copy of a cache and no lock held across it:
//! the child's faults come here too, and are answered from the same slots. And a program that is killed at any moment
//! leaves nothing half done. What it trades: a fault crosses to another process, and a batch of moves is two messages.
//!
//! What it can never do: evict what the kernel does not let us move (locked, shared, file-backed or non-writable memory);
//! see every access (only faults, and accessed bits from time to time where the kernel shows them); or serve a program without its supervisor: if this process dies, programs that have pages
//! out are ended by their agents, rather than go on with zeros.

mod accessed;
mod around;
mod batch;
mod beside;
mod books;
mod budget;
mod choose;
mod counters;
mod discover;
mod evict;
mod fault;
mod kept;
mod link;
mod memory;
mod overtaken;
mod own_code;
pub mod policy;
mod pool_size;
mod proc;
mod scheduling;
mod slots;
mod stream;
mod table;
mod tend;
mod thrashing;
mod turns;
mod uffd;
mod watch;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fd::OwnedFd;
use zswap::{Keep, LoadError, PAGE_SIZE, SwapEntry, Zswap};

use agent::protocol::{Action, Command, PASSWORD, SOCKET_VARIABLE};

use crate::accessed::Accessed;
use crate::batch::Storing;
use crate::books::Books;
use crate::budget::Budget;
use crate::link::Process;
use crate::memory::{Inner, Memory};
use crate::pool_size::PoolSize;
use crate::proc::Proc;
use crate::table::{Page, State, address_of};
use crate::turns::Turns;
use crate::uffd::{Put, Uffd};

pub use budget::Peaks;
pub use counters::{Count, Counters};
pub use policy::{Candidate, Policy};

/// The swap type that evicted pages are under.
pub const SWAP_TYPE: u8 = 0;

/// What a pager is made of.
pub struct Config {
    /// Bytes that the programs and this process may take together.
    pub cap: u64,
    /// The cache; swap type 0 of it is on, with `slots` pages.
    pub cache: Arc<Zswap>,
    /// Pages of swap type 0.
    pub slots: u32,
    /// Where swap type 0 has a device: bytes that the pool may take at first. The cache has this limit, and gets others as long as nobody
    /// else sets it.
    pub pool: Option<u64>,
    /// Where agents connect; nothing is there yet.
    pub socket: PathBuf,
    /// Told what the user should know, a line at a time.
    pub tell: Box<dyn Fn(&str) + Send + Sync>,
    /// Given the counters, and [`Pager::accessed_bits`], some twenty times a second, for whoever looks on from outside.
    pub publish: Publish,
}

/// Where figures go while programs run.
pub type Publish = Box<dyn Fn(&Counters, &str) + Send + Sync>;

/// Why a pager cannot run.
#[derive(Debug)]
#[non_exhaustive]
pub enum PagerError {
    /// The agents' socket.
    Socket(io::Error),
    /// A thread, or `/proc`.
    System(io::Error),
    /// This kernel or this user cannot use userfaultfd; with the errno.
    NoUserfaultfd(i32),
    /// The kernel has no `UFFDIO_MOVE`: it is older than 6.8.
    OldKernel,
}

impl fmt::Display for PagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PagerError::Socket(error) => write!(f, "the agents' socket: {error}"),
            PagerError::System(error) => error.fmt(f),
            PagerError::NoUserfaultfd(errno) => write!(
                f,
                "userfaultfd is refused ({}); it takes the capability CAP_SYS_PTRACE (to be told of forks: root, or setcap \
                 cap_sys_ptrace+ep on uzswap), then /dev/userfaultfd or sysctl vm.unprivileged_userfaultfd=1 where that is \
                 not enough, and a seccomp filter that allows it",
                io::Error::from_raw_os_error(*errno)
            ),
            PagerError::OldKernel => f.write_str(
                "this kernel cannot move pages atomically (UFFDIO_MOVE): it needs Linux 6.8 or later",
            ),
        }
    }
}

impl std::error::Error for PagerError {}

impl From<rustix::io::Errno> for PagerError {
    fn from(errno: rustix::io::Errno) -> Self {
        PagerError::Socket(errno.into())
    }
}

/// What a thread does.
type Work = Box<dyn FnOnce() + Send>;

/// How long it may take at the end until a page finds its way back.
const BRING_BACK: Duration = Duration::from_secs(10);
/// How long an agent may take to answer then, if it has not answered for long.
const LAST_ANSWER: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    cache: Arc<Zswap>,
    books: Mutex<Books>,
    budget: Budget,
    storing: Storing,
    counters: Counters,
    processes: Mutex<Vec<Arc<Process>>>,
    listener: OwnedFd,
    /// What agents of ours say.
    password: [u8; PASSWORD],
    device: Option<OwnedFd>,
    own: Proc,
    /// Not before it may soon be needed.
    accessed: OnceLock<io::Result<Mutex<Accessed>>>,
    /// There are more pages than those whose bits can be cleared.
    too_large: AtomicBool,
    begun: Instant,
    stopping: AtomicBool,
    /// Anonymous bytes left after the last look for pages that nobody told us of.
    unmanageable: AtomicU64,
    tell: Box<dyn Fn(&str) + Send + Sync>,
    publish: Publish,
    /// There is a swap file, and it has not failed.
    with_device: AtomicBool,
    /// The CPU where a program's faults are served.
    taken: scheduling::Taken,
    pool_size: PoolSize,
    turns: Turns,
    /// That programs can run on at a time.
    cpus: usize,
    told_full: AtomicBool,
    told_refused: AtomicBool,
    servers: Mutex<Vec<JoinHandle<()>>>,
    this: OnceLock<std::sync::Weak<Shared>>,
}

impl Shared {
    fn entry(&self, slot: u32) -> SwapEntry {
        SwapEntry { swap_type: SWAP_TYPE, offset: slot }
    }

    /// Seconds since the start.
    fn seconds(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn tell(&self, what: &str) {
        (self.tell)(what);
    }

    fn accessed_bits(&self) -> String {
        match self.accessed.get() {
            None => "not needed so far".into(),
            Some(Ok(_)) if self.too_large.load(Relaxed) => {
                format!("not seen any more: above {} pages it takes too long", choose::MOST_RESIDENT)
            }
            Some(Ok(_)) => "seen".into(),
            Some(Err(error)) => format!("not seen: {error}"),
        }
    }

    /// Finds out whether accessed bits can be seen, which takes some 15 ms; nobody waits for it.
    fn look_at_accessed(&self) {
        let Some(shared) = self.this.get().and_then(std::sync::Weak::upgrade) else { return };
        let look = move || {
            let accessed = Accessed::open().map(Mutex::new);
            let sees = accessed.is_ok();
            if shared.accessed.set(accessed).is_ok() && sees {
                shared.books.lock().policy.see();
            }
        };
        // Without a thread the policy goes on blind, as it began.
        let _ = std::thread::Builder::new().name("uzswap-look".into()).spawn(look);
    }

    /// Nothing more can leave.
    fn give_up(&self) {
        self.budget.gave_up.store(true, Relaxed);
        if !self.told_full.swap(true, Relaxed) {
            let hint = if self.with_device.load(Relaxed) { "" } else { " (--swap FILE gives room)" };
            self.tell(&format!(
                "the program's pages do not fit under --memory, even compressed, or are wanted back as fast as they leave; it goes \
                 on above it{hint}"
            ));
        }
    }

    /// A process cannot be managed.
    fn refused(&self, pid: u32, errno: i32) {
        if !self.told_refused.swap(true, Relaxed) {
            self.tell(&format!("process {pid} is not managed: {}", PagerError::NoUserfaultfd(errno)));
        }
    }

    /// A memory is ours from now on; of which pages are out already, if `out` is given. `None`: it cannot be served, and is not
    /// ours; what of it was out is back, or makes who touches it wait.
    fn enter(&self, uffd: Uffd, probe: u64, out: Option<Inner>, forked: bool) -> Option<Arc<Memory>> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let ended = rustix::event::eventfd(0, flags).ok();
        let mut books = self.books.lock();
        let Some(number) = books.free_number() else {
            if out.is_some() {
                // With the descriptor closed its pages would read as zeros.
                std::mem::forget(uffd);
            }
            return None;
        };
        let memory = books.enter(Memory {
            number,
            age: self.counters.memories.get(),
            uffd,
            probe,
            inner: Mutex::new(out.unwrap_or_default()),
            settled: Condvar::new(),
            proc: OnceLock::new(),
            hands: Mutex::new(None),
            has_forked: AtomicBool::new(forked),
            came: AtomicUsize::new(0),
            ended,
        });
        self.counters.memories.add(1);
        drop(books);
        // A page that only this memory has, to tell it from others by.
        {
            let mut inner = memory.inner.lock();
            if memory.uffd.register(probe, probe + PAGE_SIZE as u64).is_ok() {
                inner.add_region(probe, probe + PAGE_SIZE as u64);
            }
        }
        let shared = self.this.get().and_then(std::sync::Weak::upgrade)?;
        let server = fault::Server::new(shared, memory.clone());
        let spawned = std::thread::Builder::new().name("uzswap-fault".into()).spawn(move || server.run());
        let Ok(thread) = spawned else {
            self.books.lock().leave(memory.number);
            let is_back = self.bring_back(&memory).is_some();
            if !is_back {
                // With the descriptor closed its pages would read as zeros; open, who touches them waits.
                std::mem::forget(memory);
            }
            return None;
        };
        let mut servers = self.servers.lock();
        servers.retain(|server| !server.is_finished());
        servers.push(thread);
        Some(memory)
    }

    /// The memory of a forked child.
    fn adopt(&self, uffd: Uffd, probe: u64, inner: Inner) {
        if self.enter(uffd, probe, Some(inner), true).is_none() {
            self.tell("a forked process is not managed, and may stand still: out of threads or numbers");
        }
    }

    /// Brings all pages of a memory back; nothing of it leaves any more. Returns with its lock, under which nothing is out, and no event
    /// is unread that could tell of a page being elsewhere. `None`: that could not be had, and its program was ended.
    fn bring_back<'a>(&self, memory: &'a Memory) -> Option<MutexGuard<'a, Inner>> {
        let mut inner = memory.inner.lock();
        inner.draining = true;
        while inner.batch.is_some() {
            memory.settled.wait(&mut inner);
        }
        // An event that waited for the batch is still to be applied, though the kernel takes it for done: a child is to have the
        // slots that its parent had, and what was moved is elsewhere. No other waits from now on.
        while inner.events_wait {
            MutexGuard::unlocked(&mut inner, || std::thread::sleep(Duration::from_micros(20)));
        }
        let mut last_came = Instant::now();
        loop {
            let mut out = Vec::new();
            inner.table.for_each(|page, state| {
                if let State::Slot(_) = state {
                    out.push(page);
                }
            });
            let is_settled = memory.uffd.is_registered(memory.probe).is_some();
            if out.is_empty() && is_settled || memory.uffd.is_dead(memory.probe) {
                return Some(inner);
            }
            for &page in &out {
                if self.bring_page_back(memory, &mut inner, page) {
                    last_came = Instant::now();
                }
                // The lock for a page at a time: the memory's own faults and events go on meanwhile.
                MutexGuard::bump(&mut inner);
            }
            if last_came.elapsed() > BRING_BACK {
                if out.is_empty() {
                    return Some(inner);
                }
                self.tell("a page cannot be brought back; ending its program");
                self.kill(memory);
                return None;
            }
            MutexGuard::unlocked(&mut inner, || std::thread::sleep(Duration::from_micros(100)));
        }
    }

    /// Brings one page back, if it is out. `false`: it cannot be now.
    fn bring_page_back(&self, memory: &Memory, inner: &mut Inner, page: Page) -> bool {
        let State::Slot(slot) = inner.table.get(page) else { return true };
        let mut content = [[0; PAGE_SIZE]];
        let address = address_of(page);
        match self.cache.load(self.entry(slot), &mut content[0], Keep::Always) {
            Ok(Some(_)) => match memory.uffd.copy(address, &content) {
                Put::Done | Put::Exists(_) => self.restored(memory, inner, &[(page, slot)]),
                // Nobody can ask for it.
                Put::Gone => self.forget(inner, address, address + PAGE_SIZE as u64),
                Put::Again(_) | Put::NoMemory | Put::Dead => return false,
            },
            Err(LoadError::NoMemory) => return false,
            // Its fault would tell, when somebody wants it; by then we may be gone, so it must be now.
            _ => return self.lose(memory, inner, page),
        }
        true
    }

    /// Brings everything back and lets the processes go on alone.
    fn drain(&self) {
        let mut done = HashSet::new();
        // A process that is not let go yet may fork; when all of them are, nobody is told of forks any more.
        loop {
            let mut left = self.books.lock().memories();
            left.retain(|memory| done.insert(memory.number));
            if left.is_empty() {
                return;
            }
            left.iter().for_each(|memory| self.let_go(memory));
        }
    }

    fn let_go(&self, memory: &Memory) {
        // In one hold of the lock: what happens to the memory from here on has no pages that are out.
        if let Some(inner) = self.bring_back(memory) {
            for (&start, &end) in &inner.regions {
                let _ = memory.uffd.unregister(start, end);
            }
        }
        if let Some(hands) = memory.hands.lock().as_mut() {
            // An agent that is not let go ends its process: one that is only slow is waited for.
            if hands.owes_reply() {
                let _ = hands.settle_within(LAST_ANSWER);
            }
            let _ = hands.order(&mut Command::new(Action::Empty));
            hands.dismiss(0);
        }
    }
}

/// A running pager.
pub struct Pager {
    shared: Arc<Shared>,
    socket: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Pager {
    /// Starts it. Programs are managed from when their agents connect.
    ///
    /// # Errors
    /// [`PagerError`]; nothing is left behind then.
    pub fn start(config: Config) -> Result<Pager, PagerError> {
        let device = link::device();
        check_kernel(device.as_ref())?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            books: Mutex::new(Books::new(config.slots, config.pool.is_some())),
            cache: config.cache,
            budget: Budget::new(config.cap),
            storing: Storing::default(),
            counters: Counters::default(),
            processes: Mutex::new(Vec::new()),
            listener: link::listen(&config.socket)?,
            password: link::password()?,
            device,
            own: Proc::open(std::process::id()).map_err(PagerError::System)?,
            accessed: OnceLock::new(),
            too_large: AtomicBool::new(false),
            begun: Instant::now(),
            stopping: AtomicBool::new(false),
            unmanageable: AtomicU64::new(0),
            tell: config.tell,
            publish: config.publish,
            with_device: AtomicBool::new(config.pool.is_some()),
            taken: scheduling::Taken::none(),
            pool_size: PoolSize::new(config.pool.unwrap_or(0)),
            turns: Turns::new(cpus),
            cpus,
            told_full: AtomicBool::new(false),
            told_refused: AtomicBool::new(false),
            servers: Mutex::new(Vec::new()),
            this: OnceLock::new(),
        });
        let _ = shared.this.set(Arc::downgrade(&shared));
        let (watcher, tender, worker) = (shared.clone(), shared.clone(), shared.clone());
        let evictor = evict::Evictor::new(shared.clone());
        let mut pager = Pager { shared, socket: config.socket, threads: Vec::new() };
        let works: [(&str, Work); 4] = [
            ("uzswap-watch", Box::new(move || watcher.watch())),
            ("uzswap-tend", Box::new(move || tender.tend())),
            ("uzswap-evict", Box::new(move || evictor.run())),
            ("uzswap-shrink", Box::new(move || worker.cache.run_shrink_worker())),
        ];
        for (name, work) in works {
            match std::thread::Builder::new().name(name.to_owned()).spawn(work) {
                Ok(thread) => pager.threads.push(thread),
                Err(error) => {
                    pager.stop();
                    return Err(PagerError::System(error));
                }
            }
        }
        Ok(pager)
    }

    /// The variable that programs are to have in their environment: where we are, and what lets them in.
    pub fn invitation(&self) -> (&'static str, OsString) {
        let mut value = OsString::from(String::from_utf8_lossy(&self.shared.password).as_ref());
        value.push(":");
        value.push(&self.socket);
        (SOCKET_VARIABLE, value)
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The joint maximum so far.
    pub fn peaks(&self) -> Peaks {
        self.shared.measure();
        self.shared.budget.peaks()
    }

    /// Whether the choice of what leaves rests on accessed bits too, or why not.
    pub fn accessed_bits(&self) -> String {
        self.shared.accessed_bits()
    }

    /// Bytes of tables and queues, beside the cache's own.
    pub fn metadata_bytes(&self) -> u64 {
        let books = self.shared.books.lock();
        let memories = books.memories();
        let bytes = books.bytes();
        drop(books);
        let tables: usize = memories.iter().map(|memory| memory.inner.lock().table.bytes()).sum();
        (bytes + tables) as u64
    }

    /// Ends it: what is out comes back, and processes that still run go on without us.
    pub fn stop(self) {
        let shared = &self.shared;
        shared.stopping.store(true, Relaxed);
        shared.budget.wake_all();
        shared.cache.stop_shrink_worker();
        // They may be about to enter a memory, which is to be drained, and whose thread is to end.
        for thread in self.threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
        // Nobody makes room any more.
        shared.budget.gave_up.store(true, Relaxed);
        shared.drain();
        shared.processes.lock().iter().for_each(|process| process.bid_farewell());
        loop {
            let memories = shared.books.lock().memories();
            for memory in memories {
                shared.books.lock().leave(memory.number);
                memory.tell_end();
            }
            // The last thing that such a thread did may have been to enter a child's memory.
            let servers = std::mem::take(&mut *shared.servers.lock());
            if servers.is_empty() {
                return;
            }
            for server in servers {
                let _ = server.join();
            }
        }
    }
}

/// Whether this kernel and this user can do it at all.
fn check_kernel(device: Option<&OwnedFd>) -> Result<(), PagerError> {
    uffd::try_out(device).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => PagerError::OldKernel,
        errno => PagerError::NoUserfaultfd(errno.unwrap_or(0)),
    })
}
