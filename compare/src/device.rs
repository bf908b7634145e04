//! The swap device against nbdkit's memory plugin with zstd, exported by nbdfuse, under a loop device: the nearest thing
//! that packages give. The same real pages are written and read through O_DIRECT on both block devices in turn.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use swapdev::{Attach, Errno, PageStore, Transport, Via};
use undo::Undo;
use zswap::{Keep, Options, PAGE_SIZE, Page, Profile, SwapEntry, Zswap};

use crate::Scale;
use crate::corpora::Corpora;
use crate::figures::{Spread, median};
use crate::report::Report;

const PAGES: usize = 16384;
/// Pages of the largest request.
const LARGEST: usize = 64;
/// Our compressors: the default of machines that cannot have `weft`, and the rival's.
const OURS: [&str; 2] = ["lz4", "zstd"];

/// The cache as a page store. The command's own adapter is in a program, which nobody can depend on, and does more: it
/// refuses what is outside of the device and flushes to a swap file. Here nothing asks for either.
struct Store(Zswap);

fn entry(page: u64) -> SwapEntry {
    SwapEntry { swap_type: 0, offset: u32::try_from(page).unwrap_or(u32::MAX) }
}

impl PageStore for Store {
    fn pages(&self) -> u64 {
        PAGES as u64
    }
    fn thread_start(&self) {
        self.0.warm_up();
    }
    fn read(&self, page: u64, out: &mut Page) -> Result<(), Errno> {
        match self.0.load(entry(page), out, Keep::Always) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                out.fill(0);
                Ok(())
            }
            Err(_) => Err(Errno::IO),
        }
    }
    fn write(&self, page: u64, data: &Page) -> Result<(), Errno> {
        self.0.swap_out(entry(page), data).map(|_| ()).map_err(|_| Errno::IO)
    }
    fn discard(&self, first: u64, count: u64) -> Result<(), Errno> {
        self.0.invalidate_range(entry(first), u32::try_from(count).unwrap_or(u32::MAX));
        Ok(())
    }
    fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }
}

#[repr(C, align(4096))]
struct Aligned([Page; LARGEST]);

/// Microseconds a page.
struct Took {
    write: f64,
    read: f64,
}

/// Writes all pages and reads them, `at_once` a request. The content is checked.
fn drive(device: &Path, pages: &[Page], at_once: usize) -> Took {
    let open = || File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(device);
    let file = open().unwrap_or_else(|error| panic!("{}: {error}", device.display()));
    let mut buffer = Box::new(Aligned([[0; PAGE_SIZE]; LARGEST]));
    let buffer = &mut buffer.0[..at_once];
    let requests = || pages.chunks_exact(at_once).zip((0u64..).step_by(at_once * PAGE_SIZE));
    let a_page = |begun: Instant| begun.elapsed().as_micros() as f64 / pages.len() as f64;
    let begun = Instant::now();
    for (chunk, at) in requests() {
        buffer.copy_from_slice(chunk);
        file.write_all_at(buffer.as_flattened(), at).expect("the device takes writes");
    }
    let write = a_page(begun);
    let begun = Instant::now();
    for (chunk, at) in requests() {
        file.read_exact_at(buffer.as_flattened_mut(), at).expect("the device gives reads");
        assert!(buffer == chunk, "{}: wrong content at byte {at}", device.display());
    }
    Took { write, read: a_page(begun) }
}

/// nbdkit, nbdfuse and a loop device.
struct Rival {
    loop_device: PathBuf,
    nbdkit: Child,
    nbdfuse: Child,
    down: Option<Undo>,
}

/// Takes down what there is in the directory of a rival: the loop device, the mount, and the files.
const DOWN: &str = r#"
for node in $(losetup --noheadings --output NAME --associated "$1/disk"); do losetup --detach "$node"; done
if grep -q " $1/disk " /proc/mounts; then umount "$1/disk"; fi && rm -rf "$1""#;

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Rival {
    fn start() -> Option<Rival> {
        let dir = tempfile::tempdir().ok()?.keep();
        let down = Undo::by(&["sh", "-c", DOWN, "sh", dir.to_str()?]).ok()?;
        let (socket, disk) = (dir.join("socket"), dir.join("disk"));
        std::fs::write(&disk, "").ok()?;
        let size = format!("{}", PAGES * PAGE_SIZE);
        let nbdkit = Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--threads", "2", "--unix"])
            .arg(&socket)
            .args(["memory", &size, "allocator=zstd"])
            .spawn()
            .ok()?;
        wait_for(|| socket.exists());
        let nbdfuse = Command::new("nbdfuse").arg(&disk).arg("--unix").arg(&socket).spawn().ok()?;
        wait_for(|| std::fs::metadata(&disk).is_ok_and(|disk| disk.len() == (PAGES * PAGE_SIZE) as u64));
        let disk = disk.to_str()?;
        let node = output("losetup", &["--find", "--show", "--direct-io=on", "--sector-size", "4096", disk]);
        Some(Rival { loop_device: node.unwrap_or_default().into(), nbdkit, nbdfuse, down: Some(down) })
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // The last request is served before its server ends.
        drop(self.down.take());
        for child in [&mut self.nbdfuse, &mut self.nbdkit] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A device of ours.
fn ours(compressor: &str) -> Box<dyn Transport> {
    let mut options = Options::new(Profile::named("default").expect("there is a default profile"));
    options.params = vec![("compressor".into(), compressor.into())];
    let cache = Zswap::new(options).expect("the options are valid");
    cache.swapon(0, u32::try_from(PAGES).expect("few pages"), None).expect("the type is off");
    let attach = Attach {
        store: Arc::new(Store(cache)),
        threads: NonZeroUsize::MIN.saturating_add(1),
        label: "uzswap:compare",
        record: &mut |_| Ok(()),
    };
    Via::Fuse.attach(attach).unwrap_or_else(|error| panic!("uzswap's device: {error}"))
}

/// At most `most` pages of all files, as many as make requests of the largest size.
fn whole_requests(corpora: &Corpora, most: usize) -> Vec<Page> {
    let most = most / corpora.files().len();
    let mut pages: Vec<Page> = corpora.pages().flat_map(|pages| pages.into_iter().take(most)).collect();
    pages.truncate(pages.len() / LARGEST * LARGEST);
    assert!(!pages.is_empty(), "{LARGEST} pages that are not same-filled are a request");
    pages
}

/// Measures both.
pub fn run(report: &mut Report, corpora: &Corpora, scale: Scale) {
    report.section("The swap device");
    let pages = whole_requests(corpora, scale.of(PAGES, 1024));
    let Some(rival) = Rival::start().filter(|rival| rival.loop_device.exists()) else {
        report.skip("device", "it needs root and the packages nbdkit and nbdfuse");
        return;
    };
    let devices = OURS.map(|codec| (codec, ours(codec)));
    let rounds = scale.of(5, 1);
    report.say(format!(
        "uzswap ({}) and nbdkit (memory, zstd) with nbdfuse and a loop device: {} pages a round, {rounds} rounds in turn, \
         O_DIRECT, one request at a time; microseconds a page, and the ratio of write and read together. A row names uzswap's \
         compressor and nbdkit's.",
        OURS.join("; "),
        pages.len(),
    ));
    report.table(&[
        "request",
        "uzswap write us",
        "uzswap read us",
        "nbdkit write us",
        "nbdkit read us",
        "ratio (goal 0.40)",
    ]);
    for at_once in [1, 8, LARGEST] {
        let mut own: [Vec<Took>; OURS.len()] = Default::default();
        let mut theirs = Vec::new();
        for _ in 0..rounds {
            for (own, (_, device)) in own.iter_mut().zip(&devices) {
                own.push(drive(device.path(), &pages, at_once));
            }
            theirs.push(drive(&rival.loop_device, &pages, at_once));
        }
        for (own, (codec, _)) in own.iter().zip(&devices) {
            row(report, format!("{} KiB, {codec} / zstd", at_once * 4), own, &theirs);
        }
    }
    report.bars("device", &["uzswap write us", "uzswap read us", "nbdkit write us", "nbdkit read us"]);
    for (_, device) in devices {
        if let Err(error) = device.detach() {
            report.say(format!("uzswap's device: {error}"));
        }
    }
}

fn row(report: &mut Report, name: String, own: &[Took], theirs: &[Took]) {
    let middle =
        |rounds: &[Took], of: fn(&Took) -> f64| format!("{:.2}", median(rounds.iter().map(of).collect()).0);
    let ratios =
        own.iter().zip(theirs).map(|(own, other)| (own.write + own.read) / (other.write + other.read));
    report.row([
        name,
        middle(own, |took| took.write),
        middle(own, |took| took.read),
        middle(theirs, |took| took.write),
        middle(theirs, |took| took.read),
        format!("{:.3}", Spread(ratios.collect())),
    ]);
}
