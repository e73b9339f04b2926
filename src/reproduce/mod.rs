//! Comparisons that papers make, from one table to one picture.

mod cells;
mod kfac;
mod outcomes;
mod size;

pub use cells::{
    CONTESTANTS, Contestant, Family, MEMORY_TASKS, MemoryTask, PARAMETERS, SEARCHED, Training, Trial,
    contestant_config, trials,
};
pub use kfac::{
    COST_SIZES, ENTRANTS, Entrant, MEASURE, Moment, PROBLEMS, Problem, Run, UpdateCost, kfac_chart,
    kfac_table, problem_config, rate, tuned, update_cost,
};
pub use outcomes::{Outcome, outcome, picture, quickest, table};
pub use size::{Sized, at_most_near};
