//! Comparisons that papers make, from one table to one picture.

mod cells;
mod kfac;
mod size;

pub use cells::{
    CONTESTANTS, Contestant, Family, MEMORY_TASKS, MemoryTask, Outcome, PARAMETERS, contestant_config,
    outcome, picture, table,
};
pub use kfac::{
    COST_SIZES, ENTRANTS, Entrant, MEASURE, Moment, PROBLEMS, Problem, Run, UpdateCost, kfac_chart,
    kfac_table, problem_config, rate, tuned, update_cost,
};
pub use size::{Sized, at_most_near};
