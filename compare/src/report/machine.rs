//! What the figures were measured on, and with which libraries.

use std::fs;
use std::process::Command;

use serde::Deserialize;

/// The dependencies of this build, to the byte.
const LOCK: &str = include_str!("../../../Cargo.lock");
/// Those that do work in what is measured.
const LIBRARIES: [&str; 10] = [
    "lz4-sys",
    "zstd-sys",
    "libdeflate-sys",
    "crc-fast",
    "lz4_flex",
    "lzokay",
    "snap",
    "trueno-zram-core",
    "zlib-rs",
    "fuser",
];

const UNKNOWN: &str = "unknown";

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// A list in Markdown.
pub fn described() -> String {
    let lines = [
        ("machine", machine()),
        ("CPU", field("/proc/cpuinfo", "model name")),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("zswap", zswap()),
        ("transparent huge pages", line("/sys/kernel/mm/transparent_hugepage/enabled")),
        (
            "swap",
            ["swappiness", "page-cluster"]
                .map(|name| format!("{name} {}", line(&format!("/proc/sys/vm/{name}"))))
                .join(", "),
        ),
        ("load average at the start", line("/proc/loadavg")),
        ("libraries", libraries()),
        ("compiler", printed("rustc", &["--version"])),
        ("date", printed("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("command", command()),
    ];
    lines.map(|(name, value)| format!("- {name}: {value}\n")).concat()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    let text = line(path);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.unwrap_or(UNKNOWN).trim().to_owned()
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let dmi = ["sys_vendor", "product_name"].map(|name| line(&format!("/sys/class/dmi/id/{name}")));
    let named = dmi.into_iter().filter(|name| name != UNKNOWN);
    let kind =
        if line("/proc/cpuinfo").contains(" hypervisor ") { "virtual machine" } else { "no virtual machine" };
    named.chain([kind.to_owned(), format!("{cpus} CPUs")]).collect::<Vec<_>>().join(", ")
}

/// What rivals leave as it is. Not every kernel has each of them.
fn zswap() -> String {
    let set = ["max_pool_percent", "shrinker_enabled", "zpool"].map(|name| {
        let value = line(&format!("/sys/module/zswap/parameters/{name}"));
        if value == UNKNOWN { format!("no {name}") } else { format!("{name} {value}") }
    });
    set.join(", ")
}

fn libraries() -> String {
    let lock: Lock = toml::from_str(LOCK).expect("Cargo wrote it");
    let used = lock.package.iter().filter(|package| LIBRARIES.contains(&package.name.as_str()));
    used.map(|package| format!("{} {}", package.name, package.version)).collect::<Vec<_>>().join(", ")
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    output.map_or_else(
        || UNKNOWN.to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The command without directories, which are nobody's business.
fn command() -> String {
    let name = |word: String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let words: Vec<_> = std::env::args().map(name).collect();
    format!("`{}`", words.join(" "))
}
