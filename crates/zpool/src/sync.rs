//! The mutex of this crate: `parking_lot`'s, or `shuttle`'s under `--cfg shuttle`, where a checker runs the allocators
//! through many thread schedules.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(crate) use checked::{Mutex, MutexGuard};

#[cfg(shuttle)]
mod checked {
    pub(crate) use shuttle::sync::MutexGuard;

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
