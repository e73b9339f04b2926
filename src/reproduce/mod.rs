//! Comparisons that papers make, from one table to one picture.

mod cells;
mod size;

pub use cells::{
    CONTESTANTS, Contestant, Family, MEMORY_TASKS, MemoryTask, Outcome, PARAMETERS, contestant_config,
    outcome, picture, table,
};
pub use size::{Sized, at_most_near};
