//! The program whose memory is limited: it fills memory with real pages and touches them in some order, and checks what it
//! reads. It runs the same under every rival.
//!
//! `compare touch ORDER MIB TOUCHES FILE.pages`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use zswap::PAGE_SIZE;

/// Orders of access.
pub const ORDERS: [&str; 5] = ["sequential", "uniform", "zipfian", "phases", "first-touch"];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf's law with exponent 0.99, as YCSB draws it, over pages in a scrambled order.
struct Zipf {
    count: usize,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    fn new(count: usize) -> Zipf {
        let zeta = |n: usize| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let all = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / all);
        Zipf { count, zeta: all, eta }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let u = random.unit();
        let uz = u * self.zeta;
        let rank = if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            (self.count as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA))) as usize
        };
        rank.min(self.count - 1)
    }
}

/// Runs it, and prints nanoseconds a touch and how many there were.
pub fn run(order: &str, mib: usize, touches: usize, file: &str) {
    let file = File::open(file).expect("the file of pages opens");
    let source =
        usize::try_from(file.metadata().expect("it has a size").len()).expect("it is small") / PAGE_SIZE;
    let count = (mib << 20) / PAGE_SIZE;
    let words = PAGE_SIZE / 8;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    // Anonymous memory of the allocator's: one mapping.
    let mut memory = vec![0u64; count * words];
    for page in 0..count {
        // SAFETY: eight bytes are a word, and any are a valid one.
        let bytes = unsafe { memory[page * words..][..words].align_to_mut::<u8>().1 };
        file.read_exact_at(bytes, (page % source * PAGE_SIZE) as u64).expect("the page is read");
        memory[page * words] = stamp(page);
    }
    if order == "first-touch" {
        println!("{:.1} {count}", begun.elapsed().as_nanos() as f64 / count as f64);
        return;
    }
    let scrambled: Vec<u32> = {
        let mut order: Vec<u32> = (0..count).map(|page| u32::try_from(page).expect("few pages")).collect();
        for at in (1..count).rev() {
            order.swap(at, random.below(at + 1));
        }
        order
    };
    let zipf = Zipf::new(count);
    let mut touch = |page: usize, write: bool| {
        let word = &mut memory[page * words];
        assert_eq!(*word & !1, stamp(page) & !1, "page {page} is wrong");
        if write {
            *word ^= 1;
        }
    };
    let mut round = |touches: usize| {
        for at in 0..touches {
            let write = at % 4 == 0;
            let page = match order {
                "sequential" => at % count,
                "uniform" => random.below(count),
                "zipfian" => scrambled[zipf.draw(&mut random)] as usize,
                // An eighth of the memory at a time, at random.
                _ => (at * 16 / touches % 8) * (count / 8) + random.below(count / 8),
            };
            touch(page, write);
        }
    };
    round(touches / 2);
    let begun = Instant::now();
    round(touches);
    println!("{:.1} {touches}", begun.elapsed().as_nanos() as f64 / touches as f64);
}

fn stamp(page: usize) -> u64 {
    (page as u64).wrapping_mul(0x2545_f491_4f6c_dd1d)
}
