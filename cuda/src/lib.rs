//! The CUDA backend of retrograd.
#![cfg_attr(not(target_os = "linux"), forbid(unsafe_code))]

pub mod driver;
pub mod emulator;
pub mod error;
pub mod gpu;
pub mod kernels;

pub use error::{Error, Result};
pub use gpu::{Buffer, Gpu};
