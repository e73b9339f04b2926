//! Facade.

pub mod run;

pub use run::{Error, Result};
