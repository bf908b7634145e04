//! What can go wrong on a device.

/// Why a device call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// The pages asked for are not all on the device (EINVAL).
    OutOfRange,
    /// The device answered with this errno.
    Io(i32),
    /// An earlier call failed with this errno; the device is not asked any more (EIO).
    Latched(i32),
}
