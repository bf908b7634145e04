//! Orders of access to a working set: the workload's, and the traces that policies are held against.

/// Orders of access.
pub const ORDERS: [&str; 4] = ["sequential", "uniform", "zipfian", "phases"];

/// Orders that only policies are held against: over less than all pages, or over some more than others.
pub const LOOPS: [&str; 3] = ["short loop", "loop", "hot and loop"];

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

/// One order over pages from 0 on, the same each time.
pub struct Trace<'a> {
    order: &'a str,
    count: usize,
    random: Random,
    zipf: Zipf,
    scrambled: Vec<usize>,
}

impl Trace<'_> {
    /// Over `count` pages.
    pub fn new(order: &str, count: usize) -> Trace<'_> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut scrambled: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            scrambled.swap(at, random.below(at + 1));
        }
        Trace { order, count, random, zipf: Zipf::new(count), scrambled }
    }

    /// The page of touch `at` of `touches`.
    pub fn page(&mut self, at: usize, touches: usize) -> usize {
        match self.order {
            "sequential" => at % self.count,
            "uniform" => self.random.below(self.count),
            "zipfian" => self.scrambled[self.zipf.draw(&mut self.random)],
            // A little more than policies have room for, and half as much again.
            "short loop" => at % (self.count * 9 / 20),
            "loop" => at % (self.count * 3 / 5),
            // A hot tenth, and a scan of the rest over and over.
            "hot and loop" if at.is_multiple_of(2) => self.random.below(self.count / 10),
            "hot and loop" => self.count / 10 + at / 2 % (self.count * 9 / 10),
            // An eighth of the memory at a time, at random.
            _ => (at * 16 / touches % 8) * (self.count / 8) + self.random.below(self.count / 8),
        }
    }
}
