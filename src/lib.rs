//! Facade.
#![forbid(unsafe_code)]

pub mod run;
pub mod train;

pub use retrograd_cells as cells;
pub use retrograd_datasets as datasets;
pub use retrograd_engine as engine;
pub use retrograd_ops as ops;
pub use retrograd_optim as optim;
pub use run::{Error, Result};
