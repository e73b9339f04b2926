//! Engine of retrograd.

pub mod autodiff;
pub mod core_ops;
pub mod cpu;
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
pub mod reference;
pub mod scan;
pub mod schedule;
pub mod shape;
pub mod state;
pub mod storage;
pub mod tape;
pub mod tensor;

pub use autodiff::{grad, jvp, vjp};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use matmul::matmul;
pub use op::{Op, Ty};
pub use params::Params;
pub use plan::{Plan, Program, RunOptions};
pub use scan::{Horizon, Scan, scan};
pub use shape::{Dims, Lead, Shape};
pub use state::State;
pub use tape::{Tape, Var};
pub use tensor::Tensor;
