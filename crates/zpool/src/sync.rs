//! The mutex and the atomic counters of this crate: `parking_lot`'s and `std`'s, or `shuttle`'s under `--cfg shuttle`,
//! where a checker runs the allocators through many thread schedules.
//!
//! Atomics inside mapped memory (handle chunks) stay `std`'s: shuttle's have no all-zero form. That hides no schedule:
//! the one of them that is read without a lock is followed at once by a lock, where the checker may switch.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
#[cfg(not(shuttle))]
pub(crate) use std::thread::yield_now;

#[cfg(shuttle)]
pub(crate) use checked::Mutex;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::MutexGuard;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
#[cfg(shuttle)]
pub(crate) use shuttle::thread::yield_now;

#[cfg(shuttle)]
mod checked {
    use shuttle::sync::MutexGuard;

    /// `parking_lot`'s face on shuttle's mutex. A poisoned lock means that the checker found a panic already.
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a lock was poisoned")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}
