//! What agent and supervisor say to each other: packets of one `SOCK_SEQPACKET` connection a process.
//!
//! ```text
//! agent                                   supervisor
//! Hello (credentials come with it)  -->
//!                                   <--   Welcome, when the process is to be managed (+ a descriptor)
//! Ready (+ the userfaultfd it made) -->
//!                                   <--   Command
//! Reply                             -->   ... and so on
//! ```
//!
//! A process that never comes near its cap stops after Hello: one thread asleep in `recvmsg`.

/// Pages that one command moves at most: the size of the staging area.
pub const BATCH: usize = 256;
/// Bytes of a page; the agent exists for x86-64 only.
pub const PAGE_SIZE: usize = 4096;
/// The environment variable that has a word to be let in by, and names the supervisor's socket.
pub const SOCKET_VARIABLE: &str = "UZSWAP_AGENT";
/// The layout of these packets; both sides are built together, so a mismatch means another build's agent.
pub const VERSION: u32 = 5;
/// Bytes of the word by which a supervisor knows its own: `UZSWAP_AGENT=WORD:PATH`. Everybody may connect to the socket, since
/// programs give up their rights and fork; the environment of a process is for its own user to read.
pub const PASSWORD: usize = 32;

/// Who is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// 1 in a child that was forked by a process with an agent and did not exec since.
    pub forked: u32,
    /// A page that is the agent's, at the same address in every process forked from one another: the supervisor puts a
    /// number there to learn which userfaultfd belongs to this process.
    pub probe: u64,
    /// Where moved pages go: [`BATCH`] pages.
    pub staging: u64,
    /// First byte of the agent's own memory beside that.
    pub own_start: u64,
    /// First byte behind it.
    pub own_end: u64,
    /// From [`SOCKET_VARIABLE`].
    pub password: [u8; PASSWORD],
    /// A [`Leave`].
    pub leave: u32,
    /// 0.
    pub reserved: u32,
}

/// A process that has to be without its agent for a moment.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// It has not.
    No = 0,
    /// It is not the agent that says hello, but the process, which wants it gone. If nothing of the process is managed, the agent is let
    /// go, and so is told here: a [`Welcome`] with [`Action::Release`]; else the connection ends without a word.
    Wanted = 1,
    /// The agent is back.
    Over = 2,
}

/// How the process gets its userfaultfd; a descriptor comes with the first two.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// It is the descriptor: the process was forked from a managed one.
    Given = 1,
    /// The descriptor is `/dev/userfaultfd`, opened with the supervisor's rights: make one from it.
    Device = 2,
    /// Make one by the system call, with the process's own rights.
    Call = 3,
}

/// The answer to [`Hello`]; or a [`Command`] without runs, to let go before anything was begun.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Welcome {
    /// A [`Means`], or [`Action::Release`].
    pub means: u32,
    /// 0.
    pub reserved: [u32; 2],
    /// As [`Command::status`].
    pub status: u32,
}

/// The answer to [`Welcome`]; the userfaultfd comes with it unless that was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    /// 0, or why there is none.
    pub errno: u32,
    /// 0.
    pub reserved: u32,
}

/// What to do.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Move the runs into the staging area, one behind the other. The supervisor registered that before, and may take the
    /// registration away to make sure that no move happens any more, whatever the agent is doing.
    Move = 1,
    /// Make the runs private: pages shared with a forked process cannot be moved.
    Unshare = 2,
    /// The supervisor ends and everything is back in memory, or the program has ended but for this thread, or wants it gone
    /// ([`Leave`]): let go.
    Release = 4,
    /// Give the pages in the staging area back to the system, and its registration up.
    Empty = 5,
}

/// Consecutive pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Address of the first.
    pub start: u64,
    /// How many.
    pub pages: u64,
}

/// A command. Only the first `runs_len` runs are sent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// An [`Action`].
    pub action: u32,
    /// How many runs follow.
    pub runs_len: u32,
    /// Its number, which the answer repeats: an answer that comes too late is not taken for that of another command.
    pub sequence: u32,
    /// With [`Action::Release`], the thread's exit status: that of the last thread is the process's (since Linux 5.17).
    pub status: u32,
    /// What to move, or to unshare; [`BATCH`] pages in all.
    pub runs: [Run; BATCH],
}

/// What came of a command.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// 0, or the errno that ended the command as a whole.
    pub errno: u32,
    /// That of the command.
    pub sequence: u32,
    /// For each page in the order of the runs: 0 it was moved, else the errno of its move.
    pub pages: [u8; BATCH],
}

impl Command {
    /// An empty command.
    pub const fn new(action: Action) -> Command {
        Command {
            action: action as u32,
            runs_len: 0,
            sequence: 0,
            status: 0,
            runs: [Run { start: 0, pages: 0 }; BATCH],
        }
    }

    /// Bytes of the packet.
    pub fn len(&self) -> usize {
        16 + core::cmp::min(self.runs_len as usize, BATCH) * size_of::<Run>()
    }

    /// Whether the packet would have no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }
}

const _: () = assert!(size_of::<Command>() == 16 + BATCH * 16 && size_of::<Reply>() == 8 + BATCH);
const _: () = assert!(size_of::<Welcome>() == 16);
