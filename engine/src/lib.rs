//! Engine of retrograd.

pub mod cpu;
pub mod dtype;
pub mod error;
pub mod expr;
pub mod meter;
pub mod params;
pub mod shape;
pub mod storage;
pub mod tensor;

pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use params::Params;
pub use shape::{Dims, Lead, Shape};
pub use tensor::Tensor;
