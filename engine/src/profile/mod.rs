//! Where the time of a run goes.
//!
//! A program made with [`RunOptions::profile`](crate::RunOptions::profile) times every kernel call of its plan and
//! what the executor does between them; [`Program::last_profile`](crate::Program::last_profile) says what it
//! found. Every thread reads a clock after each call and adds to numbers of its own, which are put together when it
//! has ended, so the time between two readings is that of the call between them and no thread waits for another. Each
//! reading costs some tens of nanoseconds, which counts where calls are tiny. Results have the same bits.
//!
//! The numbers lie outside the arena and are not tensors: plan and measurement of memory
//! ([`Plan::peak_bytes`](crate::Plan::peak_bytes), [`meter`](crate::meter)) do not know them. They take 24 bytes for
//! each instruction and thread while a run lasts.
//!
//! # On a device
//!
//! A run on a [`device`](crate::device) has a line for whatever is launched, with the seconds of the
//! [device's clock](crate::device::Device::time); `calls` are launches. A call outside the loops is a line as on the
//! processor. A piece of a scan is one kernel, so a form of a scan's step is one line, `kernel of 12 calls` in phase `steps`,
//! with the operations and bytes that its calls have together, and of the kind that most of these operations are; the
//! states that it copies and the values that it rounds between them count in its seconds alone. Copies are lines too, with the
//! seconds that the host was busy with them. What remains of the run is idle: launches that start, modules that are loaded,
//! copies on their way. Such a run starts its launches one by one, so it takes longer than others do.

mod clock;
mod lines;
mod sites;

pub(crate) use clock::{Clock, Tally, Times, Totals};
pub(crate) use lines::{At, profile, work};
pub(crate) use sites::{Own, Sites, first_site, programs};

/// What kind of work an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Products of matrices, dense or structured (Kronecker), and the sums of outer products that are their
    /// gradients.
    Product,
    /// Fused chains of operations element by element.
    Pointwise,
    /// Bytes that go elsewhere: copies, rearrangements, packing, fills, casts, states stored and restored.
    Movement,
    /// Everything else: reductions, softmax, gathers, sums of tiles.
    Other,
}

impl Work {
    /// Every kind.
    pub const ALL: [Work; 4] = [Work::Product, Work::Pointwise, Work::Movement, Work::Other];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Work::Product => "products",
            Work::Pointwise => "pointwise",
            Work::Movement => "data movement",
            Work::Other => "everything else",
        }
    }
}

/// In which form a step runs: a scan has up to four programs of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// The scan itself: a forward scan recording for its adjoint, an adjoint walking back, a scan that does neither.
    Run,
    /// Steps of a forward scan whose values will be replayed, so that nothing of them is recorded.
    Sweep,
    /// Forward steps that an adjoint replays to reach a segment.
    Advance,
    /// Forward steps that an adjoint replays to record a segment.
    Record,
}

impl Pass {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Pass::Run => "run",
            Pass::Sweep => "sweep",
            Pass::Advance => "replayed, advancing",
            Pass::Record => "replayed, recording",
        }
    }
}

/// One instruction of a plan, or one thing the executor does of its own, in a run; on a device also a form of a scan's step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProfileLine {
    /// Number of the item of the program it is, or is part of. Binding inputs and returning outputs have the
    /// number of items, as have copies to a device and back.
    pub item: usize,
    /// The scan it is part of; `None` outside the loops.
    pub scan: Option<String>,
    /// The form of the scan's step; `None` outside the loops and for the executor's own work.
    pub pass: Option<Pass>,
    /// Stage of the step, as [`PhaseSummary::name`](crate::plan::PhaseSummary::name); empty without a pass. On a device
    /// `steps`: all of them.
    pub phase: String,
    /// Whether the stage, or one of a device's, runs step by step; else a chunk of steps (outside the loops, everything) at once.
    pub step_by_step: bool,
    /// Whether this is an instruction of the plan; else the executor's own work (states copied, sums cleared), or a kernel
    /// of several instructions.
    pub instruction: bool,
    /// Operations, in order; several if they are fused.
    pub operations: Vec<String>,
    /// Values read.
    pub reads: Vec<String>,
    /// Values written, as `name[width]`.
    pub writes: Vec<String>,
    /// What kind of work it is; of several instructions, the kind of most of their floating-point operations.
    pub work: Work,
    /// Seconds, summed over threads; of a launch, the device's.
    pub seconds: f64,
    /// How often it was carried out. What is split over threads outside the loops counts once. On a device, launches.
    pub calls: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes of its operands, read and written: what caches do not spare it.
    pub bytes: f64,
}

impl ProfileLine {
    /// `tanh(a, b) -> h[128]`.
    pub fn text(&self) -> String {
        let name = self.operations.join("+");
        if !self.instruction {
            return name;
        }
        format!("{name}({}) -> {}", self.reads.join(", "), self.writes.join(", "))
    }

    /// Floating-point operations a second of one thread; 0 if no time was seen.
    pub fn flops_per_second(&self) -> f64 {
        rate(self.flops, self.seconds)
    }

    /// Bytes a second of one thread; 0 if no time was seen.
    pub fn bytes_per_second(&self) -> f64 {
        rate(self.bytes, self.seconds)
    }
}

fn rate(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

/// Where the time of one run went.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Steps `T`.
    pub steps: usize,
    /// Rows `N`.
    pub rows: usize,
    /// Threads; 1 on a device, where one launch follows the other.
    pub threads: usize,
    /// Name of the device; `None` for the processor.
    pub device: Option<String>,
    /// Seconds from the values bound to the tensors returned.
    pub wall_seconds: f64,
    /// Every instruction, in the order of the program, and the executor's own work.
    pub lines: Vec<ProfileLine>,
}

impl Profile {
    /// What the threads had together: `threads · wall_seconds`.
    pub fn thread_seconds(&self) -> f64 {
        self.threads as f64 * self.wall_seconds
    }

    /// Seconds of all threads in one kind of work.
    pub fn seconds(&self, work: Work) -> f64 {
        self.lines.iter().filter(|l| l.work == work).map(|l| l.seconds).sum()
    }

    /// Seconds of all threads in which they did something; at most [`thread_seconds`](Profile::thread_seconds).
    pub fn busy_seconds(&self) -> f64 {
        self.lines.iter().map(|l| l.seconds).sum()
    }

    /// Seconds of all threads in which they did nothing: fewer tiles than threads, tiles that end at different
    /// times, work that is not split. On a device: what neither a launch nor the host's copies took.
    pub fn idle_seconds(&self) -> f64 {
        (self.thread_seconds() - self.busy_seconds()).max(0.0)
    }

    /// Floating-point operations of the run, as counted while it ran.
    pub fn flops(&self) -> f64 {
        self.lines.iter().map(|l| l.flops).sum()
    }

    /// Part of [`thread_seconds`](Profile::thread_seconds); 0 if there were none.
    pub fn share(&self, seconds: f64) -> f64 {
        rate(seconds, self.thread_seconds())
    }

    /// The `n` lines that took longest, longest first.
    pub fn top(&self, n: usize) -> Vec<&ProfileLine> {
        let mut lines: Vec<&ProfileLine> = self.lines.iter().collect();
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        lines.truncate(n);
        lines
    }
}
