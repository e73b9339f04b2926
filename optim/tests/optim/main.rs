//! Properties of optimisers and their surroundings, driven by the crate's tables.
#![allow(clippy::unwrap_used)]

mod common;
mod convergence;
mod restore;
mod surroundings;
mod trajectories;
mod unitary;
