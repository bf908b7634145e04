//! Page compressors side by side on real pages: time, ratio, and what they hold.
//!
//! In every round each of them does each corpus once, all of it out and then all of it in, one after another, so that a
//! disturbance of the machine meets all alike. Times are processor time of one thread. Against liblz4 a compressor is set in
//! each round on each corpus; the figure is the geometric mean over the corpora, its median and extremes over the rounds.
//!
//! A compressor of ours that is a C library is not measured again under the library's name. Every page is compared with what
//! comes back before anything is timed; a rival that gives back another page, or none, is named and left out.

#[path = "../../crates/zcomp/tests/common/liblzo2.rs"]
mod liblzo2;
mod rivals;

use std::time::Duration;

use zcomp::{Context, PAGE_SIZE};

use crate::Scale;
use crate::corpora::{Corpora, Corpus};
use crate::figures::{Spread, geometric_mean, median, thread_time};
use crate::report::Report;

/// What all are set against.
const STANDARD: &str = "lz4";
/// An object above this has a zsmalloc class of its own page: nothing is saved by storing it compressed.
const POOR: usize = 3632;
/// Room for what any of them makes of a page: rivals want their worst case, whatever comes of it.
const ROOM: usize = 2 * PAGE_SIZE;

/// One compressor and what it did.
struct Candidate {
    name: String,
    /// Whose code it is.
    by: &'static str,
    context: Box<dyn Context>,
    /// By corpus.
    figures: Vec<Figures>,
}

/// What one compressor did with one corpus.
#[derive(Default)]
struct Figures {
    /// Microseconds a page, by round.
    compress: Vec<f64>,
    /// The same, of those pages that it made smaller: no number where there were none.
    decompress: Vec<f64>,
    /// Of all pages together.
    bytes: usize,
    poor: usize,
}

/// The compressors behind a plain name that are measured: with parameters where those make another trade.
fn variants(name: &str) -> &[&str] {
    match name {
        "lz4" => &["lz4", "lz4(acceleration=8)"],
        "zstd" => &["zstd(level=-1)", "zstd(level=1)", "zstd"],
        "deflate" => &["deflate(level=1)", "deflate"],
        _ => &[],
    }
}

/// Whose code a compressor of zcomp's is.
pub fn library(name: &str) -> Option<&'static str> {
    match name {
        "lz4" | "lz4hc" => Some("liblz4"),
        "zstd" => Some("libzstd"),
        "deflate" => Some("libdeflate"),
        _ => None,
    }
}

fn candidates(report: &mut Report) -> Vec<Candidate> {
    let mut all = Vec::new();
    for plain in zcomp::names() {
        let names = match variants(plain) {
            [] => std::slice::from_ref(plain),
            names => names,
        };
        for name in names {
            let compressor = zcomp::lookup(name).expect("the registry names it");
            let context = compressor.context().expect("there is memory");
            let by = library(plain).unwrap_or("uzswap");
            all.push(Candidate { name: (*name).to_owned(), by, context, figures: Vec::new() });
        }
    }
    for (name, by, context) in rivals::all(report) {
        all.push(Candidate { name: name.to_owned(), by, context, figures: Vec::new() });
    }
    all
}

/// Compresses and decompresses a corpus, and adds what it took.
fn measure(candidate: &mut Candidate, number: usize, corpus: &Corpus) {
    let context = &mut candidate.context;
    let figures = &mut candidate.figures[number];
    // Compressed pages lie one behind another, as they would in a pool: not in one hot buffer.
    let mut pool = vec![0u8; corpus.pages.len() * PAGE_SIZE + ROOM];
    let mut places = Vec::with_capacity(corpus.pages.len());
    let each = |time: Duration, pages: usize| time.as_secs_f64() * 1e6 / pages as f64;
    let begun = thread_time();
    let mut at = 0;
    for page in &corpus.pages {
        if let Ok(len) = context.compress(page, &mut pool[at..at + PAGE_SIZE]) {
            places.push((at, len));
            at += len.next_multiple_of(16);
        }
    }
    figures.compress.push(each(thread_time() - begun, corpus.pages.len()));
    let mut out = [0; PAGE_SIZE];
    let begun = thread_time();
    for &(at, len) in &places {
        assert!(context.decompress(&pool[at..at + len], &mut out).is_ok(), "{}", candidate.name);
        std::hint::black_box(&out);
    }
    figures.decompress.push(each(thread_time() - begun, places.len()));
    // What does not get smaller is stored as it is.
    let refused = corpus.pages.len() - places.len();
    figures.bytes = places.iter().map(|(_, len)| len).sum::<usize>() + refused * PAGE_SIZE;
    figures.poor = places.iter().filter(|(_, len)| *len > POOR).count() + refused;
}

/// How many pages of the corpora get smaller, and how many of those do not come back as they were.
fn tried(context: &mut dyn Context, corpora: &[Corpus]) -> (usize, usize) {
    let (mut smaller, mut wrong) = (0, 0);
    let (mut stored, mut out) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
    for page in corpora.iter().flat_map(|corpus| &corpus.pages) {
        let Ok(len) = context.compress(page, &mut stored) else { continue };
        smaller += usize::from(len < PAGE_SIZE);
        out.fill(0xee);
        wrong += usize::from(context.decompress(&stored[..len], &mut out).is_err() || out != *page);
    }
    (smaller, wrong)
}

/// Leaves out a compressor whose times would mean nothing, and says why. One of ours must be right.
fn is_one(report: &mut Report, candidate: &mut Candidate, corpora: &[Corpus]) -> bool {
    let Candidate { name, by, context, .. } = candidate;
    let why = match tried(&mut **context, corpora) {
        (0, _) => "makes no page smaller".to_owned(),
        (_, 0) => return true,
        (smaller, wrong) => format!("gives back {wrong} of {smaller} pages otherwise than they were"),
    };
    assert!(zcomp::lookup(name).is_err(), "{name}, which is ours, {why}");
    report.say(format!("{name} ({by}) is left out: it {why}."));
    false
}

/// Measures all of them.
pub fn run(report: &mut Report, corpora: &Corpora, scale: Scale) {
    report.section("Compressors");
    let rounds = scale.of(7, 1);
    report.say(format!(
        "{rounds} rounds in turn, processor time of one thread in microseconds a page of 4096 bytes, medians with the extremes \
         of the rounds, geometric means over the corpora. Decompressed are the pages that the compressor made smaller. Where a compressor of ours is a C library (lz4 and lz4hc: liblz4; \
         zstd: libzstd; deflate: libdeflate), its row is that library's."
    ));
    let corpora = corpora.read(report, scale.of(1000, 32));
    let mut candidates = candidates(report);
    candidates.retain_mut(|candidate| is_one(report, candidate, &corpora));
    for candidate in &mut candidates {
        candidate.figures.resize_with(corpora.len(), Figures::default);
    }
    for _ in 0..rounds {
        for (number, corpus) in corpora.iter().enumerate() {
            for candidate in &mut candidates {
                measure(candidate, number, corpus);
            }
        }
    }
    tables(report, &candidates, &corpora, rounds);
}

type Times = fn(&Figures) -> &Vec<f64>;

/// The geometric mean without the corpora of which a compressor made no page smaller.
fn known_mean(figures: impl Iterator<Item = f64>) -> f64 {
    geometric_mean(figures.filter(|figure| figure.is_finite() && *figure > 0.0))
}

impl Candidate {
    /// The geometric mean over the corpora, by round.
    fn means(&self, times: Times, rounds: usize) -> Spread {
        let mean = |round: usize| known_mean(self.figures.iter().map(|figures| times(figures)[round]));
        Spread((0..rounds).map(mean).collect())
    }

    /// The same of how many times as long it took as the other.
    fn against(&self, other: &Candidate, times: Times, rounds: usize) -> Spread {
        let both = || self.figures.iter().zip(&other.figures);
        let mean =
            |round: usize| known_mean(both().map(|(own, other)| times(own)[round] / times(other)[round]));
        Spread((0..rounds).map(mean).collect())
    }

    fn ratio(&self, number: usize, corpus: &Corpus) -> f64 {
        (corpus.pages.len() * PAGE_SIZE) as f64 / self.figures[number].bytes as f64
    }
}

fn tables(report: &mut Report, candidates: &[Candidate], corpora: &[Corpus], rounds: usize) {
    let standard =
        candidates.iter().find(|it| it.name == STANDARD).expect("it is one of ours, and was right");
    let (out, back): (Times, Times) = (|it| &it.compress, |it| &it.decompress);
    let (out_us, ratio) = ("compress us", "ratio");
    let heads = [
        "compressor",
        "by",
        out_us,
        "compress / liblz4",
        "decompress us",
        "decompress / liblz4",
        ratio,
        "above 3632 B",
        "context B",
    ];
    report.table(&heads);
    for candidate in candidates {
        let poor =
            candidate.figures.iter().zip(corpora).map(|(it, of)| it.poor as f64 / of.pages.len() as f64);
        let ratios = corpora.iter().enumerate().map(|(number, corpus)| candidate.ratio(number, corpus));
        let held = candidate.context.memory_bytes();
        report.row([
            candidate.name.clone(),
            candidate.by.to_owned(),
            format!("{:.2}", candidate.means(out, rounds)),
            format!("{:.2}", candidate.against(standard, out, rounds)),
            format!("{:.2}", candidate.means(back, rounds)),
            format!("{:.2}", candidate.against(standard, back, rounds)),
            format!("{:.3}", geometric_mean(ratios)),
            format!("{:.1}%", poor.sum::<f64>() * 100.0 / corpora.len() as f64),
            if held == 0 { "not told".to_owned() } else { held.to_string() },
        ]);
    }
    report.scatter("codecs", out_us, ratio);

    let heads: Vec<&str> =
        std::iter::once("compressor").chain(corpora.iter().map(|it| it.name.as_str())).collect();
    let mut by_corpus = |what: &str, cell: &dyn Fn(&Candidate, usize) -> String| {
        report.say(format!("{what}, by corpus:"));
        report.table(&heads);
        for candidate in candidates {
            let cells = (0..corpora.len()).map(|number| cell(candidate, number));
            report.cells(std::iter::once(candidate.name.clone()).chain(cells).collect());
        }
    };
    let middle = |times: &Vec<f64>| {
        let middle = median(times.clone()).0;
        if middle.is_finite() { format!("{middle:.2}") } else { "-".to_owned() }
    };
    by_corpus("Ratio", &|it, number| format!("{:.3}", it.ratio(number, &corpora[number])));
    by_corpus("Microseconds to compress a page", &|it, number| middle(&it.figures[number].compress));
    by_corpus("Microseconds to decompress a page", &|it, number| middle(&it.figures[number].decompress));
}
