//! What the crate asks of a device, and nothing more.
//!
//! Two things answer: the driver of the machine, and a device emulated on the processor that interprets the same PTX
//! ([`emulator`](crate::emulator)).

#[cfg(target_os = "linux")]
mod graph;
#[cfg(target_os = "linux")]
pub(crate) mod real;
#[cfg(target_os = "linux")]
mod staging;
#[cfg(target_os = "linux")]
mod symbols;

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::Result;

/// PTX of a family of kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the source file without its ending, or of the program that it was made from. No two have the same.
    pub name: Cow<'static, str>,
    /// The text.
    pub ptx: Cow<'static, str>,
}

impl Module {
    /// One that is checked in.
    pub(crate) const fn fixed(name: &'static str, ptx: &'static str) -> Module {
        Module { name: Cow::Borrowed(name), ptx: Cow::Borrowed(ptx) }
    }
}

/// One kernel of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel<'m> {
    /// Where it is.
    pub module: &'m Module,
    /// Its name there.
    pub name: &'static str,
}

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x and y.
    pub blocks: (u32, u32),
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether all blocks have to run at once, because they wait for each other.
    pub cooperative: bool,
}

impl Grid {
    /// A row of independent blocks.
    pub fn row(blocks: u32, threads: u32, shared_bytes: u32) -> Grid {
        Grid { blocks: (blocks, 1), threads, shared_bytes, cooperative: false }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Address of a buffer; 0 where the kernel allows none.
    Address(u64),
    /// `long long`.
    I64(i64),
    /// `int`.
    I32(i32),
    /// `float`.
    F32(f32),
}

impl Arg {
    /// The address `elements` numbers of four bytes further on.
    pub(crate) fn offset(self, elements: usize) -> Arg {
        match self {
            Arg::Address(address) => Arg::Address(address + 4 * elements as u64),
            other => other,
        }
    }

    /// The value in the low bytes, and the number of bytes.
    pub(crate) fn bits(self) -> (u64, usize) {
        match self {
            Arg::Address(address) => (address, 8),
            Arg::I64(value) => (value as u64, 8),
            Arg::I32(value) => (u64::from(value as u32), 4),
            Arg::F32(value) => (u64::from(value.to_bits()), 4),
        }
    }
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Launch {
    /// The kernel's name in its module.
    pub(crate) kernel: &'static str,
    pub(crate) grid: Grid,
    pub(crate) args: Vec<Arg>,
}

/// Launches of kernels of a module that follow each other and are started again and again.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// No two have the same.
    pub(crate) number: u64,
    pub(crate) module: Arc<Module>,
    pub(crate) launches: Vec<Launch>,
}

impl Sequence {
    /// The kernel of one of the launches.
    pub(crate) fn kernel(&self, launch: &Launch) -> Kernel<'_> {
        Kernel { module: &self.module, name: launch.kernel }
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Name of the device.
    pub name: String,
    /// Compute capability.
    pub compute: (u32, u32),
    /// Version of the driver, 1000·major + 10·minor; 0 for the emulated device.
    pub driver: i32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of shared memory that a block can have.
    pub shared_bytes: u32,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Whether it starts all blocks of a launch at once if it is asked to.
    pub cooperative: bool,
    /// Cycles a second of a multiprocessor, at most; this and the next two are 0 where the driver does not say.
    pub clock_hz: u64,
    /// Bytes a second of its memory, at most.
    pub memory_bytes_per_second: u64,
    /// Bytes of the cache that all multiprocessors share.
    pub cache_bytes: u64,
    /// Whether it is the emulated one.
    pub emulated: bool,
}

/// What kernels have done on the emulated device, of all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernels launched.
    pub launches: u64,
    /// PTX instructions executed.
    pub instructions: u64,
    /// Those that read or wrote shared memory.
    pub shared_accesses: u64,
    /// Atomic additions: arrivals of blocks where a team meets.
    pub atomics: u64,
    /// Sequences of launches that have been started, each counted once.
    pub sequences: u64,
    /// Times that one was started.
    pub starts: u64,
    /// Those that were forgotten again.
    pub forgotten: u64,
}

/// What a device does. Everything happens in the order of the calls; launches and copies to the device may return before
/// they have happened, everything else waits.
pub(crate) trait Driver: std::fmt::Debug + Send + Sync {
    /// What the device is.
    fn describe(&self) -> &Description;
    /// Free bytes of its memory.
    fn free_bytes(&self) -> Result<u64>;
    /// A place for `bytes`, at least 1.
    fn allocate(&self, bytes: u64) -> Result<u64>;
    /// Gives a place back.
    fn release(&self, address: u64);
    /// Copies to the device; the bytes may change when it returns.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;
    /// Copies from the device.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    /// Sets bytes to 0.
    fn zero(&self, address: u64, bytes: u64) -> Result<()>;
    /// Starts a kernel. Whoever calls has checked that the arguments are what the kernel reads and writes.
    fn launch(&self, kernel: Kernel<'_>, grid: Grid, args: &[Arg]) -> Result<()>;
    /// Starts the kernels of a sequence, for which the same has been checked.
    fn start(&self, sequence: &Sequence) -> Result<()>;
    /// The same one by one, and waits. Returns the seconds of each, by the clock of the device: from the end of the one before.
    fn time(&self, sequence: &Sequence) -> Result<Vec<f64>>;
    /// Forgets what it keeps of a sequence that will not be started again.
    fn forget(&self, sequence: u64);
    /// How many blocks of a kernel, of so many threads with so much dynamic shared memory, run at once.
    fn resident(&self, kernel: Kernel<'_>, threads: u32, shared_bytes: u32) -> Result<u32>;
    /// Graphs launched so far, where there are any.
    fn graphs(&self) -> u64 {
        0
    }
    /// Forgets a module that will not be launched again; sequences of it have been forgotten.
    fn unload(&self, module: &Module);
    /// Waits for everything that was started.
    fn synchronize(&self) -> Result<()>;
    /// What kernels have done so far, where it is counted.
    fn counts(&self) -> Option<Counts> {
        None
    }
}
