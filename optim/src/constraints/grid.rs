//! Weights of few bits.

use retrograd_engine::{Params, Tensor};

use crate::constraint::{Constraint, Support};
use crate::elementwise::{Real, not_differentiable, with_real};
use crate::error::{Error, Result};
use crate::schedule::Clock;
use crate::select::Select;
use crate::settings::{OptionSpec, Settings};
use crate::table::Entry;

/// Every entry is rounded to one of `2^bits − 1` levels, evenly spaced from `−m` to `m`, the largest modulus of a real
/// component of its parameter: what signed integers of so many bits and one scale hold.
///
/// It begins at update `from`: small updates get lost in rounding, so this is for the last one (`from` = number of
/// updates), or for the last few. Zero stays zero.
///
/// Source: Kusupati et al. (2018), "FastGRNN", NeurIPS: byte-quantized weights of FastGRNN-LSQ. **Differs from** it: there
/// rounding happens after training, outside of it; the scale is that of each parameter in both.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Bits of an entry, 2 to 16.
    pub bits: u64,
    /// First update that is rounded.
    pub from: u64,
    /// Parameters it applies to.
    pub select: Select,
}

impl Constraint for Grid {
    fn name(&self) -> &'static str {
        "grid"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("bits", self.bits).with("from", self.from).with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        match self.bits {
            2..=16 => Ok(()),
            bits => {
                let expected = "2 to 16".into();
                Err(Error::Value { owner: self.name(), key: "bits".into(), expected, got: bits.to_string() })
            }
        }
    }

    fn project(&self, params: &mut Params) -> Result<usize> {
        self.validate()?;
        let names = self.select.names(self.name(), params)?;
        for name in &names {
            let dtype = params.require(name)?.dtype();
            if !dtype.is_differentiable() {
                return Err(not_differentiable(name, dtype));
            }
        }
        let mut moved = 0;
        for name in &names {
            let Some(param) = params.get_mut(name) else { continue };
            moved += with_real!(param, name, R => round::<R>(param, self.bits))?;
        }
        Ok(moved)
    }

    fn project_at(&self, params: &mut Params, clock: Clock, _: Option<&Support>) -> Result<usize> {
        // The clock counts before the update that was made.
        if clock.step + 1 < self.from { self.validate().map(|()| 0) } else { self.project(params) }
    }
}

fn round<R: Real>(param: &mut Tensor, bits: u64) -> Result<usize> {
    let levels = f64::from((1u32 << (bits - 1)) - 1);
    let components = param.components_mut::<R>()?;
    let largest = components.iter().map(|x| x.wide().abs()).fold(0.0, f64::max);
    if largest == 0.0 || !largest.is_finite() {
        return Ok(0);
    }
    let mut moved = 0;
    for x in components {
        let rounded = R::of((x.wide() / largest * levels).round() / levels * largest);
        moved += usize::from(rounded.wide() != x.wide());
        *x = rounded;
    }
    Ok(moved)
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Constraint> = Entry {
    name: "grid",
    summary: "entries are rounded to few bits, from some update on",
    options: &[
        OptionSpec::new("bits", "8", "bits of an entry, 2 to 16"),
        OptionSpec::new("from", "0", "first update that is rounded"),
        OptionSpec::new("params", "*", "patterns of the parameters it applies to"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let (bits, from) = (read.count("bits")?, read.count("from")?);
        let constraint = Grid { bits, from, select: Select::patterns(read.text("params")?) };
        constraint.validate()?;
        Ok(Box::new(constraint))
    },
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let mut params = Params::new();
        params.insert("w", Tensor::from_slice([5], &[6.0, -1.1, 2.9, 0.0, -6.0]).unwrap());
        let grid = Grid { bits: 3, from: 3, select: Select::all() };
        assert_eq!(grid.project_at(&mut params, Clock { step: 1, epoch: 0 }, None).unwrap(), 0);
        // Three levels on either side of 0, 2 apart.
        assert_eq!(grid.project_at(&mut params, Clock { step: 2, epoch: 0 }, None).unwrap(), 2);
        assert_eq!(params.require("w").unwrap().as_slice::<f64>().unwrap(), [6.0, -2.0, 2.0, 0.0, -6.0]);
        assert_eq!(grid.project(&mut params).unwrap(), 0);
        assert!(Grid { bits: 1, ..grid }.validate().is_err());
    }
}
