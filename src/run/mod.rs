//! What a training run leaves on disk, and how it talks while it works.
//!
//! A run lives in one folder ([`RunFolder`]). It holds the exact configuration ([`CONFIG`]), one line per record
//! ([`Metrics`]), checkpoints ([`checkpoint`]), TensorBoard events ([`TensorBoard`]) and learning curves
//! ([`Chart`]). Whole files are replaced atomically and lines are appended whole, so a run that is killed at any
//! moment leaves a folder that can be read and resumed.

mod atomic;
pub mod checkpoint;
mod curves;
mod error;
mod folder;
mod lock;
mod metrics;
#[cfg(feature = "cli")]
mod pace;
#[cfg(feature = "cli")]
pub mod progress;
pub mod rates;
mod tensorboard;

pub use atomic::write_atomic;
pub use checkpoint::Checkpoint;
pub use curves::{Chart, Series, panels};
pub use error::{Error, Result};
pub use folder::{BEST, CONFIG, CURVES, LAST, LOCK, METRICS, PREVIOUS, RunFolder, latest_run, read_config};
pub use metrics::{Metrics, read_metrics};
pub use tensorboard::TensorBoard;
