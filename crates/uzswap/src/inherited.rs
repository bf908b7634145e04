//! What the program is to have from whoever started us, and we need otherwise for ourselves: signals that are ignored (`nohup`, a
//! shell's background jobs), and limits that count for each process and are meant for the program.
//!
//! What it can never do: keep a hard limit of ours away from us where we may not raise it (without CAP_SYS_RESOURCE).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts as signals;

/// Signals that are handed on to the program.
pub const FORWARDED: [i32; 8] = [
    signals::SIGTERM,
    signals::SIGINT,
    signals::SIGQUIT,
    signals::SIGHUP,
    signals::SIGUSR1,
    signals::SIGUSR2,
    signals::SIGALRM,
    signals::SIGWINCH,
];

/// Those besides that have another action here: SIGCHLD ignored takes a child's exit status away, and a swap file that may not be larger
/// is an error and no death.
const OWN: [(i32, libc::sighandler_t); 2] =
    [(signals::SIGCHLD, libc::SIG_DFL), (libc::SIGXFSZ, libc::SIG_IGN)];

/// All of these, and SIGPIPE, which Rust ignores.
const CHANGED: usize = FORWARDED.len() + OWN.len() + 1;

/// Limits that would end us, or keep room from us, for what several processes of the program take together.
const RAISED: [Resource; 6] =
    [Resource::Nofile, Resource::Cpu, Resource::Fsize, Resource::As, Resource::Data, Resource::Nproc];

/// Descriptors that the kernel allows a process (`fs.nr_open`) where nobody said otherwise.
const DESCRIPTORS: u64 = 1 << 20;

/// Whether SIGPIPE was ignored before Rust's own start made it so.
static IGNORED_PIPE: AtomicBool = AtomicBool::new(false);

#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = note_pipe;

extern "C" fn note_pipe() {
    IGNORED_PIPE.store(is_ignored(signals::SIGPIPE), Relaxed);
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: asks for a signal's action and changes nothing; all zeros is a valid structure to be filled.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What was there before we changed it.
#[derive(Clone, Copy)]
pub struct Inherited {
    /// Signals, and whether they were ignored.
    signals: [(i32, bool); CHANGED],
    limits: [Option<(Resource, Rlimit)>; RAISED.len()],
}

impl Inherited {
    /// Notes it, and takes for this process what it needs. To be called before signals are waited for.
    pub fn take() -> Inherited {
        let mut noted = [(signals::SIGPIPE, IGNORED_PIPE.load(Relaxed)); CHANGED];
        let changed = FORWARDED.into_iter().chain(OWN.map(|(signal, _)| signal));
        for (place, signal) in noted.iter_mut().zip(changed) {
            *place = (signal, is_ignored(signal));
        }
        for (signal, action) in OWN {
            // SAFETY: ignores a signal, or has its default action, and nobody here handles it.
            unsafe { libc::signal(signal, action) };
        }
        Inherited { signals: noted, limits: RAISED.map(|resource| Some((resource, raise(resource)?))) }
    }

    /// Puts it back in a child that is about to execute the program: system calls only.
    pub fn restore(&self) -> io::Result<()> {
        for (signal, was_ignored) in self.signals {
            let action = if was_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
            // SAFETY: ignores a signal of this process, which is about to be another program, or has its default action.
            if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        for (resource, before) in self.limits.iter().flatten() {
            setrlimit(*resource, *before)?;
        }
        Ok(())
    }
}

/// Raises a limit as far as may be. The one from before, if it could be set at all.
fn raise(resource: Resource) -> Option<Rlimit> {
    let before = getrlimit(resource);
    let most = match resource {
        Resource::Nofile => before.maximum.map(|maximum| maximum.max(DESCRIPTORS)),
        _ => None,
    };
    [most, before.maximum]
        .into_iter()
        .any(|limit| setrlimit(resource, Rlimit { current: limit, maximum: limit }).is_ok())
        .then_some(before)
}
