//! Training: from a configuration to a network, reproducibly.
//!
//! - [`TrainConfig`] says everything that determines a run; [`TrainConfig::new`] starts from published settings
//!   ([`PUBLISHED`]), [`TrainConfig::set_all`] changes them by `key=value`.
//! - [`Trainer`] trains in memory: a step, an evaluation. Its parts may be a caller's own ([`Parts`]).
//! - [`Session`] trains in a run folder and resumes there: a run that was killed at any moment ends with the same
//!   bits as one that was not.

mod config;
mod curvature;
mod defaults;
mod network;
mod noise;
mod parts;
mod position;
mod session;
mod settings;
mod trainer;

pub use config::{Length, Named, Precision, Settings, TrainConfig};
pub use defaults::{PUBLISHED, Published, TASK_DEFAULTS, TaskDefaults, published};
pub use network::{Peak, Totals};
pub use parts::{Parts, cell, initial, model_spec, operator, recipe, task};
pub use position::{Best, Position};
pub(crate) use session::stored_step;
pub use session::{RESULT, SNAPSHOTS, Session, Summary, TIMES, Watch, load_model, stored_config};
pub use settings::{KEYS, Key};
pub(crate) use trainer::MODEL;
pub use trainer::{Cost, Ended, Evaluation, Milestone, Step, Trainer};
