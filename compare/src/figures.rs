//! Figures of several rounds, and processor time.

use std::fmt;
use std::time::Duration;

/// The middle of some figures, and their extremes.
pub fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

/// What ratios, and figures of different things, are averaged by.
pub fn geometric_mean(figures: impl IntoIterator<Item = f64>) -> f64 {
    let logarithms: Vec<f64> = figures.into_iter().map(f64::ln).collect();
    (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp()
}

/// Shows a median with its extremes, to as many digits as asked for: `{:.2}`.
pub struct Spread(pub Vec<f64>);

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (middle, least, most) = median(self.0.clone());
        let digits = f.precision().unwrap_or(2);
        write!(f, "{middle:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

/// Processor time that this thread took: what others do on the machine costs less of it than of the clock on the wall.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0, "every thread has a clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}
