//! The connections to the agents: who is there, which memory is whose, and orders for the hands inside.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use agent::protocol::{self, Action, Command, Hello, Leave, Means, Ready, Reply, Welcome};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zswap::PAGE_SIZE;

use crate::memory::Memory;
use crate::proc::Proc;
use crate::uffd::{Put, Uffd};
use crate::{PagerError, Shared};

/// How long an agent may take for an order before the process counts as stopped.
const ORDER_LIMIT: Duration = Duration::from_millis(25);

/// How long a process may take to make its userfaultfd, once it was asked: a stopped one does not.
const WELCOME_LIMIT: Duration = Duration::from_millis(50);

/// How long somebody waits here for a memory that is being served: that takes as long as a batch is moved; longer where a fork is
/// short of a descriptor, which those who wait here may be about to give back.
const BUSY_LIMIT: Duration = Duration::from_millis(5);
/// Connections that may wait between two looks. Who finds no room waits before its program begins.
const BACKLOG: i32 = 1024;
/// How long it is taken for true how much of a process is shared, at least, and in times of what a look takes.
const SHARE_AGE: Duration = Duration::from_millis(40);
const SHARE_PAUSE: u32 = 8;

/// The connection of one agent.
pub(crate) struct Hands {
    pub(crate) socket: OwnedFd,
    pub(crate) hello: Hello,
    /// The numbers of the last order that was given and of the last one that was answered.
    ordered: u32,
    answered: u32,
    /// The last answer was waited for in vain.
    is_late: bool,
}

/// What came of an order.
pub(crate) enum Done {
    Reply(Box<Reply>),
    /// No answer in time.
    Stalled,
    /// The agent is gone.
    Gone,
}

impl Hands {
    /// An order was begun and has not ended: its answer is still to come, and nothing can be ordered before.
    pub(crate) fn owes_reply(&self) -> bool {
        self.ordered != self.answered
    }

    /// Whether the agent is gone. It is the first thing to go when its process ends or executes another program: the memory is
    /// still the process's while this says no.
    pub(crate) fn is_gone(&self) -> bool {
        is_closed(self.socket.as_fd())
    }

    /// Gives an order and waits for its end.
    pub(crate) fn order(&mut self, command: &mut Command) -> Done {
        self.begin(command).map_or_else(|done| done, |()| self.settle())
    }

    /// Gives an order for whose end nobody waits before the next.
    ///
    /// # Errors
    /// What became of the last one, if that has not ended; or the agent is gone.
    pub(crate) fn begin(&mut self, command: &mut Command) -> Result<(), Done> {
        if self.owes_reply() {
            match self.settle() {
                Done::Reply(_) => {}
                other => return Err(other),
            }
        }
        command.sequence = self.ordered.wrapping_add(1);
        if send(self.socket.as_fd(), packet_of(command), None).is_err() {
            return Err(Done::Gone);
        }
        self.ordered = command.sequence;
        Ok(())
    }

    /// Lets the agent go. One that does not answer (its process is stopped) finds the order when it runs again, behind the one that it
    /// was given before.
    pub(crate) fn dismiss(&mut self, status: u32) {
        let sequence = self.ordered.wrapping_add(1);
        if let_go(self.socket.as_fd(), sequence, status).is_ok() {
            self.ordered = sequence;
            let _ = self.settle();
        }
    }

    /// Waits for the end of the order that was given: as long as one may take, and not at all once that was in vain.
    pub(crate) fn settle(&mut self) -> Done {
        self.settle_within(if self.is_late { Duration::ZERO } else { ORDER_LIMIT })
    }

    /// Waits for the end of the order that was given, up to `limit`.
    pub(crate) fn settle_within(&mut self, limit: Duration) -> Done {
        let done = self.answer(limit);
        self.is_late = matches!(done, Done::Stalled);
        done
    }

    /// The answer to the last order. What comes late from earlier is passed over.
    fn answer(&mut self, limit: Duration) -> Done {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match receive::<Reply>(self.socket.as_fd(), left) {
                Ok((reply, _)) if reply.sequence == self.ordered => {
                    self.answered = self.ordered;
                    return Done::Reply(Box::new(reply));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Done::Stalled,
                Err(_) => return Done::Gone,
            }
        }
    }

    /// The agent's own ranges, not to be managed.
    pub(crate) fn owns(&self, start: u64, end: u64) -> bool {
        let touches = |from: u64, to: u64| start < to && from < end;
        let page = PAGE_SIZE as u64;
        touches(self.hello.own_start, self.hello.own_end)
            || touches(self.hello.probe, self.hello.probe + page)
    }

    /// The staging area: first byte, and first behind.
    pub(crate) fn staging(&self) -> (u64, u64) {
        (self.hello.staging, self.hello.staging + (protocol::BATCH * PAGE_SIZE) as u64)
    }
}

/// A process with an agent.
pub(crate) struct Process {
    pub(crate) proc: Arc<Proc>,
    pub(crate) pid: u32,
    pub(crate) state: Mutex<Stage>,
    /// It began by a fork.
    is_forked: bool,
    /// Resident bytes that are counted with other processes, which have them too.
    elsewhere: AtomicU64,
    /// When it was looked at, and how long that took.
    looked_at: Mutex<Option<(Instant, Duration)>>,
    /// When it was asked for its userfaultfd, or given one.
    asked: OnceLock<Instant>,
}

/// How far the acquaintance went.
pub(crate) enum Stage {
    /// It said hello, and waits.
    Known(Hands),
    /// It was asked for its userfaultfd.
    Asked(Hands),
    /// It was forked, and given the userfaultfd that came with that.
    Given(Hands, Arc<Memory>),
    /// Its memory is managed.
    Managed(Arc<Memory>),
    /// It cannot be managed.
    Refused(OwnedFd),
}

impl Process {
    /// Whether pages of it may be another process's too.
    fn may_share(&self) -> bool {
        let Some(state) = self.state.try_lock() else {
            // Whoever has the state is getting to know it, or waits for a batch of it.
            return self.is_forked || self.elsewhere.load(Ordering::Relaxed) > 0;
        };
        match &*state {
            Stage::Known(_) | Stage::Asked(_) => self.is_forked,
            Stage::Refused(_) | Stage::Given(..) => true,
            Stage::Managed(memory) => memory.has_forked.load(Ordering::Relaxed),
        }
    }

    /// Whether it was asked for something, or given it, has not answered so far, and may soon.
    pub(crate) fn is_to_answer(&self) -> bool {
        matches!(&*self.state.lock(), Stage::Asked(_) | Stage::Given(..))
            && self.asked.get().is_some_and(|asked| asked.elapsed() < WELCOME_LIMIT)
    }

    /// Its anonymous bytes, of which pages that it shares count in parts, as far as that has been looked at. What it has more by now is its own.
    pub(crate) fn anonymous(&self, resident: u64) -> u64 {
        resident.saturating_sub(self.elsewhere.load(Ordering::Relaxed))
    }

    /// Looks at what of its memory other processes have, too, if any may. The kernel walks all of it for that, so this is not done all the
    /// time.
    pub(crate) fn look_at_share(&self) {
        let mut looked_at = self.looked_at.lock();
        let is_due = looked_at.is_none_or(|(at, took)| at.elapsed() >= SHARE_AGE.max(took * SHARE_PAUSE));
        if !is_due || !self.may_share() {
            return;
        }
        let begun = Instant::now();
        let resident = self.proc.resident().unwrap_or_default().anonymous;
        // Where the kernel does not say it, all counts here.
        let own = self.proc.proportional().unwrap_or(resident);
        self.elsewhere.store(resident.saturating_sub(own), Ordering::Relaxed);
        *looked_at = Some((begun, begun.elapsed()));
    }

    /// The program has ended, all but the agent, which is to end too.
    pub(crate) fn dismiss(&self) {
        let status = self.proc.first_status().unwrap_or(0);
        match &*self.state.lock() {
            Stage::Known(hands) | Stage::Asked(hands) | Stage::Given(hands, _) => {
                let _ = let_go(hands.socket.as_fd(), 0, status);
            }
            Stage::Refused(socket) => {
                let _ = let_go(socket.as_fd(), 0, status);
            }
            Stage::Managed(memory) => {
                if let Some(hands) = memory.hands.lock().as_mut() {
                    hands.dismiss(status);
                }
            }
        }
    }

    /// Tells the agent to end, if nothing was begun with it. Whether that is so.
    fn let_agent_go(&self, shared: &Shared) -> bool {
        let mut state = self.state.lock();
        // A forked child's pages may be out since before it was one.
        if give(shared, self, &mut state).is_err() {
            return false;
        }
        let Stage::Known(hands) = &*state else { return false };
        let Ok(socket) = hands.socket.try_clone() else { return false };
        let is_told = let_go(socket.as_fd(), 0, 0).is_ok();
        if is_told {
            // Whoever has it from the list is to ask nothing of it any more.
            *state = Stage::Refused(socket);
        }
        is_told
    }

    /// We end, and nothing of it is out. An agent that may have a userfaultfd and is not waited for would take that for a death, and
    /// its process with it: it finds this when it comes to look.
    pub(crate) fn bid_farewell(&self) {
        let socket = match &*self.state.lock() {
            Stage::Asked(hands) | Stage::Given(hands, _) => hands.socket.try_clone(),
            Stage::Refused(socket) => socket.try_clone(),
            // That one waits, and ends; or was let go.
            Stage::Known(_) | Stage::Managed(_) => return,
        };
        if let Ok(socket) = socket {
            let _ = let_go(socket.as_fd(), 0, 0);
        }
    }

    /// Whether its agent is gone: the process ended, or executes another program.
    pub(crate) fn is_gone(&self) -> bool {
        let memory = match &*self.state.lock() {
            Stage::Known(hands) | Stage::Asked(hands) | Stage::Given(hands, _) => return hands.is_gone(),
            Stage::Refused(socket) => return is_closed(socket.as_fd()),
            Stage::Managed(memory) => memory.clone(),
        };
        // Those are the evictor's for a whole batch; who looks at the state meanwhile is not to wait.
        memory.hands.lock().as_ref().is_none_or(Hands::is_gone)
    }
}

/// Whether nobody has the other end of a socket any more.
fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).is_ok()
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Somebody who connected did not say hello.
pub(crate) enum Silent {
    /// Not yet.
    SoFar(OwnedFd),
    /// It is none of our agents, or gone.
    ForGood,
}

/// What somebody who has connected says, if anything was said so far: everybody may connect, and nobody is waited for.
pub(crate) fn greet(shared: &Shared, socket: OwnedFd) -> Result<Process, Silent> {
    let hello = match receive::<Hello>(socket.as_fd(), Duration::ZERO) {
        Ok((hello, _)) => hello,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Silent::SoFar(socket)),
        Err(_) => return Err(Silent::ForGood),
    };
    if hello.version != protocol::VERSION || hello.password != shared.password {
        return Err(Silent::ForGood);
    }
    let pid = peer(&socket).map_err(|_| Silent::ForGood)?;
    if hello.leave == Leave::Wanted as u32 {
        let processes = shared.processes.lock().clone();
        let left = processes.iter().find(|process| process.pid == pid && process.let_agent_go(shared));
        if let Some(left) = left {
            // When its agent is back it is another, and is not to be counted twice.
            shared.processes.lock().retain(|process| !Arc::ptr_eq(process, left));
            let _ = let_go(socket.as_fd(), 0, 0);
        }
        return Err(Silent::ForGood);
    }
    let proc = Proc::open(pid).map_err(|_| Silent::ForGood)?;
    shared.counters.processes.add(usize::from(hello.leave == Leave::No as u32));
    // Right after a fork all that it has is its parent's, too.
    let is_new_child = hello.forked != 0 && hello.leave == Leave::No as u32;
    let elsewhere = proc.resident().filter(|_| is_new_child).map_or(0, |resident| resident.anonymous);
    let hands = Hands { socket, hello, ordered: 0, answered: 0, is_late: false };
    Ok(Process {
        proc: Arc::new(proc),
        pid,
        is_forked: hands.hello.forked != 0,
        state: Mutex::new(Stage::Known(hands)),
        elsewhere: AtomicU64::new(elsewhere),
        looked_at: Mutex::new(None),
        asked: OnceLock::new(),
    })
}

/// Gives a forked process the userfaultfd of its memory, if the fork event brought one. From then on its pages do not depend on us:
/// with the last descriptor closed, those that are out would read as zeros. `Err`: whether there is one will be known later.
fn give(shared: &Shared, process: &Process, state: &mut Stage) -> Result<(), NotYet> {
    let Stage::Known(hands) = &*state else { return Ok(()) };
    if hands.hello.forked == 0 {
        return Ok(());
    }
    let Some(memory) = shared.find_child(&process.proc, hands.hello.probe)? else { return Ok(()) };
    let stand_in = hands.socket.try_clone().map_err(|_| NotYet)?;
    let welcome = Welcome { means: Means::Given as u32, ..Welcome::default() };
    send(hands.socket.as_fd(), bytes_of(&welcome), Some(memory.uffd.as_fd())).map_err(|_| NotYet)?;
    let _ = memory.proc.set(process.proc.clone());
    let _ = process.asked.set(Instant::now());
    if let Stage::Known(hands) = std::mem::replace(state, Stage::Refused(stand_in)) {
        *state = Stage::Given(hands, memory);
    }
    Ok(())
}

/// A fork may have happened that was not applied, or could not be looked for.
struct NotYet;

/// Manages a forked process if it has said that it has what it was given. A stopped one does not; it is served all the same.
fn begin_given(state: &mut Stage, hands: Hands, memory: Arc<Memory>) -> Option<Arc<Memory>> {
    match receive::<Ready>(hands.socket.as_fd(), Duration::ZERO) {
        Ok(_) => {
            *memory.hands.lock() = Some(hands);
            *state = Stage::Managed(memory.clone());
            Some(memory)
        }
        Err(error) => {
            if error.kind() == io::ErrorKind::TimedOut {
                *state = Stage::Given(hands, memory);
            }
            None
        }
    }
}

/// Asks a process for its userfaultfd, if nobody has, or gives it the one that it is to have. Nobody waits for the answer here: many can be
/// asked before the first has answered.
pub(crate) fn ask(shared: &Shared, process: &Process) {
    // Who has the state is asking.
    if let Some(mut state) = process.state.try_lock() {
        ask_in(shared, process, &mut state);
    }
}

fn ask_in(shared: &Shared, process: &Process, state: &mut Stage) {
    // With a userfaultfd of its own instead of the one that it is to have it could not be moved from, ever.
    if give(shared, process, state).is_err() {
        return;
    }
    let Stage::Known(hands) = &*state else { return };
    let Ok(stand_in) = hands.socket.try_clone() else { return };
    let device = shared.device.as_ref().map(AsFd::as_fd);
    let means = if device.is_some() { Means::Device } else { Means::Call };
    let welcome = Welcome { means: means as u32, ..Welcome::default() };
    if send(hands.socket.as_fd(), bytes_of(&welcome), device).is_ok()
        && let Stage::Known(hands) = std::mem::replace(state, Stage::Refused(stand_in))
    {
        let _ = process.asked.set(Instant::now());
        *state = Stage::Asked(hands);
    }
}

/// Takes a process's memory under management, if it can be and the process has answered. Returns it when it is.
pub(crate) fn manage(shared: &Arc<Shared>, process: &Process) -> Option<Arc<Memory>> {
    let mut state = process.state.lock();
    if let Stage::Managed(memory) = &*state {
        return Some(memory.clone());
    }
    ask_in(shared, process, &mut state);
    let (Stage::Asked(hands) | Stage::Given(hands, _)) = &*state else { return None };
    let stand_in = hands.socket.try_clone().ok()?;
    let hands = match std::mem::replace(&mut *state, Stage::Refused(stand_in)) {
        Stage::Given(hands, memory) => return begin_given(&mut state, hands, memory),
        Stage::Asked(hands) => hands,
        _ => return None,
    };
    match receive::<Ready>(hands.socket.as_fd(), Duration::ZERO) {
        Ok((Ready { errno: 0, .. }, Some(uffd))) => {
            rustix::io::ioctl_fionbio(&uffd, true).ok()?;
            let forked = hands.hello.forked != 0;
            let uffd = Uffd::from(uffd);
            if let Err(error) = uffd.begin() {
                shared.refused(process.pid, error.raw_os_error().unwrap_or(libc::EIO));
                return None;
            }
            let memory = shared.enter(uffd, hands.hello.probe, None, forked)?;
            let _ = memory.proc.set(process.proc.clone());
            *memory.hands.lock() = Some(hands);
            *state = Stage::Managed(memory.clone());
            Some(memory)
        }
        Ok((ready, _)) => {
            shared.refused(process.pid, i32::try_from(ready.errno).unwrap_or(libc::EIO));
            None
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            *state = Stage::Asked(hands);
            None
        }
        Err(_) => None,
    }
}

impl Shared {
    /// The memory of a forked child, which a fork event brought: the one where a number that we put is what the child has. It is
    /// the memory's own, so that it does not matter who was held against it before.
    fn find_child(&self, proc: &Proc, probe: u64) -> Result<Option<Arc<Memory>>, NotYet> {
        let mut memories = self.books.lock().memories();
        memories.retain(|memory| memory.probe == probe);
        // Each event is applied within the hold of the lock in which it was read, but for those that wait for a batch.
        let events_wait = |memory: &Arc<Memory>| {
            memory.inner.try_lock_for(BUSY_LIMIT).is_none_or(|inner| inner.events_wait)
        };
        if memories.iter().any(events_wait) {
            return Err(NotYet);
        }
        let mut memories = self.books.lock().memories();
        memories.retain(|memory| memory.probe == probe && memory.proc.get().is_none());
        for memory in memories {
            let mut page = [[0; PAGE_SIZE]];
            let number = u64::from(memory.number) << 1 | 1;
            page[0][..8].copy_from_slice(&number.to_le_bytes());
            if matches!(memory.uffd.copy(probe, &page), Put::Again(_) | Put::NoMemory) {
                return Err(NotYet);
            }
            let mut is_there = false;
            let scanned = proc.present(probe, probe + PAGE_SIZE as u64, |_, _| is_there = true);
            let mut seen = [[0; PAGE_SIZE]];
            if scanned.is_ok()
                && is_there
                && proc.read_pages(probe, &mut seen) == 1
                && seen[0][..8] == page[0][..8]
            {
                return Ok(Some(memory));
            }
        }
        Ok(None)
    }

    /// Gives forked processes their userfaultfds. Whatever becomes of us, they are not to go on with zeros.
    pub(crate) fn hand_over(&self) {
        let is_for_somebody = |memory: &Arc<Memory>| memory.proc.get().is_none();
        if self.books.lock().memories().iter().any(is_for_somebody) {
            let processes = self.processes.lock().clone();
            for process in processes {
                // Whoever holds the state is getting to know it.
                if let Some(mut state) = process.state.try_lock() {
                    let _ = give(self, &process, &mut state);
                }
            }
        }
    }
}

/// A word that nobody can guess.
///
/// # Errors
/// The kernel gives no random numbers.
pub(crate) fn password() -> Result<[u8; protocol::PASSWORD], PagerError> {
    let mut random = [0; protocol::PASSWORD];
    let mut missing = random.as_mut_slice();
    while !missing.is_empty() {
        let got = rustix::rand::getrandom(&mut *missing, rustix::rand::GetRandomFlags::empty())?;
        missing = &mut missing[got..];
    }
    Ok(random.map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]))
}

/// The socket that agents connect to.
///
/// # Errors
/// As for binding a socket.
pub(crate) fn listen(path: &std::path::Path) -> Result<OwnedFd, PagerError> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    // Programs may give up their rights before they fork.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .map_err(PagerError::Socket)?;
    Ok(socket)
}

fn peer(socket: &OwnedFd) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.pid.as_raw_nonzero().get().unsigned_abs())
}

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: used for the protocol's packets, repr(C) structures of integers without padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Says "let go". To an agent that waits for its [`Welcome`] that is one.
fn let_go(socket: BorrowedFd<'_>, sequence: u32, status: u32) -> io::Result<()> {
    let release = Command { sequence, status, ..Command::new(Action::Release) };
    send(socket, packet_of(&release), None)
}

/// What of a command is sent.
fn packet_of(command: &Command) -> &[u8] {
    // SAFETY: a command is a repr(C) structure of integers without padding, initialised; len() is within it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(command).cast::<u8>(), command.len()) }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_ref().map(std::slice::from_ref);
    if let Some(fds) = fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    // A full socket is an agent that does not run: no order can be outstanding twice, so it has room.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// A packet that must be a whole `T`, and the descriptor that came with it. `InvalidData`: it is of another length.
fn receive<T: Copy>(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<(T, Option<OwnedFd>)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timespec = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let mut packet = MaybeUninit::<T>::uninit();
        // SAFETY: zeroed bytes are written first, so the slice is initialised memory of the packet's size.
        let bytes = unsafe {
            packet.as_mut_ptr().write_bytes(0, 1);
            std::slice::from_raw_parts_mut(packet.as_mut_ptr().cast::<u8>(), size_of::<T>())
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(socket, &mut [io::IoSliceMut::new(bytes)], &mut control, flags)?;
        match received.bytes {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len if len != size_of::<T>() => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        // SAFETY: every byte is initialised, and the packets are structures of integers.
        return Ok((unsafe { packet.assume_init() }, fd));
    }
}

/// `/dev/userfaultfd`, if it is there and may be opened: a descriptor of it lets a process make a userfaultfd that serves
/// faults inside system calls too, whatever its own rights are.
pub(crate) fn device() -> Option<OwnedFd> {
    // SAFETY: opens a file; the path is a C string.
    let fd = unsafe { libc::open(c"/dev/userfaultfd".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    // SAFETY: a descriptor that was just opened is nobody else's.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }).filter(|fd| fd.as_raw_fd() >= 0)
}
