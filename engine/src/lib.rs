//! The engine of retrograd: reverse-mode differentiation for recurrences.
//!
//! A recurrence is one small program applied `T` times. The engine records that program once, derives its adjoint
//! once, looks at both and makes a plan: what can leave the loop over time, what is kept, what is computed again,
//! where every byte lives. Then it replays the plan.
//!
//! # Record
//!
//! A [`Tape`] is a list of operations, a [`Var`] a place in it. Recording checks types and shapes and computes
//! nothing; `T` and the number of rows `N` of the batch are no part of it ([`Lead`]). [`scan()`] calls the step of a
//! recurrence once, with placeholders, on a tape of its own. [`grad`], [`vjp`] and [`jvp`] record more nodes: the
//! rule of an [`Op`] is symbolic, and the adjoint of a scan is a scan that walks the other way. What is planned,
//! fused, explained and differentiated again is therefore always the same kind of thing; there is no second
//! implementation of anything for "backward".
//!
//! ```
//! use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, core_ops, grad, matmul, scan};
//! # fn main() -> retrograd_engine::Result<()> {
//! let mut tape = Tape::new();
//! let w = tape.param("w", DType::F32, [8, 8])?;
//! let u = tape.param("u", DType::F32, [3, 8])?;
//! let h0 = tape.param("h0", DType::F32, [8])?;
//! let x = tape.input("x", DType::F32, Shape::sequence([3]))?;
//! let (h, ()) = scan(&mut tape, h0, x, |tape, h, x| {
//!     let (wh, ux) = (matmul(tape, h, w)?, matmul(tape, x, u)?);
//!     Ok((core_ops::add(tape, wh, ux)?, ()))
//! })?;
//! let sum = core_ops::sum_rows(&mut tape, h)?;
//! let loss = core_ops::sum_dims(&mut tape, sum, &[])?;
//! let w_bar = grad(&mut tape, loss, &[w])?[0];
//!
//! // Plan: the product with the input has left the loop, the one with the state has not.
//! let mut program = Program::new(&tape, &[loss, w_bar], RunOptions::default())?;
//! let plan = program.plan(100, 4)?.summary();
//! let phase = |name: &str| plan.scans[0].phases.iter().find(|p| p.name == name);
//! assert_eq!(phase("ahead").unwrap().calls[0].reads, ["x", "u"]);
//! assert!(phase("carry").unwrap().step_by_step);
//!
//! // Replay.
//! let mut values = Params::new();
//! for (name, dims) in [("w", vec![8, 8]), ("u", vec![3, 8]), ("h0", vec![8]), ("x", vec![100, 4, 3])] {
//!     values.insert(name, Tensor::full(DType::F32, dims, 0.01)?);
//! }
//! program.run(&[&values])?;
//! assert_eq!(program.last_peak_bytes(), plan.peak_bytes);
//! # Ok(()) }
//! ```
//!
//! # Plan
//!
//! **Phases.** What a step computes from parameters alone leaves it while it is recorded, and is computed *once* a
//! run. The rest is ordered by dependency. The textbook has three more phases: *ahead* (depends on the input but not
//! on the state), *carry* (on a path from state to state) and *after* (depends on the state, but no state on it);
//! only *carry* must run step by step, the others run for a whole chunk of steps at once. The planner generalizes
//! this. States that depend on each other in a circle form one loop, and there is a loop for each circle; whatever
//! lies on no path within a circle is batched before, between or after the loops. With one circle these are the
//! three phases. With a stack of layers in one scan each layer has its own loop, and its product with the layer
//! below, which depends on a state and would have been *carry*, becomes one product for the whole chunk *between*
//! the loops; the adjoint falls apart in the same way, in reverse. [`Plan::explain`] shows it.
//!
//! **Gradients of parameters** are sums over time of products. They are on no path from state to state, so each is
//! one contraction over the rows and steps of a chunk, not one for each step.
//!
//! **Curvature.** The adjoint of a linear map meets both its inputs and its cotangents, for a whole chunk of time at
//! once. [`statistics`] records their second moments there, within a step and from one step to the next, under the same
//! plans; [`curvature`] records products with the Gauss-Newton matrix through scans, by [`jvp`] and [`vjp()`].
//!
//! **Kept, rebuilt, replayed.** The adjoint reads values of the step. The cheapest set of values, in bytes, that
//! spares it every expensive operation is *kept*; what can be had from those by cheap operations is *rebuilt*, for
//! a chunk of steps at once. Under a byte budget ([`RunOptions::budget`]) only the states may be kept and
//! everything else rebuilt, or the sequence is cut into segments: one segment is recorded at a time, and the others
//! are *replayed* from checkpoints in the order of a [`schedule`] with the fewest extra steps. The last segment is
//! recorded once and never advanced over, so it takes what the budget leaves; the others may be so short that their
//! record stays in the caches. Of the plans that fit, the one that is expected to take least time at the machine's
//! [`Rates`] runs; [`Program::tradeoff`] lists them from the smallest budget to none.
//!
//! **Walked back.** Where the state before a step can be computed from the state after it, the adjoint may walk the states
//! back and keep one of them now and then: [`Scan::run_reversible`] records the inverse, [`Scan::walk_back`] asks for it.
//! What is walked back to is rounded, so this is no plan but part of the recording; how far it may be off is part of the
//! plan's text, and measured by every run.
//!
//! **Streams.** Where nobody knows how long a sequence is while it is read, [`Program::run_stream`] runs it segment by
//! segment, with so many checkpoints and no more, and gives the bits of a run that has all of it at hand.
//!
//! **Memory is arithmetic.** Every buffer has a place in one arena before anything runs; nothing is allocated
//! inside a loop. [`Plan::peak_bytes`] is what is measured, to the byte. A budget that no plan meets is an error
//! with the smallest budget that one does.
//!
//! **A plan never changes a result.** Rows are split into tiles, and the tiles depend on `N` and the step only; steps
//! are cut into chunks, and their length depends on the rows of a tile and the step only. Sums are formed within chunks and tiles and
//! put together in their order. Threads, budgets and schedules choose when and where a number is computed, never
//! how: all of them give the same bits on one machine. What does change results is no plan: a [`Horizon`] of gradients
//! is part of the recording, and so is [`Scan::walk_back`]; a [`Stash`] that keeps values for the adjoint in 16 bits is asked for by name. For each
//! stash all plans give the same bits again.
//!
//! A plan can be read as text ([`Plan::explain`]), seen ([`Plan::svg`]) and measured ([`Plan::summary`]).
//!
//! # Replay
//!
//! Rows of a batch do not depend on each other, so a thread takes a tile of rows through the whole sequence and
//! waits for nobody until the end. Weights of the loop are packed once, chains of pointwise operations are one
//! pass over registers, and the kernels are chosen for the instruction set at hand when the program is made. A step
//! that does mix the rows of the batch is run as one tile. So are few rows
//! where the matrix of a step is larger than a thread's cache, which every tile would read at every step: there the
//! threads share each call, by columns and by rows, and meet after it.
//!
//! With a [`device`] in [`RunOptions`] the same plan is replayed there: the calls of a step are written out as kernels, and
//! each piece of a scan is one launch.
//!
//! # What is not done yet
//!
//! - On a [`device`] other than the processor: rates that are measured.
//! - A scan whose states are read by more than its own adjoint (in derivatives of derivatives) hands out whole
//!   histories: they count in the budget but cannot be replayed.
//! - All scans of a program share one choice of segment length and slots.
//! - A scan inside the step of a scan is refused.

pub mod autodiff;
pub mod core_ops;
pub mod cpu;
pub mod curvature;
pub mod device;
pub mod dtype;
pub mod error;
mod exec;
pub mod expr;
pub mod gradcheck;
pub mod kernel;
pub mod layout;
pub mod matmul;
pub mod meter;
pub mod op;
pub mod params;
pub mod plan;
pub mod profile;
pub mod reference;
pub mod scan;
pub mod schedule;
pub mod shape;
pub mod stash;
pub mod state;
pub mod statistics;
pub mod storage;
pub mod tape;
pub mod tensor;

pub use autodiff::{grad, jvp, vjp};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use matmul::matmul;
pub use op::{Op, Ty};
pub use params::Params;
pub use plan::stream::{Source, Stream, StreamPlan, Streamed};
pub use plan::{Plan, PlanSummary, Program, Rates, RunOptions};
pub use profile::Profile;
pub use scan::{Horizon, Scan, scan};
pub use shape::{Dims, Lead, Shape};
pub use stash::Stash;
pub use state::State;
pub use tape::{Tape, Var};
pub use tensor::Tensor;
