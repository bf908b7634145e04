//! The cache as a whole: what it is made of, its parameters, and its gauges.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use swapfile::{Latched, SwapDevice};
use zcomp::LookupError;

use crate::area::{Area, Device, Extent, Object, On};
use crate::error::{ParamError, Refusal};
use crate::lru::Lru;
use crate::params::{Live, Param, parse_tree};
use crate::pool::{Pool, Pools};
use crate::profile::{Access, Eviction, Profile};
use crate::shrinker::Requests;
use crate::stats::{Counter, Stats, StatsBlock};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::tree::{TreeKind, make};
use crate::worker::{HEADER, Worker, Workers};
use crate::writeback::Batch;

/// Swap types there can be, as in the kernel: types are numbered below this.
pub const SWAP_TYPES: u8 = 32;

/// Names a page slot: the kernel's `swp_entry_t`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SwapEntry {
    /// The swap type, below [`SWAP_TYPES`].
    pub swap_type: u8,
    /// The slot within it, in pages.
    pub offset: u32,
}

/// How a cache is made.
pub struct Options {
    /// Whose behaviour it has.
    pub profile: &'static Profile,
    /// Parameters that are not to have the profile's first values, in the order given.
    pub params: Vec<(String, String)>,
    /// RAM that `max_pool_percent` is a part of, in bytes.
    pub ram_bytes: u64,
    /// Where it counts.
    pub stats: Box<dyn StatsBlock>,
    /// How its allocators are made.
    pub zpool: zpool::Config,
    /// Threads that can be at work at once without waiting for one another's buffers.
    pub workers: usize,
    /// How a compressor is found by its name.
    pub compressors: Lookup,
}

/// Finds a compressor by its name, as [`zcomp::lookup`] does. A measurement may put its own in.
pub type Lookup = fn(&str) -> Result<Arc<dyn zcomp::Compressor>, LookupError>;

impl Options {
    /// The options of a cache with this profile that has this machine to itself.
    pub fn new(profile: &'static Profile) -> Options {
        Options {
            profile,
            params: Vec::new(),
            ram_bytes: system_ram_bytes(),
            stats: Box::new(Box::<Stats>::default()),
            zpool: zpool::Config::default(),
            workers: 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            compressors: zcomp::lookup,
        }
    }
}

/// All RAM of the machine, in bytes.
pub fn system_ram_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGE_SIZE)) };
    u64::try_from(pages).unwrap_or(0) * u64::try_from(size).unwrap_or(0)
}

/// Why a cache was not made: the parameter that was wrong, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitError {
    /// The parameter's name, as it was given.
    pub param: String,
    /// What is wrong with its value.
    pub error: ParamError,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.param, self.error)
    }
}

impl std::error::Error for InitError {}

/// Why a swap type was not switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SwaponError {
    /// The type's number is [`SWAP_TYPES`] or more, or there are no pages (EINVAL).
    Invalid,
    /// The type is on already (EBUSY).
    Busy,
    /// The device has fewer pages than the swap type (EINVAL).
    DeviceTooSmall,
}

/// A compressed cache for swap pages. All methods may be called from many threads at once.
///
/// Lock order: `config`, then workers, then an area, then a zpool's own locks; see the module `worker`.
pub struct Zswap {
    pub(crate) profile: &'static Profile,
    pub(crate) live: Live,
    pub(crate) stats: Box<dyn StatsBlock>,
    pub(crate) workers: Workers,
    /// The pool hit its limit and has not come down to the accept threshold since.
    pub(crate) full: AtomicBool,
    pub(crate) requests: Requests,
    /// Pages read from swap devices since the shrinker last asked: a sign that it went too far.
    pub(crate) recent_device_reads: AtomicU64,
    areas: [Area; SWAP_TYPES as usize],
    /// Metadata bytes as last summed up.
    metadata: AtomicU64,
    ram_bytes: u64,
    zpool_config: zpool::Config,
    compressors: Lookup,
    pub(crate) tree: TreeKind,
    config: Mutex<Names>,
}

/// The parameters that name things, as they were last set.
struct Names {
    compressor: String,
    zpool: &'static str,
}

impl Zswap {
    /// Makes a cache. It holds nothing and no swap type is on.
    pub fn new(options: Options) -> Result<Zswap, InitError> {
        let Options { profile, params, ram_bytes, stats, zpool, workers, compressors } = options;
        let live = Live::new(profile);
        let mut names = Names { compressor: String::new(), zpool: profile.zpool };
        let mut tree = profile.tree;
        let firsts = profile.params.iter().map(|(param, _, first)| (param.name(), *first));
        let given = params.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in firsts.chain(given) {
            let mut set = || -> Result<(), ParamError> {
                let param = Param::named(name)?;
                profile.access(param).ok_or(ParamError::Unknown)?;
                match param {
                    _ if text.is_empty() => {}
                    Param::Compressor => {
                        names.compressor = find_compressor(compressors, text)?.name().to_owned()
                    }
                    Param::Zpool => names.zpool = find_zpool(profile, text)?,
                    Param::Tree => tree = parse_tree(text)?,
                    _ => {
                        live.set(param, text)?;
                    }
                }
                Ok(())
            };
            set().map_err(|error| InitError { param: name.to_owned(), error })?;
        }
        let first = find_compressor(compressors, &names.compressor)
            .and_then(|compressor| make_pool(profile, names.zpool, compressor, &zpool))
            .map_err(|error| InitError { param: Param::Compressor.name().to_owned(), error })?;
        let pools = Pools::new(first);
        let cache = Zswap {
            profile,
            live,
            stats,
            workers: Workers::new(workers, &pools),
            full: AtomicBool::new(false),
            requests: Requests::new(),
            recent_device_reads: AtomicU64::new(0),
            areas: std::array::from_fn(|_| Area::new()),
            metadata: AtomicU64::new(0),
            ram_bytes,
            zpool_config: zpool,
            compressors,
            tree,
            config: Mutex::new(names),
        };
        cache.publish(&mut cache.workers.one());
        Ok(cache)
    }

    /// The profile it was made with.
    pub fn profile(&self) -> &'static Profile {
        self.profile
    }

    /// Switches a swap type on (frontswap's `init`): `pages` slots, and the device that takes what leaves the cache.
    pub fn swapon(
        &self,
        swap_type: u8,
        pages: u32,
        device: Option<Arc<dyn SwapDevice>>,
    ) -> Result<(), SwaponError> {
        let area = self.areas.get(usize::from(swap_type)).ok_or(SwaponError::Invalid)?;
        if pages == 0 {
            return Err(SwaponError::Invalid);
        }
        if device.as_ref().is_some_and(|device| device.pages() < u64::from(pages)) {
            return Err(SwaponError::DeviceTooSmall);
        }
        let mut state = area.state.lock();
        if state.on.is_some() || !state.is_quiet() {
            return Err(SwaponError::Busy);
        }
        let device: Option<Device> = device.map(|device| Arc::new(Latched::new(device)));
        state.on = Some(On { tree: make(self.tree), lru: Lru::new(), pages, device });
        area.note_bytes(&state);
        Ok(())
    }

    /// Changes a parameter while the cache runs. An empty text changes nothing, as an empty write does.
    pub fn set(&self, param: Param, text: &str) -> Result<(), ParamError> {
        match self.profile.access(param) {
            None => return Err(ParamError::Unknown),
            Some(Access::Start) => return Err(ParamError::StartOnly),
            Some(Access::Runtime) if text.is_empty() => return Ok(()),
            Some(Access::Runtime) => {}
        }
        match param {
            Param::Compressor => {
                let mut names = self.config.lock();
                let compressor = find_compressor(self.compressors, text)?.name().to_owned();
                self.switch_pool(names.zpool, &compressor)?;
                names.compressor = compressor;
            }
            Param::Zpool => {
                let mut names = self.config.lock();
                let zpool = find_zpool(self.profile, text)?;
                self.switch_pool(zpool, &names.compressor)?;
                names.zpool = zpool;
            }
            _ => {
                self.live.set(param, text)?;
            }
        }
        let mut worker = self.workers.one();
        self.publish(&mut worker);
        if self.held_bytes(&worker) >= self.max_bytes() {
            // A lower limit takes effect now, not at the next store.
            self.requests.shrink();
        }
        Ok(())
    }

    /// The text of a parameter as its file shows it, without the newline. `None`: this profile has no such parameter.
    pub fn get(&self, param: Param) -> Option<String> {
        self.profile.access(param)?;
        match param {
            Param::Compressor => Some(self.config.lock().compressor.clone()),
            Param::Zpool => Some(self.config.lock().zpool.to_owned()),
            Param::Tree => Some(self.tree.to_string()),
            _ => self.live.get(param),
        }
    }

    /// A counter or gauge, up to date.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.publish(&mut self.workers.one());
        self.stats().get(counter)
    }

    /// The block of counters. Gauges in it are as of the last few operations; [`Zswap::publish_gauges`] brings them up to
    /// date.
    pub fn stats(&self) -> &Stats {
        self.stats.stats()
    }

    /// Brings the gauges up to date.
    pub fn publish_gauges(&self) {
        self.publish(&mut self.workers.one());
    }

    /// Makes what this thread will need to store and load pages, so that its first pages need not wait for memory.
    pub fn warm_up(&self) {
        let mut worker = self.workers.one();
        let current = worker.pools.current();
        // Without memory for it now, the first store tries again, and is refused if there still is none.
        let _ = worker.tools(current);
    }

    /// The pools that hold pages: allocator, compressor and bytes of each, the current one first.
    pub fn pools(&self) -> Vec<(&'static str, String, u64)> {
        let worker = self.workers.one();
        let mut pools: Vec<_> = worker.pools.iter().collect();
        pools.sort_by_key(|(number, _)| *number != worker.pools.current());
        pools
            .into_iter()
            .map(|(_, pool)| {
                let bytes = pool.zpool.total_pages() as u64 * zpool::PAGE_SIZE as u64;
                (pool.zpool.driver(), pool.compressor.name().to_owned(), bytes)
            })
            .collect()
    }

    /// Makes the pool of this pair current: an old one if it is still here, else a new one.
    fn switch_pool(&self, zpool: &'static str, compressor: &str) -> Result<(), ParamError> {
        // Made before the workers are stopped, and dropped after where an old one is found.
        let fresh = self.make_pool(zpool, compressor)?;
        self.workers.change_pools(|pools| {
            let number = match pools.find(zpool, compressor) {
                Some(number) => number,
                None => pools.add(fresh).ok_or(ParamError::TooManyPools)?,
            };
            pools.set_current(number);
            pools.retire_drained();
            Ok(())
        })
    }

    fn make_pool(&self, zpool: &str, compressor: &str) -> Result<Pool, ParamError> {
        let compressor = find_compressor(self.compressors, compressor)?;
        make_pool(self.profile, zpool, compressor, &self.zpool_config)
    }

    /// The pool for pages that have to be kept and that the current pool does not hold: whole pages in zsmalloc.
    pub(crate) fn fallback_pool(&self) -> Option<u8> {
        if let Some(number) = self.workers.one().pools.fallback() {
            return Some(number);
        }
        let names = self.config.lock();
        let fresh = self.make_pool("zsmalloc", &names.compressor).ok()?;
        let fresh = Pool { fallback: true, ..fresh };
        self.workers.change_pools(|pools| pools.fallback().or_else(|| pools.add(fresh)))
    }

    pub(crate) fn area(&self, swap_type: u8) -> Option<&Area> {
        self.areas.get(usize::from(swap_type))
    }

    pub(crate) fn areas(&self) -> impl Iterator<Item = (u8, &Area)> {
        (0..).zip(&self.areas)
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.stats().count(counter);
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal) {
        match refusal {
            Refusal::Disabled => self.count(Counter::RejectDisabled),
            Refusal::PoolLimit => {}
            Refusal::Hysteresis => self.count(Counter::RejectHysteresis),
            Refusal::ReclaimFail => self.count(Counter::RejectReclaimFail),
            Refusal::NonSameFilled => self.count(Counter::RejectNonSameFilled),
            Refusal::CompressPoor => self.count(Counter::RejectCompressPoor),
            Refusal::CompressFail => self.count(Counter::RejectCompressFail),
            Refusal::AllocFail => self.count(Counter::RejectAllocFail),
            Refusal::KmemcacheFail => self.count(Counter::RejectKmemcacheFail),
            Refusal::NoArea => {}
        }
    }

    /// The most bytes everything together may take.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.live.max_bytes(self.ram_bytes)
    }

    /// What is held now: pool pages exactly, metadata as last summed up.
    pub(crate) fn held_bytes(&self, worker: &Worker) -> u64 {
        worker.pools.total_bytes() + self.metadata.load(Relaxed)
    }

    /// Publishes the gauges that are computed, now and then.
    pub(crate) fn publish_sometimes(&self, worker: &mut Worker) {
        const EVERY: u32 = 128;
        worker.unpublished += 1;
        if worker.unpublished >= EVERY {
            self.publish(worker);
        }
    }

    pub(crate) fn publish(&self, worker: &mut Worker) {
        worker.unpublished = 0;
        let areas: u64 = self.areas.iter().map(|area| area.bytes() as u64).sum();
        let fixed = (size_of::<Zswap>() + size_of::<Stats>() + Batch::BYTES) as u64;
        let metadata = areas + fixed + self.workers.bytes(worker) + worker.pools.metadata_bytes();
        self.metadata.store(metadata, Relaxed);
        let stats = self.stats();
        stats.set(Counter::MetadataBytes, metadata);
        stats.set(Counter::PoolTotalSize, worker.pools.total_bytes());
        stats.set(Counter::PoolLimitBytes, self.max_bytes());
    }

    /// Frees an object that no entry names any more. The worker may be any.
    pub(crate) fn free(&self, worker: &Worker, object: Object) {
        if let Some(pool) = worker.pools.get(object.pool) {
            let freed = pool.zpool.free(object.handle);
            debug_assert!(freed.is_ok(), "an object was freed twice");
        }
    }

    /// Whether freeing in pool `number` may have emptied an old pool.
    pub(crate) fn is_drained(worker: &Worker, number: u8) -> bool {
        number != worker.pools.current()
            && worker.pools.get(number).is_some_and(|pool| pool.zpool.total_pages() == 0)
    }

    /// Frees old pools that hold nothing. To be called without a worker.
    pub(crate) fn retire_drained(&self) {
        self.workers.change_pools(Pools::retire_drained);
    }

    /// Waits until nothing that overlaps `extent` is being written, without a limit: requests of a device end.
    pub(crate) fn wait_for_writes<'a>(
        area: &'a Area,
        mut state: crate::sync::MutexGuard<'a, crate::area::State>,
        extent: Extent,
    ) -> crate::sync::MutexGuard<'a, crate::area::State> {
        while state.is_writing(extent) {
            area.quiet.wait(&mut state);
        }
        state
    }
}

fn find_compressor(lookup: Lookup, text: &str) -> Result<Arc<dyn zcomp::Compressor>, ParamError> {
    lookup(text.trim()).map_err(|error| match error {
        LookupError::BadParameter(expected) => ParamError::Invalid(expected),
        LookupError::Unavailable(why) => {
            ParamError::NoSuchName(format!("{} ({why})", zcomp::names().join(" ")))
        }
        _ => ParamError::NoSuchName(zcomp::names().join(" ")),
    })
}

fn find_zpool(profile: &Profile, text: &str) -> Result<&'static str, ParamError> {
    let names = || ParamError::NoSuchName(profile.zpools.join(" "));
    profile.zpools.iter().copied().find(|name| *name == text.trim()).ok_or_else(names)
}

fn make_pool(
    profile: &Profile,
    zpool: &str,
    compressor: Arc<dyn zcomp::Compressor>,
    config: &zpool::Config,
) -> Result<Pool, ParamError> {
    let zpool = zpool::create(zpool, config).map_err(|error| match error {
        zpool::CreateError::Unknown => ParamError::NoSuchName(zpool::drivers().join(" ")),
        zpool::CreateError::NoMemory => ParamError::NoMemory,
        _ => ParamError::Invalid("a chain size from 4 to 16".into()),
    })?;
    let allocator_evicts = profile.rules.eviction == Eviction::StoreAllocatorPage && zpool.driver() == "zbud";
    Ok(Pool { zpool, compressor, header: if allocator_evicts { HEADER } else { 0 }, fallback: false })
}
