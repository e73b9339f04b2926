//! Errors of this crate.

use std::fmt;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong on the way to, or on, a device.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine has no CUDA driver, or it does not load.
    #[error("no CUDA driver: {reason}")]
    NoDriver {
        /// Message of the loader.
        reason: String,
    },
    /// The driver is there, a device is not.
    #[error("no CUDA device: the driver is there (CUDA {}.{}), and it finds none", version / 1000, version % 1000 / 10)]
    NoDevice {
        /// Version of the driver, 1000·major + 10·minor; 0 if it does not say.
        version: i32,
    },
    /// There are devices, but not this one.
    #[error("CUDA device {asked} does not exist, there are {count}")]
    Ordinal {
        /// Number asked for.
        asked: u32,
        /// Number of devices.
        count: u32,
    },
    /// The driver is older than the kernels.
    #[error("the CUDA driver is too old for the kernels: it speaks CUDA {}.{}, they need {}.{} or newer",
        got / 1000, got % 1000 / 10, needs / 1000, needs % 1000 / 10)]
    OldDriver {
        /// Version of the driver.
        got: i32,
        /// Smallest version that loads the kernels.
        needs: i32,
    },
    /// The chip is older than the kernels.
    #[error("{device} has compute capability {}.{}, the kernels need {}.{} or newer", got.0, got.1, needs.0, needs.1)]
    Architecture {
        /// Name of the device.
        device: String,
        /// Compute capability of the device.
        got: (u32, u32),
        /// Smallest that runs the kernels.
        needs: (u32, u32),
    },
    /// The memory of the device does not hold a buffer.
    #[error("out of device memory: asked for {asked} bytes, {free} of {total} are free")]
    OutOfMemory {
        /// Bytes of the buffer.
        asked: u64,
        /// Bytes that were free when it failed.
        free: u64,
        /// Bytes of the device.
        total: u64,
    },
    /// A kernel was given something of another size than it needs.
    #[error("{kernel}: {argument} has {got} elements, expected {expected}")]
    Size {
        /// Name of the kernel.
        kernel: &'static str,
        /// Name of the argument with its letters, such as `ux [T,N,H]`.
        argument: String,
        /// Number of elements it should have.
        expected: u64,
        /// Number it has.
        got: u64,
    },
    /// A kernel cannot do what it is asked for.
    #[error("{kernel}: {argument} is {got}, {expected}")]
    Unsupported {
        /// Name of the kernel.
        kernel: &'static str,
        /// What it is about.
        argument: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: String,
    },
    /// A block needs more shared memory than the chip has.
    #[error("{kernel}: a block needs {asked} bytes of shared memory, the device has {limit}")]
    SharedMemory {
        /// Name of the kernel.
        kernel: &'static str,
        /// Bytes a block needs.
        asked: u64,
        /// Bytes a block can have.
        limit: u64,
    },
    /// A cooperative grid that does not fit the chip at once.
    #[error("{kernel}: {asked} blocks wait for each other, the device runs {limit} at once")]
    Cooperative {
        /// Name of the kernel.
        kernel: &'static str,
        /// Blocks of the grid.
        asked: u64,
        /// Blocks that run at once.
        limit: u64,
    },
    /// A module or a kernel that the device does not load.
    #[error("module {module}: {reason}")]
    Module {
        /// Name of the module.
        module: String,
        /// The driver's or the emulator's words.
        reason: String,
    },
    /// A kernel failed while it ran. Kernels run on after their launch returned, so it is one of those named; the
    /// last one is the likeliest, unless they were in a graph; with `RETROGRAD_LAUNCHES_WAIT=1` in the environment every
    /// launch waits for its kernel, and that one alone is named. The device refuses everything from then on.
    #[error("a kernel failed with {code}: {}", kernels.join(", "))]
    Fault {
        /// Kernels launched since the device was last waited for, each once, in order of their last launch.
        kernels: Vec<&'static str>,
        /// The driver's code.
        code: String,
    },
    /// A kernel did something on the emulated device that a real one would not have forgiven, or not noticed.
    #[error(transparent)]
    Emulated(#[from] crate::emulator::Fault),
    /// Another call of the driver failed.
    #[error("the CUDA driver failed in {call} with {code}")]
    Driver {
        /// What was being done.
        call: &'static str,
        /// The driver's code.
        code: String,
    },
}

/// Numbers with `×` between them, for messages.
pub(crate) fn times(numbers: &[impl fmt::Display]) -> String {
    numbers.iter().map(|n| n.to_string()).collect::<Vec<_>>().join("x")
}
