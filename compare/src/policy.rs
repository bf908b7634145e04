//! Which page should leave: miss ratios of eviction policies on the traces of the workload, by simulation.
//!
//! Four of them see every access, which nobody outside the kernel does: LRU, and CLOCK, SIEVE and S3-FIFO with the hardware's
//! accessed bits. `PAGEMAP_SCAN` shows which pages were written since the last scan (WP_ASYNC), and nothing of reads: CLOCK by
//! written bits is what a scanning pager could have, and pays a write fault for each bit. FIFO and the pager's own see faults
//! alone. MIN knows the future.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pager::policy::{Candidate, Policy};

use crate::Scale;
use crate::report::Report;
use crate::trace::{LOOPS, ORDERS, Trace};

/// Pages of the working set, of which 40 % are resident at most.
const COUNT: usize = 1 << 16;
const ROOM: usize = COUNT * 2 / 5;

/// A policy at work: whether a page that is touched is resident; it is afterwards.
trait Simulated {
    fn touch(&mut self, page: usize, write: bool) -> bool;
}

#[derive(Default)]
struct Fifo {
    resident: BTreeSet<usize>,
    queue: VecDeque<usize>,
}

impl Simulated for Fifo {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        if self.resident.contains(&page) {
            return true;
        }
        if self.queue.len() == ROOM
            && let Some(old) = self.queue.pop_front()
        {
            self.resident.remove(&old);
        }
        self.queue.push_back(page);
        self.resident.insert(page);
        false
    }
}

#[derive(Default)]
struct Lru {
    used: HashMap<usize, usize>,
    order: BTreeSet<(usize, usize)>,
    clock: usize,
}

impl Simulated for Lru {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        self.clock += 1;
        let before = self.used.insert(page, self.clock);
        if let Some(before) = before {
            self.order.remove(&(before, page));
        } else if self.order.len() == ROOM
            && let Some((_, old)) = self.order.pop_first()
        {
            self.used.remove(&old);
        }
        self.order.insert((self.clock, page));
        before.is_some()
    }
}

/// The second chance: a page whose bit is set goes to the end again. `reads`: reading sets the bit too.
struct Clock {
    reads: bool,
    bits: HashMap<usize, bool>,
    queue: VecDeque<usize>,
}

impl Clock {
    fn new(reads: bool) -> Clock {
        Clock { reads, bits: HashMap::new(), queue: VecDeque::new() }
    }
}

impl Simulated for Clock {
    fn touch(&mut self, page: usize, write: bool) -> bool {
        if let Some(bit) = self.bits.get_mut(&page) {
            *bit |= write || self.reads;
            return true;
        }
        while self.queue.len() == ROOM {
            let Some(old) = self.queue.pop_front() else { break };
            if self.bits.insert(old, false) == Some(true) {
                self.queue.push_back(old);
            } else {
                self.bits.remove(&old);
            }
        }
        self.queue.push_back(page);
        self.bits.insert(page, false);
        false
    }
}

/// Like CLOCK, but pages that stay keep their place and the hand goes on from there (NSDI 2024).
#[derive(Default)]
struct Sieve {
    bits: HashMap<usize, bool>,
    /// By time of arrival.
    queue: BTreeSet<(usize, usize)>,
    hand: (usize, usize),
    clock: usize,
}

impl Simulated for Sieve {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        if let Some(bit) = self.bits.get_mut(&page) {
            *bit = true;
            return true;
        }
        while self.queue.len() == ROOM {
            let next = self.queue.range(self.hand..).next().or_else(|| self.queue.first()).copied();
            let Some(next) = next else { break };
            self.hand = (next.0, next.1 + 1);
            if self.bits.insert(next.1, false) != Some(true) {
                self.bits.remove(&next.1);
                self.queue.remove(&next);
            }
        }
        self.clock += 1;
        self.queue.insert((self.clock, page));
        self.bits.insert(page, false);
        false
    }
}

/// A small queue for what is new, a main one, and names of those that left the small one (SOSP 2023).
#[derive(Default)]
struct S3Fifo {
    uses: HashMap<usize, u8>,
    small: VecDeque<usize>,
    main: VecDeque<usize>,
    ghosts: VecDeque<usize>,
    is_ghost: BTreeSet<usize>,
}

impl S3Fifo {
    fn evict(&mut self) {
        while self.small.len() + self.main.len() == ROOM {
            if self.small.len() >= ROOM / 10
                && let Some(old) = self.small.pop_front()
            {
                if self.uses.get(&old).is_some_and(|uses| *uses > 1) {
                    self.uses.insert(old, 0);
                    self.main.push_back(old);
                    continue;
                }
                self.uses.remove(&old);
                self.ghosts.push_back(old);
                self.is_ghost.insert(old);
                if self.ghosts.len() > ROOM
                    && let Some(forgotten) = self.ghosts.pop_front()
                {
                    self.is_ghost.remove(&forgotten);
                }
            } else if let Some(old) = self.main.pop_front() {
                match self.uses.get_mut(&old) {
                    Some(uses) if *uses > 0 => {
                        *uses -= 1;
                        self.main.push_back(old);
                    }
                    _ => drop(self.uses.remove(&old)),
                }
            }
        }
    }
}

impl Simulated for S3Fifo {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        if let Some(uses) = self.uses.get_mut(&page) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        self.evict();
        self.uses.insert(page, 0);
        if self.is_ghost.remove(&page) {
            self.ghosts.retain(|ghost| *ghost != page);
            self.main.push_back(page);
        } else {
            self.small.push_back(page);
        }
        false
    }
}

/// The pager's own code, blind or with accessed bits.
#[derive(Default)]
struct Ours {
    policy: Policy,
    /// Each with its accessed bit.
    resident: BTreeMap<usize, bool>,
    left_at: HashMap<usize, u32>,
    evictions: u32,
}

impl Ours {
    fn seeing() -> Ours {
        let mut ours = Ours::default();
        ours.policy.see();
        ours
    }

    /// Those that were not used.
    fn spare(&mut self, known: Vec<Candidate>) -> Vec<Candidate> {
        let looked = known.len();
        let is_used = |candidate: &Candidate| self.resident[&Ours::number(candidate)];
        let (used, unused): (Vec<_>, Vec<_>) = known.into_iter().partition(is_used);
        self.policy.used(looked, &used);
        unused
    }

    fn number(candidate: &Candidate) -> usize {
        usize::try_from(candidate.page).expect("it was admitted")
    }

    fn victim(&mut self) -> Option<usize> {
        if self.policy.is_blind() {
            let known = self.policy.take_known();
            let unused = self.spare(known);
            self.resident.values_mut().for_each(|accessed| *accessed = false);
            self.policy.cleared(&unused);
        }
        loop {
            let victim = self.policy.victim()?;
            if !victim.is_known || !self.spare(vec![victim.candidate]).is_empty() {
                return Some(Ours::number(&victim.candidate));
            }
        }
    }
}

impl Simulated for Ours {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        if let Some(accessed) = self.resident.get_mut(&page) {
            *accessed = true;
            return true;
        }
        if self.resident.len() == ROOM
            && let Some(old) = self.victim()
        {
            self.resident.remove(&old);
            self.evictions += 1;
            self.left_at.insert(old, self.evictions);
        }
        let age = self.left_at.remove(&page).map(|left| self.evictions - left);
        self.policy.admit(0, page as u64, age);
        self.resident.insert(page, true);
        false
    }
}

/// Evicts what is wanted back last.
struct Min {
    next: Vec<usize>,
    at: usize,
    resident: HashMap<usize, usize>,
    order: BTreeSet<(usize, usize)>,
}

impl Min {
    fn new(trace: &[usize]) -> Min {
        let mut next = vec![usize::MAX; trace.len()];
        let mut last = HashMap::new();
        for (at, page) in trace.iter().enumerate().rev() {
            if let Some(later) = last.insert(*page, at) {
                next[at] = later;
            }
        }
        Min { next, at: 0, resident: HashMap::new(), order: BTreeSet::new() }
    }
}

impl Simulated for Min {
    fn touch(&mut self, page: usize, _write: bool) -> bool {
        let next = self.next[self.at];
        self.at += 1;
        let before = self.resident.insert(page, next);
        if let Some(before) = before {
            self.order.remove(&(before, page));
        } else if self.order.len() == ROOM
            && let Some((_, old)) = self.order.pop_last()
        {
            self.resident.remove(&old);
        }
        self.order.insert((next, page));
        before.is_some()
    }
}

/// Simulates all of them.
pub fn run(report: &mut Report, scale: Scale) {
    report.section("Eviction policies");
    report.say(format!(
        "Misses in 1000 touches, by simulation: a quarter of the touches are writes, {ROOM} of {COUNT} pages are resident. \
         Policies before \"written\" see every access; nobody outside the kernel does."
    ));
    report.table(&["order", "MIN", "LRU", "CLOCK", "SIEVE", "S3-FIFO", "written", "FIFO", "ours", "blind"]);
    let touches = scale.of(COUNT * 12, COUNT);
    // Touches that are not counted: memory fills.
    let warm = touches / 3;
    for order in ORDERS.into_iter().chain(LOOPS) {
        let mut trace = Trace::new(order, COUNT);
        let pages: Vec<_> = (0..touches).map(|at| trace.page(at, touches)).collect();
        let misses = |mut policy: Box<dyn Simulated>| {
            let mut missed = 0;
            for (at, page) in pages.iter().enumerate() {
                missed += usize::from(!policy.touch(*page, at % 4 == 0) && at >= warm);
            }
            format!("{:.0}", missed as f64 * 1000.0 / (touches - warm) as f64)
        };
        report.row([
            order.to_owned(),
            misses(Box::new(Min::new(&pages))),
            misses(Box::<Lru>::default()),
            misses(Box::new(Clock::new(true))),
            misses(Box::<Sieve>::default()),
            misses(Box::<S3Fifo>::default()),
            misses(Box::new(Clock::new(false))),
            misses(Box::<Fifo>::default()),
            misses(Box::new(Ours::seeing())),
            misses(Box::<Ours>::default()),
        ]);
    }
}
