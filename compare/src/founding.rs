//! The comparison that zswap began with, in 2012: a parallel build in too little memory, with a swap disk alone and with
//! compressed memory before it. Here the disk is one of 3000 requests a second instead of a hard disk, the build that of
//! zstd's library, and what is set before the disk is `uzswap run --swap`, at equal total memory.
//!
//! The posting counted as I/O the pages swapped and all major faults, those served from compressed memory included. That is
//! one of the definitions here; the other counts what the disk did.

mod throttled;

use crate::duel::MEASURES;
use crate::measure::{Load, Tries, failures, measured, unlimited};
use crate::proc::Traffic;
use crate::report::Report;
use crate::rival::Rival;
use crate::{Scale, duel, ours};
use throttled::{BYTES, REQUESTS, Throttled};

/// MiB for the build with the disk alone: from half of what it takes with room (650) down to where the disk's speed decides.
const CAPS: [u64; 6] = [320, 256, 192, 128, 96, 80];
/// The same where only four sources are compiled; with room it takes about 90.
const QUICK_CAPS: [u64; 1] = [48];

/// What stands for SOURCES in [`BUILD`].
const SOURCES: &str = "$from/common/*.c $from/compress/*.c $from/decompress/*.c $from/dictBuilder/*.c";
const QUICK_SOURCES: &str = "$from/dictBuilder/*.c";
/// Eight compilers at a time, the largest sources first; the sources are those that Cargo has unpacked to build us.
const BUILD: &str = r#"
from=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/zstd-sys-*/zstd/lib | head -n 1) && d=$(mktemp -d) || exit 1
trap 'rm -rf $d' EXIT
cd $d && ls -S SOURCES |
xargs -P 8 -I{} sh -c 'exec gcc -O2 -DZSTD_DISABLE_ASM -c {} -o $(basename {}).o' && cat *.o | md5sum"#;

const COLUMNS: [&str; 12] = [
    "cap MiB",
    "disk alone s",
    "uzswap s",
    "cut",
    "pages swapped",
    "cut",
    "with major faults",
    "cut",
    "requests",
    "cut",
    "processor s",
    "peak MiB (ours charged)",
];

/// What was published, with 24 compilers in 512 MB.
const PUBLISHED: [&str; 12] =
    ["2012: 512", "570", "267", "53 %", "453359 / 26203", "94 %", "558601 / 135512", "76 %", "", "", "", ""];

/// How much less the second is, in percent.
fn cut(one: f64, other: f64) -> String {
    if one > 0.0 { format!("{:.0} %", 100.0 * (1.0 - other / one)) } else { "-".to_owned() }
}

/// Compares, one run of each for each cap.
pub fn run(report: &mut Report, scale: Scale) {
    report.section("A parallel build with a swap disk");
    if let Err(why) = duel::ready().and_then(|()| measure(report, scale)) {
        report.skip("founding", why);
    }
}

fn measure(report: &mut Report, scale: Scale) -> Result<(), String> {
    let disk = Throttled::start(scale)?;
    let load = Load::script(&BUILD.replace("SOURCES", scale.of(SOURCES, QUICK_SOURCES)));
    let alone = measured(&mut load.command(), &unlimited(), None, |_| 0)
        .ok_or("the build does not run here: it needs gcc and the sources of zstd-sys in Cargo's registry")?;
    report.say(format!(
        "The comparison that zswap began with: with a swap disk alone, and with uzswap run --swap on the same disk. With room \
         for everything, without swap: {:.1} s.\n\n\
         - a / b: the disk alone / uzswap. Goals: time cut by 60 %, I/O by 85 %\n\
         - in the cap's column: tries of each side that did not end well\n\
         - {MEASURES}\n\
         - the disk: {REQUESTS} requests and {} MB a second in each direction; seen before: {:.0} and {:.0} MB",
        alone.seconds,
        BYTES / 1_000_000,
        disk.seen.0,
        disk.seen.1 / 1e6
    ));
    report.table(&COLUMNS);
    report.row(PUBLISHED.map(str::to_owned));
    for &cap in scale.of(&CAPS[..], &QUICK_CAPS) {
        let row = at(cap, &disk, &load, &alone.text)?;
        report.cells(row);
    }
    Ok(())
}

/// The row of a cap in MiB.
fn at(cap: u64, disk: &Throttled, load: &Load<'_>, prints: &str) -> Result<Vec<String>, String> {
    let (mut their_tries, mut own_tries) = (Tries::default(), Tries::default());
    let started = Rival::Disk.start(disk.dir())?;
    let theirs = started.run(cap << 20, load, &mut their_tries);
    drop(started);
    let name = |own_tries| match failures(their_tries, own_tries) {
        Some(failures) => format!("{cap} ({failures})"),
        None => cap.to_string(),
    };
    let Some(theirs) = theirs else {
        return Ok(vec![name(own_tries), "no end".to_owned()]);
    };
    let before = Traffic::of(&disk.stat);
    let own =
        ours::run((cap << 20) + theirs.beyond, Some(&disk.dir().join("uzswap.swap")), load, &mut own_tries);
    let traffic = Traffic::of(&disk.stat).since(before);
    let mut row = vec![name(own_tries), format!("{:.1}", theirs.ran.seconds)];
    let Some(own) = own else {
        row.push("no end".to_owned());
        return Ok(row);
    };
    assert!([&theirs.ran.text, &own.ran.text].iter().all(|text| *text == prints), "another result");
    row.extend([format!("{:.1}", own.ran.seconds), cut(theirs.ran.seconds, own.ran.seconds)]);
    let pages = [theirs.traffic.bytes / 4096, traffic.bytes / 4096];
    let faults = [theirs.ran.major_faults, own.ran.major_faults + own.faults];
    let requests = [theirs.traffic.requests, traffic.requests];
    for [one, other] in [pages, [pages[0] + faults[0], pages[1] + faults[1]], requests] {
        row.extend([format!("{one} / {other}"), cut(one as f64, other as f64)]);
    }
    row.push(format!("{:.1} / {:.1}", theirs.ran.processor, own.ran.processor));
    row.push(format!("{} / {} ({})", theirs.ran.peak >> 20, own.ran.peak >> 20, own.charged >> 20));
    Ok(row)
}
