//! Working memory that is asked for and not taken for granted.

/// An array of zeros; `None` where there is no memory.
pub(crate) fn zeroed<T: Copy + Zero, const N: usize>() -> Option<Box<[T; N]>> {
    let mut items = Vec::new();
    items.try_reserve_exact(N).ok()?;
    items.resize(N, T::ZERO);
    items.into_boxed_slice().try_into().ok()
}

/// What an array begins as.
pub(crate) trait Zero {
    const ZERO: Self;
}

impl Zero for u8 {
    const ZERO: u8 = 0;
}

impl Zero for u16 {
    const ZERO: u16 = 0;
}

impl<const N: usize> Zero for [u8; N] {
    const ZERO: [u8; N] = [0; N];
}
