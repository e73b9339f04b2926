//! The CUDA backend of retrograd: programs of the engine on a GPU, and hand-written kernels for whole sequences.
//!
//! # Programs
//!
//! A [`Gpu`] is a [`Device`](retrograd_engine::device::Device) of the engine. Whatever can be recorded runs on it, with its
//! derivatives, under the plans, budgets and schedules of the engine:
//!
//! ```
//! use std::sync::Arc;
//!
//! use retrograd_cuda::Gpu;
//! use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, core_ops, grad, matmul, scan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut tape = Tape::new();
//! let w = tape.param("w", DType::F64, [2, 2])?;
//! let h0 = tape.param("h0", DType::F64, [2])?;
//! let x = tape.input("x", DType::F64, Shape::sequence([2]))?;
//! let (h, ()) = scan(&mut tape, h0, x, |tape, h, x| {
//!     let wh = matmul(tape, h, w)?;
//!     Ok((core_ops::add(tape, wh, x)?, ()))
//! })?;
//! let sum = core_ops::sum_rows(&mut tape, h)?;
//! let loss = core_ops::sum_dims(&mut tape, sum, &[])?;
//! let w_bar = grad(&mut tape, loss, &[w])?[0];
//!
//! // The GPU of this machine; or, where there is none, the one that is emulated on the processor.
//! let gpu = Gpu::open(0).unwrap_or_else(|_| Gpu::emulated());
//! let options = RunOptions { device: Some(Arc::new(gpu)), ..RunOptions::default() };
//! let mut program = Program::new(&tape, &[loss, w_bar], options)?;
//! let mut values = Params::new();
//! for (name, dims) in [("w", vec![2, 2]), ("h0", vec![2]), ("x", vec![3, 2, 2])] {
//!     values.insert(name, Tensor::full(DType::F64, dims, 0.5)?);
//! }
//! assert_eq!(program.run(&[&values])?[0].item()?, 8.0);
//! assert_eq!(program.last_peak_bytes(), program.plan(3, 2)?.peak_bytes());
//! # Ok(()) }
//! ```
//!
//! The engine writes the kernels, as statements over registers ([`retrograd_engine::device`] says how); this crate prints
//! them as PTX, which the driver assembles when the first of them is launched. So nothing but the driver is needed, the
//! step of a recurrence becomes one kernel however it was composed, and a piece of a scan is one launch. Single and double
//! precision, real and complex numbers come out of the one generator. With `RETROGRAD_PTX` set to a folder the PTX of every
//! program is written there.
//!
//! **Teams.** Where the matrices of a loop do not fit into the shared memory of one block, as many blocks as hold them, a
//! power of two up to 128, share the rows of a tile. Each has some of the columns of every matrix in its shared memory for all
//! steps of a launch, which is cooperative. They meet over a counter in memory, and only where one reads what another one
//! wrote: once a step in an LSTM, twice in a GRU. `explain` says how many blocks share a tile. Sums over rows go tile by
//! tile, and tiles of teams have more rows: bits of gradients are those of a device's teams.
//!
//! **Graphs.** The first run of a program with its numbers of steps and rows, within its budget, launches its kernels one by
//! one; the second makes CUDA graphs of them, and from then on a run is copies and the launch of a few graphs. Runs whose
//! lengths change every time pay for none. A graph has the memory that the driver gives it beside what is planned; where the
//! driver has none left, or no graphs, launches go on one by one. So they do with `RETROGRAD_LAUNCHES_WAIT=1`.
//!
//! **Profiles.** A run that is [profiled](retrograd_engine::profile) launches its kernels one by one, each between two events
//! of the stream; graphs stay for the runs after it. On the emulated device the seconds are those of interpreting a kernel:
//! they say which launches there are, and nothing of a GPU.
//!
//! **Products.** At a step of a loop the threads of a block share the terms of a product with a matrix: each adds one in eight
//! of them, at most, for a tile of up to eight rows and columns, which it reads from shared memory four at a time, and what
//! they have is added there. So a thread multiplies more often than it reads, though a step has few elements. How terms are
//! shared depends on their number alone, and products outside of loops add them in the same order.
//!
//! Products in single precision are exact, as on the processor, unless [`Gpu::with_products`] asks for tensor cores
//! (`--products tf32` or `bf16` of the program): factors rounded to 10 or 7 bits of mantissa, sums in single precision (of
//! `mma.sync`, which adds a few terms at a time). It goes for every product with a matrix, inside loops and outside, real and
//! complex, forward and in the adjoint. Gradients of matrices are sums over steps and rows and stay exact, as does double
//! precision. Plans and budgets change no bit with it either.
//!
//! # Kernels written by hand
//!
//! Beside them stand functions that run the sequences of some networks in one launch for each direction, to be called one
//! by one. They know more of their network than the generator does (a Kronecker product stays in registers over all steps)
//! and are in single precision.
//!
//! ```
//! use retrograd_cuda::Gpu;
//! use retrograd_cuda::kernels::kru::{Activation, Kru, KruCotangents, KruInputs};
//!
//! // The GPU of this machine; or, where there is none, the one that is emulated on the processor.
//! let gpu = Gpu::open(0).unwrap_or_else(|_| Gpu::emulated());
//!
//! // h_t = modReLU((W_0 ⊗ W_1) h_{t−1} + ux_t; b): complex, H = 6, T = 4 steps of N = 2 rows.
//! let unit = Kru::new(&gpu, &[2, 3], Activation::Exact)?;
//! let (factors, ux) = (gpu.upload(&[0.3f32; 2 * (4 + 9)])?, gpu.upload(&[0.1f32; 4 * 2 * 6 * 2])?);
//! let b = gpu.zeros(6)?;
//! let inputs = KruInputs { factors: &factors, ux: &ux, b: Some(&b), h0: None, lengths: None };
//! let (mut h, mut last) = (gpu.zeros(4 * 2 * 6 * 2)?, gpu.zeros(2 * 6 * 2)?);
//! unit.forward(4, 2, inputs, &mut h, &mut last)?;
//!
//! // The gradients of a loss whose cotangent of the last state is 1.
//! let last_bar = gpu.upload(&[1.0f32; 2 * 6 * 2])?;
//! let bars = KruCotangents { h_bar: None, last_bar: Some(&last_bar) };
//! let mut out = unit.gradients(4, 2)?;
//! unit.backward(4, 2, inputs, &h, bars, &mut out)?;
//! assert_eq!(out.factors_bar.download()?.len(), 26);
//! # Ok::<(), retrograd_cuda::Error>(())
//! ```
//!
//! # What is here
//!
//! | module | one launch does |
//! |---|---|
//! | [`kernels::kru`] | a whole sequence of the Kronecker recurrent unit, complex or real, any factors |
//! | [`kernels::rnn`], [`kernels::gru`], [`kernels::lstm`] | a whole sequence with full matrices, in shared memory where they fit |
//! | [`kernels::irnn`] | a whole sequence with all inner steps, full or thin matrices |
//! | [`kernels::matmul`], [`kernels::reduce`] | a product, a sum; in a fixed order |
//! | [`kernels::softmax`] | softmax cross-entropy with its cotangent |
//! | [`kernels::adam`] | an update of all parameters |
//!
//! A row of the batch is a block of its own and waits for no other one, so a launch has no barrier across the chip. What
//! depends on the input alone (`ux`) comes from outside, as one product over all steps, and its cotangent goes out the
//! same way. The backward passes keep the states alone and form everything else again. Gradients of parameters are
//! products over all steps and rows, or sums of each row's own share: always in the same order, never with atomics, so
//! that two runs give the same bits. Numbers of steps, rows and states are arguments of the launch; offsets are 64 bits
//! wide.
//!
//! # How it links
//!
//! Through `cust` 0.3.2, which wants a CUDA installation when it is built and the driver's library when it is linked.
//! Neither is there in general, so the repository's `.cargo/config.toml` sets `CUDA_LIBRARY_PATH` to `cuda/link`, a folder
//! with an empty `lib64/libcuda.a` and nothing else: it satisfies the linker and hides no library of an installed toolkit
//! (and a value that is set in the environment wins). The driver's functions are defined here, each of them forwarding
//! to `libcuda.so.1`, which is opened when the first one is called. So a program that contains this crate starts
//! anywhere, and [`Gpu::open`] says [`Error::NoDriver`] where there is no driver.
//!
//! **As a dependency of another workspace** this crate needs `CUDA_LIBRARY_PATH` too, because cargo reads no configuration
//! of dependencies: point it at a folder that holds `lib64/libcuda.a`, which may be empty (`printf '!<arch>\n'`), or at an
//! installed toolkit. On systems other than Linux nothing of CUDA is compiled, and only the emulated device is there.
//!
//! # How it is checked without a GPU
//!
//! [`Gpu::emulated`] interprets the very PTX that a driver would load: see [`emulator`]. Programs of every cell, operator
//! and operation of the tables run there and give what they give on the processor but for rounding, with equal bits under
//! every budget and from run to run, and the planned peak to the byte. The tests of the kernels compare states and every
//! gradient of every kernel with the CPU engine's in double precision, run each twice for equal bits, and hold the PTX to
//! the hash of its sources; `cuda/kernels/check` compiles it again and assembles it for three generations of chips. It
//! does the same with what the engine writes, of which no kernel may spill either, but for a few bytes where it takes all 255
//! registers (on 2026-12-01, for sm_80, where the assembler takes most: for every cell 68 programs of 2054 kernels of 256
//! threads, at most 202 registers; with teams of blocks 20 of 571, at most 236; with rounded records 16 of 408, at most 236; of
//! every operation, in double precision, 622 of 3198, of which two, the gradients of complex Kronecker factors, lack two
//! registers; and for all three chips, with products on tensor cores, 16 of 600, at most 156).
//!
//! # What has never run on a device
//!
//! **All of it.** No figure of speed is known, neither of the kernels nor of programs. The tests that want a device are
//! ignored, with that reason; `cuda/device-check` runs them where there is one. What only a device can show: that a driver
//! loads the PTX, that the forwarded calls of a driver newer than the bindings (CUDA 11.4) behave, those for graphs among
//! them, that errors of a kernel arrive as [`Error::Fault`] (of those that were started since the device was last waited
//! for; of one, with `RETROGRAD_LAUNCHES_WAIT=1`), and how fast it is.
//!
//! # What is not here yet
//!
//! *Of programs.* Values that are on the device already are not read by a run over pieces
//! ([`run_stream`](retrograd_engine::Program::run_stream)). Exact products outside of loops, and gradients of matrices, have four
//! rows and four columns a thread and read through the caches; on tensor cores a warp has 16 columns of 8 entries, and outside of loops it rounds a
//! factor each time it reads it. Matrices of a loop that all blocks of a device together do not hold (an LSTM of more than
//! 1300 states on an H100, in single precision) are read through the caches as far as they do not fit, and states go through
//! the device's memory. An FFT whose length is no power of two, or whose row does not fit, is a product with the matrix of
//! roots. A scatter of gradients into a table looks at every index for every eight columns of a row of the table. Estimates
//! of time, by which the engine chooses among plans that fit a budget, start from what the driver says of the chip, not from
//! measurements; without a budget everything is kept.
//!
//! *Of training.* Parameters, gradients and the optimizer's state stay on the device where the optimizer treats every
//! component alike (`sgd`, `rmsprop`, `adam`, `adamw`), gradients are clipped by their norm or not at all, and there are
//! neither penalties nor constraints nor noise; otherwise updates run on the processor, and what they change is copied.
//! Inputs are copied through two halves of pinned memory without waiting, on the stream of the kernels, so behind them.
//!
//! *Of the kernels.* No tensor cores, no double precision, no peepholes, no reset after the product; no full matrix that is
//! spread over several blocks (an H of more than about 230 for one gate is read through the caches); no checkpoints inside
//! a sequence.
//!
//! *Of both.* A cooperative launch is in no graph, and those between two of them are graphs of their own. A failure is given
//! to the kernels that were launched since the device was last waited for.
//!
//! # How to add a kernel
//!
//! One `.cu` in `kernels/` whose head says what each parameter is, in which shape, in or out; `kernels/build`; one file in
//! `src/kernels/` with the one safe function that checks sizes and launches it, its `mod` line and, for a new `.cu`, its row
//! in the table of modules; its case in `tests/`, against the same computation on the CPU.
#![cfg_attr(not(target_os = "linux"), forbid(unsafe_code))]

mod device;
pub mod driver;
pub mod emulator;
pub mod error;
pub mod gpu;
pub mod kernels;
mod ptx;

pub use error::{Error, Result};
pub use gpu::{Buffer, Gpu};
