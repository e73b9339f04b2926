//! The CUDA backend of retrograd: recurrent networks over whole sequences, one launch for each direction.
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
//! [`Gpu::emulated`] interprets the very PTX that a driver would load: see [`emulator`]. The tests compare states and every
//! gradient of every kernel with the CPU engine's in double precision, run each twice for equal bits, and hold the PTX to
//! the hash of its sources; `cuda/kernels/check` compiles it again and assembles it for three generations of chips.
//!
//! # What has never run on a device
//!
//! **All of it.** No figure of speed is known. The tests that want a device are ignored, with that reason;
//! `cuda/device-check` runs them where there is one. What only a device can show: that a driver loads the PTX, that the
//! forwarded calls of a driver newer than the bindings (CUDA 11.4) behave, that errors of a kernel arrive as
//! [`Error::Fault`], and how fast it is.
//!
//! # What is not here yet
//!
//! Programs of the engine do not run on the device: these are functions to be called one by one. No tensor cores, no
//! double precision, no peepholes, no reset after the product; no full matrix that is spread over several blocks (an H of
//! more than about 230 for one gate is read through the caches); no checkpoints inside a sequence; no graphs, and copies
//! wait.
//!
//! # How to add a kernel
//!
//! One `.cu` in `kernels/` whose head says what each parameter is, in which shape, in or out; `kernels/build`; one file in
//! `src/kernels/` with the one safe function that checks sizes and launches it, its `mod` line and, for a new `.cu`, its row
//! in the table of modules; its case in `tests/`, against the same computation on the CPU.
#![cfg_attr(not(target_os = "linux"), forbid(unsafe_code))]

pub mod driver;
pub mod emulator;
pub mod error;
pub mod gpu;
pub mod kernels;

pub use error::{Error, Result};
pub use gpu::{Buffer, Gpu};
