//! Compressors side by side on real pages: time, ratio, and what they hold.
//!
//! ```text
//! cargo run --release -p zcomp --example codecs -- FOLDER [--pages N] [--rounds N] [--only TEXT[,TEXT...]] [--corpora]
//! ```
//!
//! FOLDER holds `*.pages` files of raw 4096-byte pages. Same-filled pages are left out: the cache never compresses them. Of
//! each file N pages are taken, evenly spread. In every round each compressor does each corpus once, all of it out and then
//! all of it in, so that a disturbance of the machine meets all alike; a figure is the median over the rounds of this
//! thread's CPU time. One thread. Rows with a `*` are rivals and variants, here for the comparison alone.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use zcomp::{CompressError, Context, DecompressError, PAGE_SIZE, Page};

#[path = "../tests/common/liblzo2.rs"]
mod liblzo2;

/// An object above this has a zsmalloc class of its own page: nothing is saved by storing it compressed.
const POOR: usize = 3632;

const USAGE: &str = "usage: codecs FOLDER [--pages N] [--rounds N] [--only TEXT[,TEXT...]] [--corpora]";

/// Room for what any of them makes of a page: rivals want their worst case, whatever comes of it.
const ROOM: usize = 2 * PAGE_SIZE;

fn main() -> ExitCode {
    let mut options =
        Options { folder: String::new(), pages: 1000, rounds: 9, only: Vec::new(), corpora: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let understood = match word.as_str() {
            "--pages" => number(words.next(), &mut options.pages),
            "--rounds" => number(words.next(), &mut options.rounds),
            "--corpora" => {
                options.corpora = true;
                true
            }
            "--only" => {
                options.only = words.next().unwrap_or_default().split(',').map(str::to_owned).collect();
                true
            }
            folder if options.folder.is_empty() && !folder.starts_with('-') => {
                options.folder = folder.to_owned();
                true
            }
            _ => false,
        };
        if !understood {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    if options.folder.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("codecs: {}: {why}", options.folder);
            ExitCode::FAILURE
        }
    }
}

struct Options {
    folder: String,
    pages: usize,
    rounds: usize,
    only: Vec<String>,
    corpora: bool,
}

fn number(word: Option<String>, place: &mut usize) -> bool {
    word.and_then(|word| word.parse().ok()).filter(|&value| value > 0).map(|value| *place = value).is_some()
}

struct Corpus {
    name: String,
    pages: Vec<Page>,
}

fn corpora(folder: &Path, most: usize) -> std::io::Result<Vec<Corpus>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|end| end == "pages"));
    files.sort_by_key(std::fs::DirEntry::path);
    let mut corpora = Vec::new();
    for file in files {
        let bytes = std::fs::read(file.path())?;
        let (all, _) = bytes.as_chunks::<PAGE_SIZE>();
        let pages: Vec<&Page> = all.iter().filter(|page| !same_filled(page)).collect();
        let step = pages.len().div_ceil(most).max(1);
        let name = file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        corpora.push(Corpus { name, pages: pages.into_iter().step_by(step).copied().collect() });
    }
    corpora.retain(|corpus| !corpus.pages.is_empty());
    if corpora.is_empty() {
        return Err(std::io::Error::other("no *.pages file with a page that is not same-filled"));
    }
    Ok(corpora)
}

fn same_filled(page: &Page) -> bool {
    page[8..] == page[..PAGE_SIZE - 8]
}

/// What one compressor did with one corpus.
#[derive(Default)]
struct Figures {
    compress: Vec<Duration>,
    decompress: Vec<Duration>,
    bytes: usize,
    poor: usize,
}

struct Candidate {
    name: String,
    context: Box<dyn Context>,
}

fn compare(options: &Options) -> std::io::Result<()> {
    let corpora = corpora(Path::new(&options.folder), options.pages)?;
    let mut candidates = candidates();
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| name == only);
    candidates.retain(|candidate| wanted(&candidate.name));
    let mut figures: Vec<Vec<Figures>> =
        candidates.iter().map(|_| corpora.iter().map(|_| Figures::default()).collect()).collect();
    for _ in 0..options.rounds {
        for (candidate, row) in candidates.iter_mut().zip(&mut figures) {
            for (corpus, cell) in corpora.iter().zip(row) {
                measure(candidate, corpus, cell);
            }
        }
    }
    println!("{:34} {:>8} {:>8} {:>7} {:>7} {:>9}", "", "comp us", "deco us", "ratio", ">3632", "context B");
    for (candidate, row) in candidates.iter().zip(&figures) {
        let cells: Vec<_> =
            row.iter().zip(&corpora).map(|(cell, corpus)| cell.reduce(corpus.pages.len())).collect();
        if options.corpora {
            for (corpus, cell) in corpora.iter().zip(&cells) {
                line(&format!("  {} on {}", candidate.name, corpus.name), cell, None);
            }
        }
        let count = cells.len() as f64;
        let mean =
            |part: fn(&Cell) -> f64| (cells.iter().map(|cell| part(cell).ln()).sum::<f64>() / count).exp();
        let all = Cell {
            compress: mean(|cell| cell.compress),
            decompress: mean(|cell| cell.decompress),
            ratio: mean(|cell| cell.ratio),
            poor: cells.iter().map(|cell| cell.poor).sum::<f64>() / count,
        };
        line(&candidate.name, &all, Some(candidate.context.memory_bytes()));
    }
    Ok(())
}

fn line(name: &str, cell: &Cell, bytes: Option<usize>) {
    let bytes = bytes.map_or(String::new(), |bytes| bytes.to_string());
    println!(
        "{name:34} {:8.2} {:8.2} {:7.3} {:6.1}% {bytes:>9}",
        cell.compress,
        cell.decompress,
        cell.ratio,
        cell.poor * 100.0
    );
}

/// Microseconds a page, original over compressed, share of pages not worth compressing.
struct Cell {
    compress: f64,
    decompress: f64,
    ratio: f64,
    poor: f64,
}

impl Figures {
    fn reduce(&self, pages: usize) -> Cell {
        let micros = |rounds: &[Duration]| {
            let mut rounds = rounds.to_vec();
            rounds.sort();
            rounds[rounds.len() / 2].as_secs_f64() * 1e6 / pages as f64
        };
        Cell {
            compress: micros(&self.compress),
            decompress: micros(&self.decompress),
            ratio: (pages * PAGE_SIZE) as f64 / self.bytes as f64,
            poor: self.poor as f64 / pages as f64,
        }
    }
}

fn measure(candidate: &mut Candidate, corpus: &Corpus, cell: &mut Figures) {
    let context = &mut candidate.context;
    // Compressed pages lie one behind another, as they would in a pool: not in one hot buffer.
    let mut pool = vec![0u8; corpus.pages.len() * PAGE_SIZE + ROOM];
    let mut places = Vec::with_capacity(corpus.pages.len());
    (cell.bytes, cell.poor) = (0, 0);
    let start = cpu_time();
    let mut at = 0;
    for page in &corpus.pages {
        match context.compress(page, &mut pool[at..at + PAGE_SIZE]) {
            Ok(len) => {
                places.push(Some((at, len)));
                cell.bytes += len;
                cell.poor += usize::from(len > POOR);
                at += len.next_multiple_of(16);
            }
            Err(_) => {
                places.push(None);
                cell.bytes += PAGE_SIZE;
                cell.poor += 1;
            }
        }
    }
    cell.compress.push(cpu_time() - start);
    let mut out = [0; PAGE_SIZE];
    let start = cpu_time();
    for &(at, len) in places.iter().flatten() {
        assert!(context.decompress(&pool[at..at + len], &mut out).is_ok(), "{}", candidate.name);
        std::hint::black_box(&out);
    }
    cell.decompress.push(cpu_time() - start);
    for (page, place) in corpus.pages.iter().zip(&places) {
        if let Some((at, len)) = *place {
            assert!(
                context.decompress(&pool[at..at + len], &mut out).is_ok() && out == *page,
                "{}",
                candidate.name
            );
        }
    }
}

/// CPU time of this thread: what others do on the machine costs less of it than of the wall clock.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn candidates() -> Vec<Candidate> {
    let ours = [
        "lzo",
        "lzo-rle",
        "lz4",
        "lz4(acceleration=4)",
        "lz4(acceleration=8)",
        "lz4hc(level=2)",
        "lz4hc(level=4)",
        "lz4hc",
        "zstd(level=-20)",
        "zstd(level=-5)",
        "zstd(level=-3)",
        "zstd(level=-1)",
        "zstd(level=1)",
        "zstd",
        "zstd(level=9)",
        "deflate(level=1)",
        "deflate",
        "deflate(level=9)",
    ];
    let mut all: Vec<Candidate> = ours
        .into_iter()
        .map(|name| Candidate {
            name: name.to_owned(),
            context: zcomp::lookup(name).unwrap().context().unwrap(),
        })
        .collect();
    let mut rival =
        |name: &str, context: Box<dyn Context>| all.push(Candidate { name: format!("* {name}"), context });
    match liblzo2::Liblzo2::open() {
        Some(library) => rival("lzo: liblzo2 lzo1x_1", Box::new(library)),
        None => eprintln!("liblzo2 is not installed: left out"),
    }
    rival("lzo: lzokay", Box::new(Lzokay(lzokay::compress::Dict::new())));
    rival("lz4: lz4_flex", Box::new(Lz4Flex(lz4_flex::block::CompressTable::default())));
    for level in [1, 6] {
        rival(&format!("deflate: zlib-rs level {level}"), Box::new(Zlib::new(level)));
    }
    all
}

impl Context for liblzo2::Liblzo2 {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let mut room = [0; ROOM];
        let len = liblzo2::Liblzo2::compress(self, page, &mut room);
        out.get_mut(..len).ok_or(CompressError::NoRoom)?.copy_from_slice(&room[..len]);
        Ok(len)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        if liblzo2::Liblzo2::decompress(self, data, page) == Ok(PAGE_SIZE) {
            Ok(())
        } else {
            Err(DecompressError)
        }
    }

    fn memory_bytes(&self) -> usize {
        128 << 10
    }
}

struct Lzokay(Box<lzokay::compress::Dict>);

impl Context for Lzokay {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        lzokay::compress::compress_no_alloc(page, out, &mut self.0).map_err(|_| CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        if lzokay::decompress::decompress(data, page) == Ok(PAGE_SIZE) {
            Ok(())
        } else {
            Err(DecompressError)
        }
    }

    fn memory_bytes(&self) -> usize {
        size_of::<lzokay::compress::Dict>()
    }
}

struct Lz4Flex(lz4_flex::block::CompressTable);

impl Context for Lz4Flex {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let mut room = [0; ROOM];
        let len = lz4_flex::block::compress_into_with_table(page, &mut room, &mut self.0)
            .map_err(|_| CompressError::NoRoom)?;
        out.get_mut(..len).ok_or(CompressError::NoRoom)?.copy_from_slice(&room[..len]);
        Ok(len)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        match lz4_flex::block::decompress_into(data, page) {
            Ok(PAGE_SIZE) => Ok(()),
            _ => Err(DecompressError),
        }
    }

    fn memory_bytes(&self) -> usize {
        8 << 10
    }
}

struct Zlib {
    compress: flate2::Compress,
    decompress: flate2::Decompress,
}

impl Zlib {
    fn new(level: u32) -> Zlib {
        Zlib {
            compress: flate2::Compress::new(flate2::Compression::new(level), false),
            decompress: flate2::Decompress::new(false),
        }
    }
}

impl Context for Zlib {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        self.compress.reset();
        // zlib-rs 0.6.8 panics at level 1 where the output does not fit.
        let mut room = [0; ROOM];
        match self.compress.compress(page, &mut room, flate2::FlushCompress::Finish) {
            Ok(flate2::Status::StreamEnd) => {
                let len = usize::try_from(self.compress.total_out()).map_err(|_| CompressError::Codec)?;
                out.get_mut(..len).ok_or(CompressError::NoRoom)?.copy_from_slice(&room[..len]);
                Ok(len)
            }
            _ => Err(CompressError::Codec),
        }
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        self.decompress.reset(false);
        match self.decompress.decompress(data, page, flate2::FlushDecompress::Finish) {
            Ok(flate2::Status::StreamEnd) if self.decompress.total_out() == PAGE_SIZE as u64 => Ok(()),
            _ => Err(DecompressError),
        }
    }

    /// zlib-rs does not tell; this is what its manual says of a 32 KiB window and memory level 8.
    fn memory_bytes(&self) -> usize {
        (1 << (15 + 2)) + (1 << (8 + 9))
    }
}
