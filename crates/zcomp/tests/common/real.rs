//! Pages of ordinary programs at work: their heaps, as a kernel would swap them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use undo::need::skip;
use zcomp::{PAGE_SIZE, Page};

/// Each builds what such programs hold, says so, and waits for the end of its input.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "perl",
        "$| = 1; my %rows; for my $i (1..20000) { $rows{\"key$i\"} = [$i, \"value $i\", $i * 1.5]; } \
         my $text = join(',', sort keys %rows); print \"built\\n\"; <STDIN>;",
    ),
    (
        "python3",
        "import random\nrandom.seed(7)\nrows = [{'id': i, 'name': 'name %d' % i, 'x': random.random()} for i in range(20000)]\n\
         text = repr(rows).encode()\nprint('built', flush=True)\ninput()",
    ),
];

/// About `count` pages of each program that is here. Where none is, it has been said.
pub fn pages(count: usize) -> Vec<(String, Page)> {
    let mut pages = Vec::new();
    for (program, script) in PROGRAMS {
        match memory(program, script) {
            Ok(all) => {
                let step = all.len().div_ceil(count).max(1);
                let named = all.into_iter().enumerate().step_by(step);
                pages.extend(named.map(|(at, page)| (format!("{program} {at}"), page)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("no pages of {program}: it is not installed");
            }
            Err(error) => panic!("{program}: {error}"),
        }
    }
    if pages.is_empty() {
        skip("pages of real programs", "neither perl nor python3 is installed");
    }
    pages
}

/// Kills it: it waits for us, and for nobody else.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The pages of a program that are not same-filled, when it has built what it builds.
fn memory(program: &str, script: &str) -> io::Result<Vec<Page>> {
    let mut command = Command::new(program);
    // With no environment but this, and at the same addresses, every run sees much the same pages.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("PYTHONHASHSEED", "0").env("PERL_HASH_SEED", "0");
    command.args([if program == "perl" { "-e" } else { "-c" }, script]);
    // SAFETY: one system call, on numbers. Where it is refused, addresses differ from run to run.
    unsafe {
        command.pre_exec(|| {
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            Ok(())
        });
    }
    let mut child = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    if let Some(out) = child.0.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    assert_eq!(line, "built\n", "{program}");
    let process = format!("/proc/{}", child.0.id());
    let maps = fs::read_to_string(format!("{process}/maps"))?;
    let memory = File::open(format!("{process}/mem"))?;
    let mut pages = Vec::new();
    for address in maps.lines().filter_map(heap).flat_map(|range| range.step_by(PAGE_SIZE)) {
        let mut page = [0; PAGE_SIZE];
        memory.read_exact_at(&mut page, address)?;
        if page[8..] != page[..PAGE_SIZE - 8] {
            pages.push(page);
        }
    }
    assert!(pages.len() > 500, "{program}: only {} pages", pages.len());
    Ok(pages)
}

/// Where a line of `/proc/PID/maps` says that memory is that may be written and is of no file.
fn heap(line: &str) -> Option<std::ops::Range<u64>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (start, end) = fields[0].split_once('-')?;
    let address = |hex| u64::from_str_radix(hex, 16).ok();
    let anonymous = matches!(fields[5..], [] | ["[heap]"]);
    (anonymous && fields[1].starts_with("rw")).then_some(address(start)?..address(end)?)
}
