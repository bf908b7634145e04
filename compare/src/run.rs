//! `uzswap run` against the kernel's zswap, at equal total memory: what the kernel's memory cgroup allows plus what its pool
//! and mapped files take beside that is our cap, and in our cap everything counts.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use undo::Undo;

use crate::Scale;
use crate::corpora::Corpora;
use crate::median;
use crate::report::Report;
use crate::trace::ORDERS;

const ROUNDS: usize = 3;
/// Attempts at a run of the kernel's.
const TRIES: usize = 4;
/// Working set and the kernel's cap, in MiB.
const WORKING_SET: u64 = 256;
const KERNEL_CAP: u64 = 96;
/// No run takes this long.
const LIMIT: Duration = Duration::from_secs(300);

/// The kernel's zswap in front of a swap file on this disk, and a memory cgroup.
pub struct Kernel {
    cgroup: PathBuf,
    _undone: Vec<Undo>,
}

/// Ends what is in a cgroup and removes it.
const REMOVE: &str = r#"xargs -r kill -KILL < "$1/cgroup.procs"; rmdir "$1""#;
/// Turns a swap file off, where it is on, and removes it.
const SWAPOFF: &str = r#"if grep -q "^$1 " /proc/swaps; then swapoff "$1"; fi && rm -f "$1""#;

impl Kernel {
    /// Turns it on.
    pub fn start(compressor: &str) -> Kernel {
        let swap = std::env::temp_dir().join(format!("uzswap-compare-{}.swap", std::process::id()));
        let quiet = |command: &mut Command| {
            let out = command.output().expect("the command runs");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        };
        let text = |path: &Path| path.to_str().expect("a temporary path is ASCII").to_owned();
        let mut undone = vec![Undo::by(&["sh", "-c", SWAPOFF, "sh", &text(&swap)]).expect("a shell")];
        quiet(
            Command::new("dd")
                .args(["if=/dev/zero", "bs=1M", "count=1024"])
                .arg(format!("of={}", swap.display())),
        );
        quiet(Command::new("chmod").arg("600").arg(&swap));
        quiet(Command::new("mkswap").arg(&swap));
        for (name, value) in [("compressor", compressor), ("enabled", "Y")] {
            let path = format!("/sys/module/zswap/parameters/{name}");
            undone.push(Undo::write(path.as_ref(), value).unwrap_or_else(|error| panic!("{path}: {error}")));
        }
        let cgroup = PathBuf::from(format!("/sys/fs/cgroup/memory/uzswap-compare-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup can be made");
        undone.push(Undo::by(&["sh", "-c", REMOVE, "sh", &text(&cgroup)]).expect("a shell"));
        fs::write(cgroup.join("memory.swappiness"), "100").expect("the cgroup takes it");
        quiet(Command::new("swapon").arg(&swap));
        Kernel { cgroup, _undone: undone }
    }

    /// Runs a command under `cap` bytes. Returns what it printed, its seconds, and the peak of what it took beyond the cap, in
    /// bytes: the pool, and mapped pages of files that are not charged to the group, since somebody else read them before.
    pub fn run(&self, cap: u64, command: &mut Command) -> (String, f64, u64) {
        fs::write(self.cgroup.join("memory.limit_in_bytes"), cap.to_string()).expect("the limit can be set");
        let procs =
            std::ffi::CString::new(self.cgroup.join("cgroup.procs").into_os_string().into_encoded_bytes())
                .expect("no zero in it");
        // SAFETY: open, write and close only, of a string made before the fork.
        unsafe {
            command.pre_exec(move || {
                let fd = libc::open(procs.as_ptr(), libc::O_WRONLY);
                let written = libc::write(fd, c"0".as_ptr().cast(), 1);
                libc::close(fd);
                if written == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        timed(command, || kernel_pool() + self.uncharged())
    }
}

impl Kernel {
    /// Bytes of mapped files that the group does not pay for: those of the process with most, as in our own count.
    fn uncharged(&self) -> u64 {
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let members = text(&self.cgroup.join("cgroup.procs"));
        let mapped = members.lines().map(|pid| text(format!("/proc/{pid}/status").as_ref()));
        let most = mapped.map(|status| number(&status, "RssFile:") << 10).max().unwrap_or(0);
        most.saturating_sub(number(&text(&self.cgroup.join("memory.stat")), "mapped_file "))
    }
}

/// Bytes of the kernel's zswap pool.
fn kernel_pool() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Zswap:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Runs a command: its output, its seconds, and the largest value that `sample` had meanwhile.
pub fn timed(command: &mut Command, sample: impl Fn() -> u64) -> (String, f64, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut peak = 0;
    let mut ended = None;
    while begun.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            ended = Some(status);
            break;
        }
        peak = peak.max(sample());
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} did not end in {LIMIT:?}");
    };
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        let _ = out.read_to_string(&mut text);
    }
    if !status.success() {
        println!("{command:?}: {status}");
        text.clear();
    }
    (text, seconds, peak)
}

fn uzswap() -> PathBuf {
    std::env::current_exe().expect("we run").with_file_name("uzswap")
}

/// `uzswap run` of this build, under `cap` bytes.
pub fn ours(cap: u64, program: &Path, args: &[String]) -> (String, f64, f64) {
    let stats = std::env::temp_dir().join(format!("uzswap-compare-{}.json", std::process::id()));
    let mut command = Command::new(uzswap());
    command
        .args(["run", "--memory", &cap.to_string(), "--stats"])
        .arg(&stats)
        .arg("--")
        .arg(program)
        .args(args);
    let (text, seconds, _) = timed(&mut command, || 0);
    let object = fs::read_to_string(&stats).unwrap_or_default();
    let _ = fs::remove_file(&stats);
    let peak = object
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"peak_total_bytes\": "))
        .and_then(|value| value.trim_end_matches(',').parse::<u64>().ok())
        .unwrap_or(0);
    (text, seconds, peak as f64 / cap as f64)
}

/// What the program printed; `None`: it was killed.
fn per_touch(text: &str) -> Option<f64> {
    text.split(' ').next().and_then(|number| number.parse().ok())
}

/// Measures it on the pages of all corpora.
pub fn run(report: &mut Report, corpora: &Corpora, scale: Scale) {
    report.section("uzswap run, orders of access");
    if let Some(reason) = missing() {
        return report.skip("run", reason);
    }
    let file = corpora.mixed();
    let file = file.to_str().expect("a name of files is text");
    let (rounds, working_set, kernel_cap) =
        (scale.of(ROUNDS, 1), scale.of(WORKING_SET, 24), scale.of(KERNEL_CAP, 12));
    let this = std::env::current_exe().expect("we run");
    // In the page cache, charged to us and not to the program.
    let _ = fs::read(file).expect("the file of pages can be read");
    let kernel = Kernel::start("lzo");
    report.say(format!(
        "Working set {working_set} MiB, kernel's cap {kernel_cap} MiB + its pool and files = ours; {rounds} rounds in turn; load {}",
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    ));
    report.table(&[
        "order",
        "kernel ns",
        "uzswap ns",
        "ratio",
        "each round",
        "peak of ours / cap",
        "cap MiB",
    ]);
    for order in ORDERS.into_iter().chain(["first-touch"]) {
        let touches = scale.of(if order == "sequential" { 200_000 } else { 400_000 }, 8000);
        let args: Vec<String> = ["touch", order, &working_set.to_string(), &touches.to_string(), file]
            .map(str::to_owned)
            .to_vec();
        let (mut theirs, mut own, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut peaks, mut caps) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // The kernel may kill it for want of memory although there is swap; tried again, it lets it live.
            let mut tries = (0..TRIES)
                .map(|_| kernel.run(kernel_cap << 20, Command::new(&this).args(&args)))
                .filter_map(|(text, _, beyond)| Some((per_touch(&text)?, beyond)));
            let Some((kernel_ns, pool)) = tries.next() else { continue };
            let (text, _, peak) = ours((kernel_cap << 20) + pool, &this, &args);
            let Some(our_ns) = per_touch(&text) else { continue };
            theirs.push(kernel_ns);
            own.push(our_ns);
            ratios.push(our_ns / kernel_ns);
            peaks.push(peak);
            caps.push(((kernel_cap << 20) + pool) as f64 / f64::from(1 << 20));
        }
        if ratios.is_empty() {
            report.row([order, "-", "-", "-", "no round ended for both", "-", "-"].map(str::to_owned));
            continue;
        }
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        report.row([
            order.to_owned(),
            format!("{:.0}", median(theirs).0),
            format!("{:.0}", median(own).0),
            format!("{:.2}", median(ratios).0),
            each.join(" "),
            format!("{:.3}", median(peaks).2),
            format!("{:.0}", median(caps).0),
        ]);
    }
    report.bars("run", &["kernel ns", "uzswap ns"]);
}

/// What a comparison with the kernel's zswap needs and is not here.
pub fn missing() -> Option<&'static str> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("only root may turn swap on");
    }
    if !Path::new("/sys/module/zswap/parameters/enabled").exists() {
        return Some("the kernel has no zswap");
    }
    if !Path::new("/sys/fs/cgroup/memory").exists() {
        return Some("no memory cgroup of version 1");
    }
    (!uzswap().exists()).then_some("the command uzswap is not built beside this one")
}
