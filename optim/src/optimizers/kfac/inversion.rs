//! From the statistics of a batch to cached inverses: averages, damping, decompositions now or beside training.

use retrograd_engine::{Params, Tensor};

use super::Kfac;
use crate::error::{Error, Result};
use crate::kfac::Curvature;
use crate::kfac::approximation::Lengths;
use crate::kfac::background::Task;
use crate::kfac::block::{Block, Inversion, WEIGHT, mean_curvature};

/// First λ as a multiple of the mean curvature `tr F / n` of maps. With π and λ/T the Kronecker factors of a map of mean
/// curvature are damped by the root of it times the mean of their own eigenvalues.
const FIRST_DAMPING: f64 = 10.0;

/// Takes over cached inverses.
fn adopt(found: Vec<(String, Tensor)>, tensors: &mut Params) -> Result<()> {
    for (key, tensor) in found {
        let shaped = match tensors.get(&key) {
            Some(old) => tensor.reshape(old.dims())?,
            None => tensor,
        };
        tensors.insert(key, shaped);
    }
    Ok(())
}

impl Kfac {
    /// Adds the statistics of a batch to the averages; the lengths of its rows.
    pub(super) fn gather(
        &self,
        step: u64,
        curvature: &mut dyn Curvature,
        tensors: &mut Params,
    ) -> Result<Vec<(usize, f64)>> {
        let moments = curvature.moments(step)?;
        let bound = self.blocks.iter().map(|b| match b {
            Block::Map(m) => m.parts.iter().map(|p| p.0 + 1).max().unwrap_or(0),
            _ => 0,
        });
        let expected = bound.max().unwrap_or(0);
        if moments.maps.len() < expected || moments.rows == 0 {
            let got = format!("{} of {} rows", moments.maps.len(), moments.rows);
            let expected = format!("at least {expected} of at least 1 row");
            return Err(Error::Mismatch { what: "statistics of maps".into(), expected, got });
        }
        for block in &self.blocks {
            block.accumulate(&moments, self.decay, tensors)?;
        }
        let weight = self.decay * Kfac::scalar(tensors, WEIGHT)? + 1.0 - self.decay;
        tensors.insert(WEIGHT, Tensor::scalar(weight));
        Ok(moments.lengths)
    }

    fn inversion(&self, lambda: f64) -> Inversion {
        Inversion {
            approximation: self.approximation,
            lambda,
            power: self.damping_power,
            pi: self.pi,
            decay: self.decay,
        }
    }

    /// The damping of an inversion: the first one if this is the first, and no less than the floor if it is adapted.
    pub(super) fn damping_now(
        &self,
        step: u64,
        lambda: f64,
        lengths: &Lengths,
        tensors: &Params,
    ) -> Result<f64> {
        let first = self.schedule.is_first(step) && self.damping.is_none();
        let Some(lm) = self.adaptation.filter(|_| !first && self.damping_floor == 0.0) else {
            let weight = Kfac::scalar(tensors, WEIGHT)?;
            let mean = mean_curvature(&self.blocks, lengths, weight, tensors)?;
            let least = self.adaptation.map_or(0.0, |lm| lm.least.max(self.damping_floor * mean));
            return Ok(if first { FIRST_DAMPING * mean } else { lambda }.max(least));
        };
        Ok(lambda.max(lm.least))
    }

    /// Begins an inversion; without a lag, and the first one, ends it too. Whether it did.
    pub(super) fn begin(
        &self,
        first: bool,
        lengths: &Lengths,
        lambda: f64,
        tensors: &mut Params,
        threads: usize,
    ) -> Result<bool> {
        let weight = Kfac::scalar(tensors, WEIGHT)?;
        let task = Task::now(&self.blocks, self.inversion(lambda), lengths, weight, tensors);
        if first || self.schedule.inverse_lag == 0 {
            adopt(task.run(&self.blocks, threads)?, tensors)?;
            return Ok(true);
        }
        task.store(tensors)?;
        // As it will be read back.
        let task = Task::load(&self.blocks, self.inversion(lambda), tensors)?;
        self.background.start(&self.blocks, task);
        Ok(false)
    }

    /// Takes over the inversion begun earlier; `false` where there is none.
    pub(super) fn take_over(&self, lambda: f64, tensors: &mut Params, threads: usize) -> Result<bool> {
        if !Task::is_stored(tensors) {
            return Ok(false);
        }
        let task = Task::load(&self.blocks, self.inversion(lambda), tensors)?;
        adopt(self.background.finish(&self.blocks, &task, threads)?, tensors)?;
        Task::clear(tensors)?;
        Ok(true)
    }
}
