//! What a network says about its parameters, and what it hands over: the seam between recording and optimising.

use std::collections::BTreeMap;
use std::ops::Range;

use retrograd_engine::{Params, Tensor};

use super::approximation::Lengths;
use crate::error::{Error, Result};

/// A linear map among the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSpec {
    /// Its matrix; `None` for a bias alone.
    pub weight: Option<String>,
    /// Whether the matrix is `[outputs, inputs]`.
    pub transposed: bool,
    /// A vector added to the product, and its element at `outputs.start`.
    pub bias: Option<(String, usize)>,
    /// Its outputs as places of the matrix (of the bias where there is none).
    pub outputs: Range<usize>,
    /// Whether inputs choose rows of the matrix.
    pub lookup: bool,
    /// Whether it is used at every step, or once a sequence.
    pub every_step: bool,
    /// Times it is used in one row of one step.
    pub uses: usize,
    /// Maps of one matrix with the same number share their inputs.
    pub input: usize,
}

/// The linear maps of a network, in the order of [`Moments::maps`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structure {
    /// Maps; parameters in none of them have no input and output.
    pub maps: Vec<MapSpec>,
}

/// What statistics have to hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    /// Whether `A_1` and `G_1` are needed.
    pub lag: bool,
    /// Most outputs that share one `G`.
    pub widest: usize,
    /// Where targets come from.
    pub targets: Targets,
    /// Share of a batch's rows that statistics are taken of.
    pub stats_rows: f64,
    /// Share of a batch's rows that products with the Gauss-Newton matrix are made with.
    pub model_rows: f64,
}

/// Rows of a batch below which no share of it goes.
const FEWEST_ROWS: usize = 8;

impl Wanted {
    /// The rows that make up a share of a batch of `rows`, in the update number `step`: next to each other, and other ones
    /// from update to update. At least 8, where there are as many.
    pub fn rows(share: f64, rows: usize, step: u64) -> Vec<usize> {
        let wanted = (share * rows as f64).ceil() as usize;
        let n = wanted.max(FEWEST_ROWS).min(rows);
        let first = if n == rows { 0 } else { (step as usize).wrapping_mul(n) % rows };
        (0..n).map(|i| (first + i) % rows).collect()
    }
}

/// Where the targets come from whose gradients make the `G`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Targets {
    /// Drawn from what the network predicts: the Fisher information.
    #[default]
    Sampled,
    /// Those of the data: the "empirical Fisher", which is not the Fisher information.
    Empirical,
}

/// Sums over a batch for one map: what `MapStatistics` of the engine records.
#[derive(Clone, Debug)]
pub struct MapMoments {
    /// `Σ ā āᴴ`, or its diagonal; `None` where the input is the constant 1.
    pub a0: Option<Tensor>,
    /// `Σ ā_{t+1} ā_tᴴ`.
    pub a1: Option<Tensor>,
    /// `Σ g gᴴ`.
    pub g0: Tensor,
    /// `Σ g_{t+1} g_tᴴ`.
    pub g1: Option<Tensor>,
}

/// Statistics of a batch.
#[derive(Clone, Debug)]
pub struct Moments {
    /// In the order of [`Structure::maps`].
    pub maps: Vec<MapMoments>,
    /// Gradients of the sum over rows of `−log p` at the targets the `G` were taken with, by parameter. With targets of
    /// the data each row has a random sign.
    pub gradients: Params,
    /// Number of rows.
    pub rows: usize,
    /// Lengths of the rows and their frequencies.
    pub lengths: Vec<(usize, f64)>,
}

impl Moments {
    /// Lengths and frequencies of rows. Rows of 0 steps count as 1. An empty batch has length 1.
    pub fn lengths_of(rows: impl IntoIterator<Item = usize>) -> Vec<(usize, f64)> {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for t in rows {
            *counts.entry(t.max(1)).or_default() += 1;
        }
        let all: usize = counts.values().sum();
        match all {
            0 => vec![(1, 1.0)],
            _ => counts.into_iter().map(|(t, n)| (t, n as f64 / all as f64)).collect(),
        }
    }

    /// Number of terms in the sums of a map.
    pub(crate) fn count(&self, map: &MapSpec) -> f64 {
        super::approximation::mean_length(lengths_of_map(&self.lengths, map)) * (self.rows * map.uses) as f64
    }
}

/// Lengths of sequences that a map is used at every step of; of others 1.
pub(crate) fn lengths_of_map<'a>(lengths: &'a Lengths, map: &MapSpec) -> &'a Lengths {
    if map.every_step { lengths } else { &[(1, 1.0)] }
}

/// What an optimiser may ask of the network and the batch at hand, at parameters of its choice.
pub trait Curvature {
    /// Statistics of the batch (or of a share of its rows) at the parameters before the update. `step` seeds the drawn
    /// targets.
    fn moments(&mut self, step: u64) -> Result<Moments>;

    /// `d_iᵀ F d_j` for every pair of directions, row by row: exact products with the Gauss-Newton matrix of the mean loss
    /// of the batch (or of a share of its rows), without damping. A parameter that a direction lacks has 0.
    fn products(&mut self, step: u64, directions: &[&Params]) -> Result<Vec<f64>>;

    /// Mean loss of the batch at other parameters.
    fn loss(&mut self, params: &Params) -> Result<f64>;

    /// Mean loss of the batch before the update.
    fn loss_before(&self) -> f64;

    /// Threads that the optimiser may use; no result depends on it.
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }
}

/// A curvature that cannot be asked: for updates that need none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCurvature;

impl Curvature for NoCurvature {
    fn moments(&mut self, _: u64) -> Result<Moments> {
        Err(Error::Missing { what: "the statistics of a network".into() })
    }

    fn products(&mut self, _: u64, _: &[&Params]) -> Result<Vec<f64>> {
        Err(Error::Missing { what: "the curvature of a network".into() })
    }

    fn loss(&mut self, _: &Params) -> Result<f64> {
        Err(Error::Missing { what: "the loss of a network".into() })
    }

    fn loss_before(&self) -> f64 {
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_rows_move_on() {
        assert_eq!(Wanted::rows(1.0, 5, 3), [0, 1, 2, 3, 4]);
        assert_eq!(Wanted::rows(0.1, 5, 3), [0, 1, 2, 3, 4]);
        assert_eq!(Wanted::rows(0.1, 40, 0), (0..8).collect::<Vec<_>>(), "never fewer than 8");
        assert_eq!(Wanted::rows(0.5, 40, 0), (0..20).collect::<Vec<_>>());
        assert_eq!(Wanted::rows(0.5, 40, 1), (20..40).collect::<Vec<_>>());
        let wrapped: Vec<usize> = (36..40).chain(0..8).collect();
        assert_eq!(Wanted::rows(0.3, 40, 3), wrapped);
    }
}
