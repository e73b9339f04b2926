//! Benchmark tasks for recurrent networks: generators, readers, splits, metrics and baselines.
//!
//! Every task gives its batches at random access, as a pure function of a [`Request`], so that a run can be
//! stopped anywhere and resumed to the same bits:
//!
//! ```
//! use retrograd_datasets::{Options, Request, Split, task};
//!
//! let adding = task("adding", &Options::new().with("T", 50))?;
//! let request = Request { split: Split::Train, batch_size: 20, epoch: 0, index: 7, seed: 1 };
//! let batch = adding.batch(&request)?;
//! assert_eq!(batch.x.dims(), [50, 20, 2]);
//! assert_eq!(batch.target.dims(), [20, 1]);
//! assert_eq!(batch, adding.batch(&request)?);
//! # Ok::<(), retrograd_datasets::Error>(())
//! ```
//!
//! # How to add a task
//!
//! One file in `tasks/`, its `mod` line and its line in [`TASKS`]. A task of your own needs neither:
//!
//! ```
//! use retrograd_datasets::{At, Batch, Error, Input, Loss, Metric, Request, Split, Task, TaskSpec};
//! use retrograd_engine::{DType, Tensor};
//!
//! /// Was there an odd number of ones?
//! struct Parity(TaskSpec);
//!
//! impl Task for Parity {
//!     fn spec(&self) -> &TaskSpec {
//!         &self.0
//!     }
//!
//!     fn batches(&self, _: Split, batch_size: usize) -> usize {
//!         256usize.div_ceil(batch_size)
//!     }
//!
//!     fn batch(&self, r: &Request) -> Result<Batch, Error> {
//!         let start = r.index * r.batch_size;
//!         let n = r.batch_size.min(256 - start);
//!         let mut x = Tensor::zeros(DType::I32, [8, n])?;
//!         let mut target = Tensor::zeros(DType::I32, [n])?;
//!         for (i, bit) in x.as_mut_slice::<i32>()?.iter_mut().enumerate() {
//!             *bit = ((start + i % n) >> (i / n) & 1) as i32;
//!         }
//!         for (i, odd) in target.as_mut_slice::<i32>()?.iter_mut().enumerate() {
//!             *odd = (start + i).count_ones() as i32 % 2;
//!         }
//!         Ok(Batch { x, target, mask: None, lengths: None })
//!     }
//! }
//!
//! let loss = Loss::SoftmaxCrossEntropy { classes: 2 };
//! let spec = TaskSpec::new("parity", Input::Index { vocabulary: 2 }, loss, At::Last, Metric::Accuracy)
//!     .with_baseline(2f64.ln(), "finds both answers equally likely")
//!     .with_steps(8);
//! let parity: Box<dyn Task> = Box::new(Parity(spec));
//! let request = Request { split: Split::Test, batch_size: 100, epoch: 0, index: 2, seed: 0 };
//! assert_eq!(parity.batch(&request)?.rows(), 56);
//! # Ok::<(), Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod audio;
pub mod catalog;
pub mod data_dir;
pub mod error;
mod examples;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod mt19937;
pub mod options;
mod random;
pub mod readers;
pub mod recipes;
mod stream;
pub mod task;
pub mod tasks;
mod windows;

pub use error::{Error, Result};
pub use options::{OptionDoc, Options, Settings};
pub use task::{At, Batch, Input, Loss, Metric, Pieces, Request, Split, Task, TaskSpec};
pub use tasks::{TASKS, TaskEntry, find, task};
