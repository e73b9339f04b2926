//! Few entries that are not zero: hard thresholding in three phases.

use std::collections::BTreeMap;

use retrograd_engine::{Params, Tensor};

use crate::constraint::{Constraint, Support};
use crate::elementwise::{Real, not_differentiable, with_real};
use crate::error::{Error, Result};
use crate::schedule::Clock;
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Of every parameter all but a share of its entries, the smallest ones, become 0.
///
/// - Updates up to `from`: nothing happens.
/// - Updates up to `fix`: every `every`-th update the smallest entries become 0; they may grow again in between.
/// - After that: once more at `fix`, and then what is 0 stays 0.
///
/// Shapes: any; complex entries by their modulus. A share of `keep` of `n` entries is `⌈keep · n⌉` of them; of equal
/// entries the first stay. The support is what is not 0 in the parameters themselves, so a run that is resumed goes on
/// to the same bits.
///
/// Source: iterative hard thresholding in Kusupati et al. (2018), "FastGRNN", NeurIPS, whose program trains a third of the
/// updates in each phase and thresholds every 15 batches. **Differs from** it: phases are counted in updates, since a
/// constraint does not know how many there will be.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// Share of entries that stay, more than 0 and at most 1.
    pub keep: f64,
    /// Updates of the first phase.
    pub from: u64,
    /// Updates of the first two phases.
    pub fix: u64,
    /// Updates from one thresholding to the next in the second phase.
    pub every: u64,
    /// Parameters it applies to.
    pub select: Select,
}

impl Sparse {
    /// Whether the smallest entries become 0 at this update, the first being 1.
    fn thresholds(&self, update: u64) -> bool {
        update == self.fix || (update > self.from && update < self.fix && update.is_multiple_of(self.every))
    }
}

impl Constraint for Sparse {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .with("keep", self.keep)
            .with("from", self.from)
            .with("fix", self.fix)
            .with("every", self.every)
            .with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Range::Unit.check(self.name(), "keep", self.keep)?;
        Range::Positive.check(self.name(), "keep", self.keep)?;
        Range::Positive.check(self.name(), "every", self.every as f64)?;
        if self.fix < self.from.max(1) {
            let expected = format!("at least 1 and `from`, {}", self.from);
            return Err(Error::Value {
                owner: self.name(),
                key: "fix".into(),
                expected,
                got: self.fix.to_string(),
            });
        }
        Ok(())
    }

    fn support(&self, params: &Params, clock: Clock) -> Result<Option<Support>> {
        if clock.step < self.fix {
            return Ok(None);
        }
        let mut support = BTreeMap::new();
        for name in self.select.names(self.name(), params)? {
            let param = params.require(&name)?;
            let kept = (0..param.len()).map(|i| param.get(i).norm_sqr() > 0.0).collect();
            support.insert(name, kept);
        }
        Ok(Some(support))
    }

    fn project(&self, params: &mut Params) -> Result<usize> {
        self.validate()?;
        apply(self, params, |param| Some(largest(param, self.keep)))
    }

    fn project_at(&self, params: &mut Params, clock: Clock, support: Option<&Support>) -> Result<usize> {
        self.validate()?;
        // The clock counts before the update that was made.
        if self.thresholds(clock.step + 1) {
            return self.project(params);
        }
        let Some(support) = support else { return Ok(0) };
        let mut moved = 0;
        for (name, kept) in support {
            let Some(param) = params.get_mut(name) else { continue };
            moved += with_real!(param, name, R => clear::<R>(param, kept))?;
        }
        Ok(moved)
    }
}

/// Clears what `kept` says of every selected parameter. Errors: nothing selected, a parameter that is no number.
fn apply(owner: &Sparse, params: &mut Params, kept: impl Fn(&Tensor) -> Option<Vec<bool>>) -> Result<usize> {
    let names = owner.select.names(owner.name(), params)?;
    for name in &names {
        let dtype = params.require(name)?.dtype();
        if !dtype.is_differentiable() {
            return Err(not_differentiable(name, dtype));
        }
    }
    let mut moved = 0;
    for name in &names {
        let Some(param) = params.get_mut(name) else { continue };
        let Some(kept) = kept(param) else { continue };
        moved += with_real!(param, name, R => clear::<R>(param, &kept))?;
    }
    Ok(moved)
}

/// Which entries are among the largest.
fn largest(param: &Tensor, keep: f64) -> Vec<bool> {
    let count = (keep * param.len() as f64).ceil() as usize;
    let mut order: Vec<usize> = (0..param.len()).collect();
    let size = |i: &usize| param.get(*i).norm_sqr();
    order.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let mut kept = vec![false; param.len()];
    order.iter().take(count).for_each(|&i| kept[i] = true);
    kept
}

/// Sets the other entries to 0; how many were not.
fn clear<R: Real>(param: &mut Tensor, kept: &[bool]) -> Result<usize> {
    let planes = param.dtype().planes();
    let mut moved = 0;
    for (entry, _) in
        param.components_mut::<R>()?.chunks_exact_mut(planes).zip(kept).filter(|(_, kept)| !**kept)
    {
        moved += usize::from(entry.iter().any(|x| x.wide() != 0.0));
        entry.fill(R::of(0.0));
    }
    Ok(moved)
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Constraint> = Entry {
    name: "sparse",
    summary: "a share of the entries stays, the others become zero, in three phases",
    options: &[
        OptionSpec::new("keep", "0.1", "share of the entries that stay"),
        OptionSpec::new("from", "0", "updates before the first thresholding"),
        OptionSpec::new("fix", "1", "update after which what is zero stays zero"),
        OptionSpec::new("every", "15", "updates from one thresholding to the next in between"),
        OptionSpec::new("params", "*", "patterns of the parameters it applies to"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let constraint = Sparse {
            keep: read.real("keep")?,
            from: read.count("from")?,
            fix: read.count("fix")?,
            every: read.count("every")?,
            select: Select::patterns(read.text("params")?),
        };
        constraint.validate()?;
        Ok(Box::new(constraint))
    },
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn params(values: &[f64]) -> Params {
        let mut params = Params::new();
        params.insert("w", Tensor::from_slice([values.len()], values).unwrap());
        params
    }

    fn values(params: &Params) -> Vec<f64> {
        params.require("w").unwrap().as_slice::<f64>().unwrap().to_vec()
    }

    #[test]
    fn three_phases() {
        let sparse = Sparse { keep: 0.5, from: 2, fix: 6, every: 2, select: Select::all() };
        let mut p = params(&[3.0, -1.0, 2.0, -4.0, 0.5]);
        let mut seen = vec![];
        for step in 0..9 {
            let clock = Clock { step, epoch: 0 };
            let support = sparse.support(&p, clock).unwrap();
            // An update that moves everything.
            p.get_mut("w").unwrap().as_mut_slice::<f64>().unwrap().iter_mut().for_each(|x| *x += 0.25);
            sparse.project_at(&mut p, clock, support.as_ref()).unwrap();
            seen.push(values(&p).iter().filter(|x| **x != 0.0).count());
        }
        // Updates 1 to 3 are dense, 4 thresholds, 5 grows again, 6 thresholds, then the support is fixed: 3 of 5.
        assert_eq!(seen, [5, 5, 5, 3, 5, 3, 3, 3, 3]);
        assert_eq!(values(&p), [5.25, 0.0, 4.25, -1.75, 0.0]);
    }

    #[test]
    fn settings_out_of_range() {
        for (set, want) in [("keep=0", "keep"), ("keep=1.5", "keep"), ("every=0", "every"), ("from=9", "fix")]
        {
            let settings = Settings::parse([set]).unwrap();
            let message = (ENTRY.build)(&settings).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(want), "{set}: {message}");
        }
        let mut p = params(&[1.0]);
        let sparse = Sparse { keep: 0.5, from: 0, fix: 1, every: 1, select: Select::patterns("v") };
        assert!(matches!(sparse.project(&mut p), Err(Error::NoMatch { .. })));
    }
}
