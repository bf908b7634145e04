//! The demonstration: `cargo xtask demo`.
//!
//! As root it makes a swap device, lets the kernel swap a program onto it that may keep only a quarter of its memory, checks
//! every page, and prints what was saved. Without root, FUSE or loop devices it runs the same engine inside this process,
//! on its own pages. Ctrl-C at any time cleans up.

use std::io;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use tests::content::{PAGE, Source};
use tests::hog::{Answer, Hog};
use tests::instance::{DRAIN, Uzswap};
use tests::{need, programs};
use undo::Undo;
use zswap::{Counter, Keep, Options, Profile, SwapEntry, Zswap};

/// Memory the program touches, and what it may keep.
const TOUCHED_MIB: u64 = 256;
const KEPT_MIB: u64 = TOUCHED_MIB / 4;
/// How long one pass over the memory may take before the demonstration gives up.
const PASS: Duration = Duration::from_secs(300);
/// Memory that the demonstration without root fills.
const OWN_MIB: usize = 64;

/// Memory and what it takes, same-filled pages apart: they cost next to nothing and would flatter any ratio.
struct Saved {
    pages: u64,
    same_filled: u64,
    pool: u64,
    metadata: u64,
}

impl Saved {
    fn print(&self) {
        let original = self.pages.saturating_sub(self.same_filled) * PAGE as u64;
        let memory = self.pool + self.metadata;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "  pages stored    {:>9}   ({} more are same-filled)",
            self.pages - self.same_filled,
            self.same_filled
        );
        println!("  original        {:>9.1} MiB", mib(original));
        println!(
            "  memory taken    {:>9.1} MiB (pool {:.1} + metadata {:.1})",
            mib(memory),
            mib(self.pool),
            mib(self.metadata)
        );
        if memory > 0 {
            println!(
                "  ratio           {:>9.2}   (original / memory taken, same-filled pages left out)",
                original as f64 / memory as f64
            );
        }
    }
}

fn main() -> ExitCode {
    // Where it stays on for want of a right, what follows says so.
    let zswap = Undo::kernel_zswap_off().ok().flatten();
    if zswap.is_some() {
        println!("the kernel's own zswap takes pages before they come here: it is turned off meanwhile");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let handled = [SIGINT, SIGTERM].map(|signal| signal_hook::flag::register(signal, stop.clone()));
    let done = match (handled.into_iter().find_map(Result::err), need::missing_for_swap()) {
        (Some(error), _) => Err(error),
        (None, None) => by_the_kernel(&stop),
        (None, Some(missing)) => within(&stop, missing),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if stop.load(Relaxed) => {
            eprintln!("demo: stopped, cleaned up ({error})");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn go_on(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Waits for an answer of the hog in steps, so that Ctrl-C is heard. The pages that were right.
fn heard(hog: &mut Hog, stop: &AtomicBool) -> io::Result<u64> {
    let start = Instant::now();
    loop {
        go_on(stop)?;
        match hog.answer(Duration::from_millis(200)) {
            Answer::Right(pages, _) => return Ok(pages),
            Answer::Wrong(line) => return Err(io::Error::new(io::ErrorKind::InvalidData, line)),
            Answer::Gone => return Err(io::Error::other("the program died")),
            Answer::Late if start.elapsed() > PASS => return Err(io::ErrorKind::TimedOut.into()),
            Answer::Late => {}
        }
    }
}

fn by_the_kernel(stop: &AtomicBool) -> io::Result<()> {
    let uzswap = Uzswap::new(&programs::sibling("uzswap"))?;
    let name = format!("demo-{}", std::process::id());
    let device = uzswap.done(&["swapon", "--size", "512M", "--name", &name], DRAIN)?;
    println!("uzswap swapon: the kernel swaps to {device}");
    // Dropped, in this order, on every way out: the program with its cgroup, then the device.
    let mut hog = Hog::start(&programs::sibling("hog"), TOUCHED_MIB, KEPT_MIB)?;
    println!(
        "a program fills {TOUCHED_MIB} MiB with code, data and symbols of its own; it may keep {KEPT_MIB} MiB in RAM"
    );
    let pages = heard(&mut hog, stop)?;
    for pass in 1..=2 {
        let start = Instant::now();
        hog.tell("check");
        heard(&mut hog, stop)?;
        println!("pass {pass}: all {pages} pages are right ({:.1} s)", start.elapsed().as_secs_f64());
    }
    let status = uzswap.status(&name)?;
    let number = |key: &str| status.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    if number("zswpout") == 0 {
        return Err(io::Error::other(
            "the kernel has not swapped to the device; is there other swap of a higher priority?",
        ));
    }
    println!(
        "the kernel has swapped {} pages out and {} in; now on {device}:",
        number("zswpout"),
        number("zswpin")
    );
    Saved {
        pages: number("stored_pages"),
        same_filled: number("same_filled_pages"),
        pool: number("pool_total_size"),
        metadata: number("metadata_bytes"),
    }
    .print();
    drop(hog);
    uzswap.done(&["swapoff", &name], DRAIN)?;
    println!("uzswap swapoff: the device is gone, nothing is left behind");
    Ok(())
}

/// A run of this process's own pages.
struct Range {
    first: u64,
    end: u64,
}

/// The private, anonymous memory of this process that it may read: heap, stacks and the like.
fn own_memory() -> io::Result<Vec<Range>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let (first, end) = fields.next()?.split_once('-')?;
        let private = fields.next()?.starts_with("rw-p");
        let anonymous = fields.nth(2)? == "0";
        let parse = |hex| u64::from_str_radix(hex, 16).ok();
        Some(Range { first: parse(first)?, end: parse(end)? }).filter(|_| private && anonymous)
    };
    Ok(maps.lines().filter_map(range).collect())
}

fn within(stop: &AtomicBool, missing: &str) -> io::Result<()> {
    println!("{missing}: running the engine inside this process, on its own pages.");
    println!("As root, with FUSE and loop devices, the kernel itself would swap another program to it.");
    let source = Source::own_program()?;
    let mut filled = vec![[0; PAGE]; (OWN_MIB << 20) / PAGE];
    filled.iter_mut().enumerate().for_each(|(number, page)| source.fill(number, 0, page));
    // Before the engine: its pool is not its own input.
    let ranges = own_memory()?;
    let profile = Profile::named("default").ok_or_else(|| io::Error::other("no default profile"))?;
    let cache = Zswap::new(Options::new(profile)).map_err(|error| io::Error::other(error.to_string()))?;
    let total: u64 = ranges.iter().map(|range| (range.end - range.first) / PAGE as u64).sum();
    let slots = u32::try_from(total).map_err(io::Error::other)?;
    cache.swapon(0, slots, None).map_err(|error| io::Error::other(format!("{error:?}")))?;

    // Pages change while they are read, those of the stack at least: what was stored is what was copied.
    let memory = std::fs::File::open("/proc/self/mem")?;
    let mut copies = Vec::new();
    for address in ranges.iter().flat_map(|range| (range.first..range.end).step_by(PAGE)) {
        go_on(stop)?;
        let mut page = [0; PAGE];
        // Guard pages and pages of the kernel's cannot be read.
        if memory.read_exact_at(&mut page, address).is_err() {
            continue;
        }
        let offset = u32::try_from(copies.len()).map_err(io::Error::other)?;
        cache
            .swap_out(SwapEntry { swap_type: 0, offset }, &page)
            .map_err(|error| io::Error::other(error.to_string()))?;
        copies.push(page);
    }
    println!("stored {} pages:", copies.len());
    let (pages, same_filled) = (cache.counter(Counter::StoredPages), cache.counter(Counter::SameFilledPages));
    let (pool, metadata) = (cache.counter(Counter::PoolTotalSize), cache.counter(Counter::MetadataBytes));
    Saved { pages, same_filled, pool, metadata }.print();
    for (offset, copy) in (0..).zip(&copies) {
        go_on(stop)?;
        let mut page = [0; PAGE];
        let found = cache.load(SwapEntry { swap_type: 0, offset }, &mut page, Keep::AsConfigured);
        match found {
            Ok(Some(_)) if page == *copy => {}
            found => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("page {offset} is wrong: {found:?}"),
                ));
            }
        }
    }
    println!("loaded all {} pages back: every byte is right", copies.len());
    Ok(())
}
