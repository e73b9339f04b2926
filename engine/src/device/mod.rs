//! Devices other than the processor: what a backend brings, and how programs run there.
//!
//! A backend implements [`Device`]: it allocates, copies, and runs [`Kernel`]s, which it prints in its own language (they
//! are [statements](Statement) over registers). A program is given one in [`RunOptions`](crate::RunOptions):
//!
//! ```ignore
//! let options = RunOptions { device: Some(Arc::new(Gpu::open(0)?)), ..RunOptions::default() };
//! let mut program = Program::new(&tape, &outputs, options)?;
//! ```
//!
//! Everything else is the engine's, and is the same as on the processor: the plan, its arena (one allocation of the
//! device, of exactly the planned bytes), the schedules of checkpoints, the chunks of time. What differs:
//!
//! * The calls of a step are not interpreted but written out: each piece of a scan (an action of a schedule, over a range
//!   of steps) is **one launch** of a kernel made from the recorded step. A block takes a tile of rows, goes through the
//!   chunks and runs batched stages and loops by itself; its threads meet after every call.
//! * Tiles are of [`ROWS`] rows, since a device has more blocks than the processor has threads. Where the matrices of a loop
//!   do not fit into the shared memory of one block, as many blocks share a tile as hold them: a [team](Kernel::team), whose
//!   blocks have to run at once and wait for each other where one reads what another one wrote.
//! * The launches of a run depend on its plan and on addresses alone. They are listed when these change and handed over as
//!   a [`Sequence`]; a run copies its values, starts the sequence and reads its outputs. So a device may make of the list
//!   what is quick to start. A sequence that arrives piece by piece ([`run_stream`](crate::Program::run_stream)) is copied
//!   piece by piece, and each action of a scan is a list of its own, started when its turn comes.
//! * Bound values and constants have places there, so [`Plan::peak_bytes`](crate::Plan::peak_bytes) counts them. Those
//!   without an entry for every step or row stay from run to run beside the arena and are copied when they have changed;
//!   [`Resident`] ones belong to the caller, who may change them there ([`Program::run_with`](crate::Program::run_with)).
//! * What a loop over steps reads at every step, as matrices, and values that never leave it lie in the block's shared
//!   memory as far as they fit.
//! * Every element of a result is computed in an order that depends on the problem and the size of teams alone, so neither
//!   the number of threads nor plans nor budgets change a bit. It is one thread's, but for products with matrices at a step,
//!   whose terms the threads of a block share, for lines of [`WARP`] elements and more, which are a warp's where they are
//!   summed, and for sums over many steps and rows outside of scans, which go in parts. Elementary functions are recorded from
//!   the processor's own code and have its bits, but for what it starts from estimates or leaves to scalar code: beyond 10⁵ `sin` and `cos` are NaN here, powers are within two
//!   units of the last place, and denormal numbers are kept.
//!
//! A structured operation brings a [`DeviceKernel`] in its own file
//! ([`Structured::device`](crate::kernel::Structured::device)). One that does not is [`Error::NoDeviceKernel`] when the
//! program is made.
//!
//! [`Products`] with matrices in single precision are exact, unless the device was asked to form them on tensor cores.
//!
//! A run that is [profiled](crate::profile) starts the same launches one by one and has the device's [time](Device::time) of
//! each. Its results have the same bits.

mod call;
mod code;
mod emit;
mod functions;
mod kernel;
mod pieces;
mod product;
mod profile;
mod program;
mod record;
mod region;
mod resident;
mod run;
mod scan;
mod sequence;
mod slices;
mod sums;
mod table;
mod team;
mod tensor;
mod walk;

pub use code::{Building, Code, Kernel, Op, Space, Statement, Type, Value};
pub use kernel::{DeviceKernel, Entry, Piece};
pub(crate) use pieces::Pieces;
pub(crate) use profile::{Host, Timed};
pub(crate) use program::{Compiled, compile};
pub use region::Region;
pub use resident::{Array, Resident};
pub use run::Left;
pub(crate) use run::{Arena, Given, Ran, run, staying};
pub use sequence::Sequence;
pub(crate) use sums::Sum;
pub(crate) use team::{rows_of, teams};
pub use tensor::{Products, WARP};

use crate::error::{Error, Result};
use crate::plan::Rates;

/// Rows of a batch that a block takes; a [team](Kernel::team) takes as many as it has blocks, if that is more.
pub const ROWS: usize = 4;

/// A device that runs kernels. Calls take effect in their order; launches may go on after they return.
///
/// Errors of all of them: [`Error::Device`] with the backend's own words.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Its name, for errors.
    fn name(&self) -> String;

    /// Bytes of shared memory that a block can have.
    fn shared_bytes(&self) -> usize;

    /// Threads that a block should have; at least [`WARP`].
    fn threads(&self) -> u32;

    /// Multiprocessors: blocks that run at once, one on each.
    fn multiprocessors(&self) -> usize;

    /// Most blocks that may wait for each other; 1 where it cannot start several for sure at once.
    fn together(&self) -> usize {
        self.multiprocessors()
    }

    /// What a block does in a second, and the memory of all blocks: plans are compared by it.
    fn rates(&self) -> Rates;

    /// How products with matrices are formed there.
    fn products(&self) -> Products {
        Products::Exact
    }

    /// Bytes of buffers that are alive, counted by the backend: what a run's peak is measured by.
    fn used_bytes(&self) -> usize;

    /// A buffer of so many bytes, at least 1; its contents are arbitrary. A multiple of 256 is its address.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives a buffer back.
    fn release(&self, address: u64);

    /// Copies to the device.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Copies from the device, after everything that was started.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Makes kernels ready; returns a number for them.
    fn load(&self, kernels: &[Kernel]) -> Result<u64>;

    /// Forgets kernels, and the sequences of them that are left.
    fn unload(&self, kernels: u64);

    /// How many blocks of kernel `index` of those loaded as `kernels` can run at once.
    fn resident(&self, kernels: u64, index: usize) -> Result<usize>;

    /// Takes launches of kernels loaded as `kernels` that follow each other; returns a number for them.
    fn sequence(&self, kernels: u64, launches: Vec<Launch>) -> Result<u64>;

    /// Starts the launches of a sequence, in order. All blocks of a kernel that has [teams](Kernel::team) run at once. Errors
    /// then: they do not fit.
    fn start(&self, sequence: u64) -> Result<()>;

    /// Starts the launches of a sequence one by one and waits for the last. Returns the seconds of each that has blocks, by
    /// the device's clock: from the end of the one before it, so where the host is slower than the device it is the time
    /// between two launches. Errors then: as those of [`start`](Device::start).
    fn time(&self, sequence: u64) -> Result<Vec<f64>>;

    /// Forgets a sequence, unless it went with its kernels. What it started may still run.
    fn forget(&self, sequence: u64);
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Which one of those that were loaded together.
    pub index: usize,
    /// By so many blocks.
    pub blocks: u32,
    /// What its parameters are.
    pub args: Vec<Argument>,
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An address.
    Address(u64),
    /// An integer.
    Int(i32),
}

/// A device does not do something.
pub(crate) fn without(op: impl Into<String>, what: impl Into<String>) -> Error {
    Error::NoDeviceKernel { op: op.into(), what: what.into() }
}
