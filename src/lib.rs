//! Reverse-mode differentiation that walks backwards in time.
//!
//! A recurrent network is one small program applied T times. **retrograd** records its step once, derives the
//! step's adjoint once, plans both — what leaves the time loop, what is kept, what is rebuilt, where every byte
//! lives — and replays the plan. A step written in plain lines then runs like a kernel written by hand for it, within
//! any memory budget that is possible at all, and to the same bits whatever the budget and the number of threads.
//!
//! ```
//! use retrograd::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, grad, matmul, ops, scan};
//!
//! let mut tape = Tape::new();
//! let w = tape.param("w", DType::F32, [8, 8])?;
//! let u = tape.param("u", DType::F32, [3, 8])?;
//! let h0 = tape.param("h0", DType::F32, [8])?;
//! let x = tape.input("x", DType::F32, Shape::sequence([3]))?; // [T,N,3], any T, any N
//! let (h, _) = scan(&mut tape, h0, x, |tape, h, x| {
//!     let (wh, ux) = (matmul(tape, h, w)?, matmul(tape, x, u)?);
//!     let a = ops::add(tape, wh, ux)?;
//!     Ok((ops::tanh(tape, a)?, ())) // the next state, and nothing for every step
//! })?;
//! let squares = ops::square(&mut tape, h)?;
//! let loss = ops::mean_all(&mut tape, squares)?;
//! let w_bar = grad(&mut tape, loss, &[w])?[0];
//!
//! let options = RunOptions { budget: Some(256 << 10), ..RunOptions::default() };
//! let mut program = Program::new(&tape, &[loss, w_bar], options)?;
//! let values: Params = [("w", [8, 8]), ("u", [3, 8])]
//!     .map(|(name, dims)| Ok((name.to_string(), Tensor::full(DType::F32, dims, 0.1)?)))
//!     .into_iter().collect::<retrograd::engine::Result<_>>()?;
//! let mut inputs = Params::new();
//! inputs.insert("h0", Tensor::zeros(DType::F32, [8])?);
//! inputs.insert("x", Tensor::full(DType::F32, [10_000, 4, 3], 1.0)?);
//! let out = program.run(&[&values, &inputs])?;
//! assert_eq!(out[1].dims(), [8, 8]);
//! assert!(program.last_peak_bytes() <= 256 << 10);
//! # Ok::<(), retrograd::Error>(())
//! ```
//!
//! | to | look at |
//! |---|---|
//! | record, differentiate, plan, run, check gradients | [`engine`] |
//! | find an operation | [`ops`] |
//! | use or write a cell or a recurrent operator | [`cells`] |
//! | update parameters | [`optim`] |
//! | read or generate data | [`datasets`] |
//! | train from a configuration, in memory or in a folder that can be resumed | [`train`] |
//! | read what a run left behind | [`run`] |
//! | look inside a trained network | [`diagnose`] |
//! | compare networks as papers do | [`reproduce`] |
//! | run whole sequences on a GPU | `cuda`, with the feature of that name |
//!
//! The feature `cli` (on by default) adds the program `retrograd` and all that only it needs, the feature `cuda` (on by
//! default) the CUDA backend; a library that depends on this one does without: `default-features = false`.
#![forbid(unsafe_code)]

pub mod diagnose;
pub mod reproduce;
pub mod run;
pub mod train;

pub use retrograd_cells as cells;
#[cfg(feature = "cuda")]
pub use retrograd_cuda as cuda;
pub use retrograd_datasets as datasets;
pub use retrograd_engine as engine;
pub use retrograd_engine::{
    DType, Horizon, Params, Plan, Program, RunOptions, Scan, Shape, State, Tape, Tensor, Var, grad, jvp,
    matmul, scan, vjp,
};
pub use retrograd_ops as ops;
pub use retrograd_optim as optim;
pub use run::{Error, Result};

/// The README's example, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
