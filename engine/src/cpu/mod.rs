//! Kernels for the CPU.
//!
//! **The invariant that everything rests on.** Every output element of every kernel is produced by a fixed
//! sequence of floating-point operations that depends only on the problem (the program of a pointwise pass, the
//! inner size of a product), never on the element's position, its tile, the handling of remainders, the
//! chunking, or the thread. So any split of a kernel over rows, columns or time gives the same bits on the same
//! instruction set. (The bits of a NaN are not fixed, only that it is one.)
//!
//! What follows from it: a vector lane computes what every other lane does; a partial vector goes through the
//! same code as a whole one; sums are single chains over ascending index, and no kernel sums in parallel.
//! Instruction sets differ: the portable one rounds products before it adds them, and AVX-512 starts quotients, roots
//! and moduli in f32 from the processor's own estimates, so makers of processors may differ there too.
//!
//! | module | what |
//! |---|---|
//! | [`isa`] | which instruction set: detected, or named by `RETROGRAD_ISA` |
//! | [`pointwise`] | a [`ScalarProgram`](crate::expr::ScalarProgram) over rows × columns |
//! | [`gemm`] | products with packed weights; transposed products for their gradients |
//! | [`butterfly`] | products with a Kronecker product of 2 × 2 matrices |
//! | [`transpose`](fn@transpose) | rows into lanes and back |
//! | [`Caches`] | how large they are |
//! | [`pool`] | threads, with denormals flushed |
//! | [`multiversion`](fn@multiversion) | plain Rust loops compiled for every instruction set |
//!
//! This is, with the storage, the only place with `unsafe` code.

pub mod butterfly;
mod caches;
pub mod gemm;
pub mod isa;
mod math;
mod multiversion;
pub mod pointwise;
pub mod pool;
mod real;
mod simd;
mod transpose;

pub use caches::Caches;
pub use gemm::{
    Accumulate, gemm_packed, gemm_packed_raw, gemm_tn, gemm_tn_raw, pack, packed_len, product_peak,
};
pub use isa::Isa;
pub use multiversion::{Multiversion, fma, multiversion, multiversion_on};
pub use pointwise::{Compiled, In, Out};
pub use pool::{Denormals, Pool, with_denormals};
pub use real::Real;
pub use transpose::transpose;
