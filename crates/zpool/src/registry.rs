//! Drivers by name, as the kernel's zpool kept them: registered at load, and not to be unregistered while a pool lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::zbud::Zbud;
use crate::zsmalloc::Zsmalloc;
use crate::{BadHandle, ClassStats, Config, Handle, MallocError, Zpool};

/// Why no pool was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CreateError {
    /// No driver of that name is registered (ENOENT).
    Unknown,
    /// [`Config::chain_size`] is not from 4 to 16 (EINVAL).
    ChainSize,
    /// No address space or memory for the pool (ENOMEM).
    NoMemory,
}

impl CreateError {
    /// The errno for this.
    pub fn errno(self) -> i32 {
        match self {
            CreateError::Unknown => libc::ENOENT,
            CreateError::ChainSize => libc::EINVAL,
            CreateError::NoMemory => libc::ENOMEM,
        }
    }
}

/// Why a driver was not registered or unregistered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is taken (EEXIST).
    Exists,
    /// No driver of that name is registered (ENOENT).
    Unknown,
    /// Pools of this driver live (EBUSY).
    Busy,
}

impl RegisterError {
    /// The errno for this.
    pub fn errno(self) -> i32 {
        match self {
            RegisterError::Exists => libc::EEXIST,
            RegisterError::Unknown => libc::ENOENT,
            RegisterError::Busy => libc::EBUSY,
        }
    }
}

/// A kind of pool.
#[derive(Clone, Copy)]
pub struct Driver {
    /// What [`create`] finds it by.
    pub name: &'static str,
    /// Makes a pool.
    pub create: fn(&Config) -> Result<Box<dyn Zpool>, CreateError>,
}

struct Registered {
    driver: Driver,
    pools: Arc<AtomicUsize>,
}

fn registry() -> &'static Mutex<Vec<Registered>> {
    static REGISTRY: std::sync::OnceLock<Mutex<Vec<Registered>>> = std::sync::OnceLock::new();
    REGISTRY.get_or_init(|| {
        let builtin = [
            Driver { name: "zbud", create: |config| Ok(Box::new(Zbud::new(config)?)) },
            Driver { name: "zsmalloc", create: |config| Ok(Box::new(Zsmalloc::new(config)?)) },
        ];
        Mutex::new(builtin.map(|driver| Registered { driver, pools: Arc::default() }).into())
    })
}

/// Adds a driver.
pub fn register(driver: Driver) -> Result<(), RegisterError> {
    let mut drivers = registry().lock();
    if drivers.iter().any(|it| it.driver.name == driver.name) {
        return Err(RegisterError::Exists);
    }
    drivers.push(Registered { driver, pools: Arc::default() });
    Ok(())
}

/// Removes a driver that no pool uses.
pub fn unregister(name: &str) -> Result<(), RegisterError> {
    let mut drivers = registry().lock();
    let at = drivers.iter().position(|it| it.driver.name == name).ok_or(RegisterError::Unknown)?;
    if drivers[at].pools.load(SeqCst) > 0 {
        return Err(RegisterError::Busy);
    }
    drivers.remove(at);
    Ok(())
}

/// The names of the registered drivers.
pub fn drivers() -> Vec<&'static str> {
    registry().lock().iter().map(|it| it.driver.name).collect()
}

/// Makes a pool of the driver `name`.
pub fn create(name: &str, config: &Config) -> Result<Arc<dyn Zpool>, CreateError> {
    let drivers = registry().lock();
    let found = drivers.iter().find(|it| it.driver.name == name).ok_or(CreateError::Unknown)?;
    if !(4..=16).contains(&config.chain_size) {
        return Err(CreateError::ChainSize);
    }
    let pool = (found.driver.create)(config)?;
    found.pools.fetch_add(1, SeqCst);
    Ok(Arc::new(InUse { pool, pools: found.pools.clone() }))
}

/// A pool that its driver's count knows of.
struct InUse {
    pool: Box<dyn Zpool>,
    pools: Arc<AtomicUsize>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.pools.fetch_sub(1, SeqCst);
    }
}

impl Zpool for InUse {
    fn driver(&self) -> &'static str {
        self.pool.driver()
    }
    fn max_object(&self) -> usize {
        self.pool.max_object()
    }
    fn malloc(&self, size: usize) -> Result<Handle, MallocError> {
        self.pool.malloc(size)
    }
    fn free(&self, handle: Handle) -> Result<(), BadHandle> {
        self.pool.free(handle)
    }
    fn obj_read(&self, handle: Handle, read: &mut dyn FnMut(&[u8])) -> Result<(), BadHandle> {
        self.pool.obj_read(handle, read)
    }
    fn obj_write(&self, handle: Handle, bytes: &[u8]) -> Result<(), BadHandle> {
        self.pool.obj_write(handle, bytes)
    }
    fn put(&self, bytes: &[u8]) -> Result<Handle, MallocError> {
        self.pool.put(bytes)
    }
    fn total_pages(&self) -> usize {
        self.pool.total_pages()
    }
    fn metadata_bytes(&self) -> usize {
        self.pool.metadata_bytes()
    }
    fn compact(&self) -> usize {
        self.pool.compact()
    }
    fn oldest_page(&self) -> Option<Vec<Handle>> {
        self.pool.oldest_page()
    }
    fn rotate_page(&self, handle: Handle) {
        self.pool.rotate_page(handle);
    }
    fn class_stats(&self) -> Vec<ClassStats> {
        self.pool.class_stats()
    }
}
