//! The primitives everything else here is built on: `parking_lot` and `std`, or `shuttle` under `--cfg shuttle`, where
//! a checker runs the real engine through many thread schedules. Nothing else in the crate mentions shuttle.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic;

#[cfg(shuttle)]
pub(crate) use checked::{Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;

#[cfg(shuttle)]
mod checked {
    use std::time::Duration;

    pub(crate) use shuttle::sync::MutexGuard;

    /// `parking_lot`'s face on shuttle's mutex: nothing in the engine panics while it holds a lock, so poison is an
    /// error of the checker itself.
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

    /// `parking_lot`'s face on shuttle's condition variable. Time does not pass in the checker.
    #[derive(Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<'a, T>(&self, guard: &mut MutexGuard<'a, T>) {
            take(guard, |guard| self.0.wait(guard).expect("a lock was poisoned"));
        }

        pub(crate) fn wait_for<'a, T>(&self, guard: &mut MutexGuard<'a, T>, _limit: Duration) {
            self.wait(guard);
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// shuttle's wait takes the guard by value and parking_lot's by reference.
    fn take<'a, T>(guard: &mut MutexGuard<'a, T>, wait: impl FnOnce(MutexGuard<'a, T>) -> MutexGuard<'a, T>) {
        // SAFETY: the guard read out is handed to `wait`, which gives one back for the same mutex that is written into
        // its place; if `wait` panics, shuttle ends the whole execution and the process with it, so the copy left
        // behind in `guard` is never dropped a second time by code that goes on.
        unsafe { std::ptr::write(guard, wait(std::ptr::read(guard))) }
    }
}
