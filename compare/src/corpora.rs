//! Pages to measure with: files of raw 4096-byte pages, one corpus each, given or made.
//!
//! Made ones are the memory of ordinary programs at work, started here with fixed seeds and an empty environment
//! ([`programs`]). Their present anonymous pages, as /proc/PID/pagemap has them, are what a kernel would swap. They are
//! removed again and never kept: nobody knows what a memory holds.

mod programs;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use procfs::process::{MMPermissions, MMapPath, MemoryPageFlags, PageInfo, Process};
use undo::Undo;
use zswap::{PAGE_SIZE, Page};

use crate::Scale;
use crate::report::Report;
use programs::Program;

/// Pages of a corpus that is made.
const PAGES: usize = 20_000;
const QUICK_PAGES: usize = 512;
/// Neighbours that stay together where not all pages of a program are taken.
const RUN: usize = 64;

/// Files of pages.
pub struct Corpora {
    files: Vec<PathBuf>,
    /// Programs that are not here, and why.
    missing: Vec<(&'static str, String)>,
    /// For what is made on the way; goes when this does.
    directory: PathBuf,
    _removed: Undo,
}

/// The pages of a file.
pub struct Corpus {
    /// What the file is called.
    pub name: String,
    /// Those that are not same-filled.
    pub pages: Vec<Page>,
    /// How many are.
    pub same_filled: usize,
}

impl Corpora {
    /// These files, or where there are none, the memory of programs.
    pub fn given_or_made(files: &[PathBuf], scale: Scale) -> Corpora {
        let directory = tempfile::tempdir().expect("a directory").keep();
        let name = directory.to_str().expect("a temporary path is ASCII");
        let removed = Undo::by(&["rm", "-rf", name]).expect("a shell");
        let mut corpora =
            Corpora { files: files.to_vec(), missing: Vec::new(), directory, _removed: removed };
        if files.is_empty() {
            corpora.make(scale);
        }
        corpora
    }

    fn make(&mut self, scale: Scale) {
        for program in programs::ALL {
            let file = self.directory.join(format!("{}.pages", program.corpus));
            eprintln!("corpus of {}: {}", program.command, program.corpus);
            match memory_of(&program, &self.directory, &file, scale) {
                Ok(()) => self.files.push(file),
                Err(error) => self.missing.push((program.corpus, format!("{}: {error}", program.command))),
            }
        }
        assert!(!self.files.is_empty(), "none of the programs gave pages: give files of them");
    }

    /// Paths of the files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The pages of each file that are not same-filled.
    pub fn pages(&self) -> impl Iterator<Item = Vec<Page>> {
        self.files.iter().map(|file| pages_of(file).0)
    }

    /// One file with pages of all of them that are not same-filled, in runs of neighbours.
    pub fn mixed(&self) -> PathBuf {
        let path = self.directory.join("mixed");
        let mut mixed = File::create(&path).expect("the directory is ours");
        let contents: Vec<_> = self.pages().collect();
        let mut runs: Vec<_> = contents.iter().map(|pages| pages.chunks(RUN)).collect();
        // As many of each: the smallest has the say.
        loop {
            let round: Vec<&[Page]> = runs.iter_mut().map_while(Iterator::next).collect();
            if round.len() < runs.len() {
                return path;
            }
            mixed.write_all(round.concat().as_flattened()).expect("there is room for pages");
        }
    }

    /// The pages of each file, at most `most` of them evenly spread, and a table of what there is.
    pub fn read(&self, report: &mut Report, most: usize) -> Vec<Corpus> {
        for (corpus, why) in &self.missing {
            report.skip(&format!("corpus {corpus}"), why);
        }
        let corpora: Vec<_> = self.files.iter().map(|file| Corpus::read(file, most)).collect();
        report.table(&["corpus", "same-filled, left out", "measured"]);
        for corpus in &corpora {
            report.row([corpus.name.clone(), corpus.same_filled.to_string(), corpus.pages.len().to_string()]);
        }
        corpora
    }
}

impl Corpus {
    fn read(file: &Path, most: usize) -> Corpus {
        let (pages, same_filled) = pages_of(file);
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let step = pages.len().div_ceil(most);
        Corpus { name, pages: pages.into_iter().step_by(step).collect(), same_filled }
    }
}

/// Whether all words of a page are the same.
pub fn is_same_filled(page: &Page) -> bool {
    page[8..] == page[..PAGE_SIZE - 8]
}

/// The pages of a file that are not same-filled, and how many are.
fn pages_of(file: &Path) -> (Vec<Page>, usize) {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (all, _) = bytes.as_chunks::<PAGE_SIZE>();
    let pages: Vec<Page> = all.iter().filter(|page| !is_same_filled(page)).copied().collect();
    assert!(!pages.is_empty(), "{}: no page that is not same-filled", file.display());
    let same_filled = all.len() - pages.len();
    (pages, same_filled)
}

/// Starts a program, waits until it has built what it builds, and writes its pages to `file`.
fn memory_of(program: &Program, directory: &Path, file: &Path, scale: Scale) -> io::Result<()> {
    let script = directory.join(program.script_name);
    let source = program.script.replace("COUNT", &scale.of(program.count, program.count / 40).to_string());
    fs::write(&script, source)?;
    let mut child = Command::new(program.command)
        .args(program.args)
        .arg(&script)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It waits for the end of its input then, which comes when we end, however that is.
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let copied = if line.trim() == "ready" {
        let most = scale.of(PAGES, QUICK_PAGES);
        Process::new(child.id() as i32).map_err(io::Error::other).and_then(|it| copy(&it, file, most))
    } else {
        Err(io::Error::other("it did not get ready"))
    };
    let _ = child.kill();
    child.wait()?;
    copied
}

/// Writes the present anonymous pages of a process to `file`: `most` of them, evenly spread in runs of neighbours.
fn copy(process: &Process, file: &Path, most: usize) -> io::Result<()> {
    let addresses = anonymous(process).map_err(io::Error::other)?;
    let memory = process.mem().map_err(io::Error::other)?;
    let mut to = io::BufWriter::new(File::create(file)?);
    let step = addresses.len().div_ceil(most).max(1);
    for run in addresses.chunks(RUN).step_by(step) {
        for &address in run {
            let mut page = [0; PAGE_SIZE];
            // A page that went between the two looks is no page of it.
            if memory.read_exact_at(&mut page, address).is_ok() {
                to.write_all(&page)?;
            }
        }
    }
    to.flush()
}

/// Where private anonymous pages are present, stacks left out.
fn anonymous(process: &Process) -> procfs::ProcResult<Vec<u64>> {
    let mut pagemap = process.pagemap()?;
    let mut addresses = Vec::new();
    for map in process.maps()? {
        let private = map.perms.contains(MMPermissions::READ | MMPermissions::PRIVATE);
        // The last one: memory that has been given a name.
        let anonymous = match &map.pathname {
            MMapPath::Anonymous | MMapPath::Heap => true,
            MMapPath::Other(name) => name.starts_with("anon"),
            _ => false,
        };
        if !private || !anonymous {
            continue;
        }
        let first = map.address.0 / PAGE_SIZE as u64;
        let end = map.address.1 / PAGE_SIZE as u64;
        let range = usize::try_from(first).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        for (page, info) in (first..).zip(pagemap.get_range_info(range)?) {
            if let PageInfo::MemoryPage(flags) = info
                && flags.contains(MemoryPageFlags::PRESENT)
                && !flags.contains(MemoryPageFlags::FILE)
            {
                addresses.push(page * PAGE_SIZE as u64);
            }
        }
    }
    Ok(addresses)
}
