//! Comparisons that papers make, from one table to one picture.

mod cells;
mod size;

pub use cells::{
    CONTESTANTS, Contestant, MEMORY_TASKS, MemoryTask, Outcome, PARAMETERS, chart, contestant_config,
    outcome, table,
};
pub use size::{Sized, at_most_near};
