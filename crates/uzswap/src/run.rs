//! `run`: a program under a cap. This process stays as its supervisor: it holds the pages that do not fit, hands signals
//! on, and ends with the program's exit status.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};

use control::{Block, Fact, Request, Writer};
use pager::{Config, Pager};
use serde_json::{Map, Value};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use swapfile::SwapDevice;
use zswap::{Counter, Options, PAGE_SIZE, Param, Zswap};

use crate::cli::Run;
use crate::failure::Failure;
use crate::inherited::{FORWARDED, Inherited};
use crate::{options, program, serve, size, steer};

/// The agent, as the build script made it.
static AGENT: &[u8] = include_bytes!(env!("UZSWAP_AGENT_OBJECT"));

/// A cap below this does not hold what every program has before it begins, and this process.
const LEAST_CAP: u64 = 8 << 20;
/// Slots without a swap file: as many as there are.
const UNLIMITED: u32 = 1 << 29;
/// The default size of a swap file, in caps.
const SWAP_CAPS: u64 = 4;
/// The share of the cap that compressed pages may take at first before the oldest go to the swap file: the kernel's `max_pool_percent`, 20.
/// The pager moves it, as programs have more use for the memory in the pool or out of it.
const POOL_SHARE: u64 = 5;

/// Where the agent's file goes if nothing can be executed in the run directory.
const ELSEWHERE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
const AGENT_PREFIX: &str = "uzswap-agent-";

/// Before the number of the supervisor's process it makes the name of an instance.
const NAME_PREFIX: &str = "run-";

/// `uzswap run`. Returns the exit status of the program.
pub fn run(args: &Run) -> Result<ExitCode, Failure> {
    let ram = zswap::system_ram_bytes();
    let cap = match &args.memory {
        Some(text) => size::parse(text, ram).map_err(|why| Failure::usage("--memory", why))?,
        None => default_cap(ram),
    };
    if cap < LEAST_CAP {
        let least = size::show(LEAST_CAP);
        return Err(Failure::usage(
            "--memory",
            format!("{cap} bytes are too few; no program starts in less than {least}"),
        ));
    }
    let (profile, params) = options::parse(&args.options)?;
    let swap = args.swap.as_deref().map(|text| Swap::parse(text, ram)).transpose()?;
    let Some((name, arguments)) = args.command.split_first() else {
        return Err(Failure::usage("command line", "no program to run; see uzswap --help"));
    };
    if AGENT.is_empty() {
        return Err(Failure::job("run", "it is there for x86-64 Linux only"));
    }
    let path = program::find(name)?;
    program::check(&path)?;
    let stats = args.stats.as_deref().map(open_stats).transpose()?;

    let inherited = Inherited::take();
    let instance = Home::make()?;
    let writer =
        Arc::new(Writer::new(&instance.dir).map_err(|error| Failure::job(instance.dir.display(), error))?);
    let (slots, device) = match &swap {
        None => (UNLIMITED, None),
        Some(swap) => swap.open(cap).map(|(slots, device)| (slots, Some(device)))?,
    };
    let mut options = Options::new(profile);
    // Without a swap file everything that is compressed stays; what the pool may take follows from the cap.
    let pool = if swap.is_some() { cap / POOL_SHARE } else { u64::MAX >> 2 };
    if profile.params.iter().any(|(param, ..)| *param == Param::MaxPoolBytes) {
        options.params.push((Param::MaxPoolBytes.name().to_owned(), pool.to_string()));
    }
    options.params.extend(params);
    options.stats = Box::new(writer.clone());
    let cache = Arc::new(Zswap::new(options).map_err(Failure::usage_of)?);
    cache
        .swapon(pager::SWAP_TYPE, slots, device)
        .map_err(|error| Failure::job("--swap", format!("cannot make {slots} slots: {error:?}")))?;
    announce(&writer, &cache, profile.name, slots, swap.as_ref());
    let show = figures_to(&writer);
    show(&pager::Counters::default(), "");
    writer
        .publish(&instance.dir.join("control"))
        .map_err(|error| Failure::job(instance.dir.display(), error))?;
    answer(&instance, &cache, &writer)?;
    let pager = Pager::start(Config {
        cap,
        cache: cache.clone(),
        slots,
        pool: swap.is_some().then_some(pool),
        socket: instance.dir.join("agent"),
        tell: Box::new(|what| eprintln!("uzswap: run: {what}")),
        publish: show,
    })
    .map_err(|error| Failure::job("run", error))?;

    // Before the program is there: no signal may fall between.
    let mut wanted =
        SignalsInfo::<WithOrigin>::new(FORWARDED).map_err(|error| Failure::job("signals", error))?;
    let mut command = Command::new(&path);
    {
        use std::os::unix::process::CommandExt;
        command.arg0(name);
        // SAFETY: between fork and exec this makes system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(move || inherited.restore()) };
    }
    let (variable, invitation) = pager.invitation();
    command.args(arguments).env(variable, invitation).env("LD_PRELOAD", instance.preload());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            pager.stop();
            let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return Err(Failure::with_status(status, path.display(), error));
        }
    };
    let pid = child.id();
    let handle = wanted.handle();
    let forward = std::thread::spawn(move || {
        for origin in &mut wanted {
            // What the terminal sends goes to the program as well as to us: not twice.
            let from_terminal = matches!(origin.cause, Cause::Kernel);
            if !from_terminal && let Some(pid) = i32::try_from(pid).ok() {
                // SAFETY: sends a signal; the child is reaped after this thread ended, so the number is still its own.
                unsafe { libc::kill(pid, origin.signal) };
            }
        }
    });
    await_end(pid);
    handle.close();
    let _ = forward.join();
    let status = child.wait();
    let object = figures(&cache, &pager, pager.peaks(), cap);
    pager.stop();
    if let Some(file) = stats {
        write_stats(file, &object).map_err(|error| Failure::job("--stats", error))?;
    }
    let status = status.map_err(|error| Failure::job(path.display(), error))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Waits until a child ended, and leaves it to be reaped.
fn await_end(pid: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options));
}

/// The memory limit of the control group, else half of RAM.
fn default_cap(ram: u64) -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let file = if controllers.is_empty() {
            Path::new("/sys/fs/cgroup").join(path).join("memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            Path::new("/sys/fs/cgroup/memory").join(path).join("memory.limit_in_bytes")
        } else {
            return None;
        };
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    // "No limit" is a number near the largest in version 1, and a word in version 2.
    limits.filter(|limit| *limit < ram).min().unwrap_or(ram / 2)
}

/// `--swap FILE[,size=SIZE]`: a file that is not there yet, or a block device.
struct Swap {
    path: PathBuf,
    /// As given.
    pages: Option<u64>,
    is_device: bool,
}

impl Swap {
    fn parse(text: &str, ram: u64) -> Result<Swap, Failure> {
        let (path, pages) = match text.rsplit_once(",size=") {
            Some((path, given)) => {
                let bytes = size::parse(given, ram).map_err(|why| Failure::usage("--swap", why))?;
                (path, Some(bytes / PAGE_SIZE as u64))
            }
            None => (text, None),
        };
        if path.is_empty() {
            return Err(Failure::usage("--swap", "no file named"));
        }
        if pages == Some(0) {
            return Err(Failure::usage("--swap", "the size is less than a page"));
        }
        let path = PathBuf::from(path);
        let is_device = fs::metadata(&path).is_ok_and(|it| it.file_type().is_block_device());
        Ok(Swap { path, pages, is_device })
    }

    /// The device and how many pages of it are used.
    fn open(&self, cap: u64) -> Result<(u32, Arc<dyn SwapDevice>), Failure> {
        let opened = if self.is_device {
            swapfile::File::open(&self.path, self.pages.unwrap_or(1)).map(|file| (file.pages(), file))
        } else {
            let pages = (cap.saturating_mul(SWAP_CAPS) / PAGE_SIZE as u64).max(1);
            let pages = self.pages.unwrap_or(pages);
            // What is in a file that is there already may be worth something.
            swapfile::File::create(&self.path, pages, swapfile::Existing::Refuse).map(|file| (pages, file))
        };
        let (pages, file) =
            opened.map_err(|error| Failure::job(format!("--swap {}", self.path.display()), error))?;
        if !self.is_device {
            // Nobody has use for it after us, whatever becomes of us.
            let _ = fs::remove_file(&self.path);
        }
        let pages = self.pages.unwrap_or(pages);
        Ok((u32::try_from(pages).unwrap_or(UNLIMITED).min(UNLIMITED), Arc::new(file)))
    }
}

/// The directory of this instance, and the agent's file; both go when it ends.
struct Home {
    dir: PathBuf,
    agent: PathBuf,
}

impl Home {
    fn make() -> Result<Home, Failure> {
        remove_what_the_dead_left();
        let dir = steer::root().join(format!("{NAME_PREFIX}{}", std::process::id()));
        let cannot = |path: &Path| {
            let shown = path.display().to_string();
            move |error: std::io::Error| Failure::job(shown, error)
        };
        fs::create_dir_all(&dir).map_err(cannot(&dir))?;
        // Programs may give up their rights and fork: the agent there comes back to this directory.
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o755));
        let place = [dir.as_path()]
            .into_iter()
            .chain(ELSEWHERE.map(Path::new))
            .find(|place| may_execute(place))
            .unwrap_or(&dir);
        let agent = place.join(format!("{AGENT_PREFIX}{}.so", std::process::id()));
        let home = Home { dir, agent };
        // Never through a link or into a file that somebody else made.
        let _ = fs::remove_file(&home.agent);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&home.agent)
            .map_err(cannot(&home.agent))?;
        file.write_all(AGENT).map_err(cannot(&home.agent))?;
        let _ = file.set_permissions(fs::Permissions::from_mode(0o755));
        Ok(home)
    }

    /// What LD_PRELOAD is to be: ours first, and what was asked for anyway. But for the agent of a supervisor that this one runs
    /// under: it would come to us as well, and its process be counted twice.
    fn preload(&self) -> std::ffi::OsString {
        let mut list = self.agent.clone().into_os_string();
        let others = std::env::var_os("LD_PRELOAD").unwrap_or_default();
        for other in others.as_bytes().split(|byte| matches!(byte, b':' | b' ')) {
            let name = other.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if !other.is_empty() && !name.starts_with(AGENT_PREFIX.as_bytes()) {
                list.push(":");
                list.push(std::ffi::OsStr::from_bytes(other));
            }
        }
        list
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.agent);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The names of all instances of `run` whose supervisor lives. [`swapdev::instances`] has none of them, and is not to: what
/// it names is a device, to be turned off.
pub fn instances() -> Vec<String> {
    let runs = |dir: &Path| match Block::open(&dir.join("control")) {
        Ok(block) => block.is_alive().unwrap_or(true),
        // On its way up or down.
        Err(control::BlockError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => false,
        // Who opens it again is told why.
        Err(_) => true,
    };
    let entries = fs::read_dir(steer::root()).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, dir)| name.starts_with(NAME_PREFIX) && runs(dir))
        .map(|(name, _)| name)
        .collect()
}

/// Directories and agents of supervisors that were killed. Their programs ended with them. A supervisor in another container
/// that shares the directory has no number here, but holds the lock on its control block.
fn remove_what_the_dead_left() {
    let is_dead =
        |pid: &str| pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for entry in entries(&steer::root()) {
        let is_locked =
            || Block::open(&entry.path().join("control")).is_ok_and(|it| it.is_alive().unwrap_or(true));
        let name = entry.file_name();
        if name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX)).is_some_and(is_dead) && !is_locked()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    for entry in ELSEWHERE.into_iter().flat_map(|dir| entries(Path::new(dir))) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(AGENT_PREFIX)?.strip_suffix(".so"));
        if pid.is_some_and(is_dead) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether files there can be mapped for execution; `/run` is mounted without that on many systems.
fn may_execute(place: &Path) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|it| !it.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

fn announce(writer: &Writer, cache: &Zswap, profile: &str, slots: u32, swap: Option<&Swap>) {
    let backing = swap.map(|swap| swap.path.display().to_string()).unwrap_or_default();
    writer.set(&[
        (Fact::Profile, profile),
        (Fact::Via, "userfaultfd"),
        (Fact::Backing, &backing),
        (Fact::Pages, &slots.to_string()),
    ]);
    serve::show_params(writer, cache);
}

/// Shows the pager's figures in the control block.
fn figures_to(writer: &Arc<Writer>) -> pager::Publish {
    let writer = writer.clone();
    // A fact has readers look again, so it is written when it is another.
    let shown = Mutex::new(String::new());
    Box::new(move |counters, accessed_bits| {
        writer.set_own(counters.all());
        // A panic under this lock is impossible, so poison means nothing.
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != accessed_bits {
            accessed_bits.clone_into(&mut shown);
            writer.set(&[(Fact::AccessedBits, accessed_bits)]);
        }
    })
}

/// Answers `uzswap set` for as long as the program runs.
fn answer(instance: &Home, cache: &Arc<Zswap>, writer: &Arc<Writer>) -> Result<(), Failure> {
    let path = instance.dir.join("socket");
    let server = control::serve(&path).map_err(|error| Failure::job(path.display(), error))?;
    let (cache, writer) = (cache.clone(), writer.clone());
    let serving = move || {
        let _ = server.run(|request| {
            ControlFlow::Continue(match request {
                Request::Set { name, value } => serve::set(&cache, &writer, &name, &value),
                Request::Swapoff => {
                    Err((libc::EOPNOTSUPP, "it is a program under uzswap run, and no swap device".to_owned()))
                }
            })
        });
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(serving);
    thread.map(drop).map_err(|error| Failure::job("thread", error))
}

/// Opened before the program starts: a name that cannot be written is an error then.
fn open_stats(path: &Path) -> Result<Option<fs::File>, Failure> {
    if path == Path::new("-") {
        return Ok(None);
    }
    fs::File::create(path)
        .map(Some)
        .map_err(|error| Failure::job(format!("--stats {}", path.display()), error))
}

fn write_stats(file: Option<fs::File>, object: &Value) -> std::io::Result<()> {
    let text = format!("{object:#}\n");
    match file {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => std::io::stdout().write_all(text.as_bytes()),
    }
}

fn figures(cache: &Zswap, pager: &Pager, peaks: pager::Peaks, cap: u64) -> Value {
    let mut object = Map::new();
    cache.publish_gauges();
    for counter in Counter::ALL {
        object.insert(counter.name().into(), cache.stats().get(*counter).into());
    }
    for (name, value) in pager.counters().all() {
        object.insert(name.into(), value.into());
    }
    object.insert("accessed_bits".into(), pager.accessed_bits().into());
    let metadata = cache.stats().get(Counter::MetadataBytes) + pager.metadata_bytes();
    for (name, value) in [
        ("metadata_bytes", metadata),
        ("cap_bytes", cap),
        ("peak_resident_bytes", peaks.resident),
        ("peak_pool_bytes", peaks.pool),
        ("peak_total_bytes", peaks.total),
    ] {
        object.insert(name.into(), value.into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_pager_counts_has_room_in_the_control_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let writer = Arc::new(Writer::new(dir.path()).unwrap());
        writer.publish(&path).unwrap();
        let counters = pager::Counters::default();
        figures_to(&writer)(&counters, "seen");
        let block = Block::open(&path).unwrap();
        let counted: Vec<_> =
            counters.all().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(block.own(), counted);
        assert_eq!(block.fact(Fact::AccessedBits), "seen");
    }
}
