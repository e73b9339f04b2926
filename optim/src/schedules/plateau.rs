//! Reduction when the validation metric stops improving.

use crate::error::Result;
use crate::schedule::{Clock, LrSchedule, LrState};
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Reduce on plateau: multiplies the rate by γ when the metric has not improved for more than `patience`
/// observations in a row. PyTorch's `ReduceLROnPlateau` with a threshold relative to the best.
///
/// ```text
/// better: metric < best − τ|best|   (maximize: metric > best + τ|best|);  the first finite metric is better
/// ```
///
/// Defaults: PyTorch's, γ = 0.1, patience 10, τ = 1e-4, cooldown 0, floor 0.
/// [`ReduceOnPlateau::kru_ptb`] is the KRU paper's rule for Penn Treebank characters.
/// State: [`LrState`]. **Differs from** PyTorch: the threshold is relative to |best|, so it means the same for
/// negative metrics; the floor is a factor, not a rate; no smallest change of the rate (PyTorch ignores
/// reductions below 1e-8). NaN counts as not better, as there.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceOnPlateau {
    /// γ.
    pub gamma: f64,
    /// Observations without improvement that are let pass.
    pub patience: u64,
    /// τ.
    pub threshold: f64,
    /// Observations after a reduction that are not counted.
    pub cooldown: u64,
    /// Smallest factor.
    pub floor: f64,
    /// Whether larger is better.
    pub maximize: bool,
}

impl ReduceOnPlateau {
    /// KRU on Penn Treebank characters: ×0.3 after every epoch whose validation bits per character did not
    /// improve. The paper says "decreased by 0.30"; the factor is read by analogy with its text on TIMIT.
    pub fn kru_ptb() -> ReduceOnPlateau {
        ReduceOnPlateau { gamma: 0.3, patience: 0, threshold: 0.0, ..ReduceOnPlateau::default() }
    }
}

impl Default for ReduceOnPlateau {
    fn default() -> ReduceOnPlateau {
        ReduceOnPlateau {
            gamma: 0.1,
            patience: 10,
            threshold: 1e-4,
            cooldown: 0,
            floor: 0.0,
            maximize: false,
        }
    }
}

impl LrSchedule for ReduceOnPlateau {
    fn name(&self) -> &'static str {
        "plateau"
    }

    fn settings(&self) -> Settings {
        Settings::new()
            .with("gamma", self.gamma)
            .with("patience", self.patience)
            .with("threshold", self.threshold)
            .with("cooldown", self.cooldown)
            .with("floor", self.floor)
            .with("maximize", self.maximize)
    }

    fn validate(&self) -> Result<()> {
        Range::Unit.check(self.name(), "gamma", self.gamma)?;
        Range::NonNegative.check(self.name(), "threshold", self.threshold)?;
        Range::Unit.check(self.name(), "floor", self.floor)
    }

    fn factor(&self, _: Clock, state: &LrState) -> f64 {
        state.factor
    }

    fn observe(&self, metric: f64, state: &mut LrState) -> bool {
        let margin = self.threshold * state.best.abs();
        let better = if state.best.is_nan() {
            !metric.is_nan()
        } else if self.maximize {
            metric > state.best + margin
        } else {
            metric < state.best - margin
        };
        if better {
            state.best = metric;
            state.bad = 0;
        } else {
            state.bad += 1;
        }
        if state.cooldown > 0 {
            state.cooldown -= 1;
            state.bad = 0;
        }
        if state.bad <= self.patience {
            return false;
        }
        let before = state.factor;
        state.factor = (before * self.gamma).max(self.floor);
        (state.bad, state.cooldown) = (0, self.cooldown);
        state.factor < before
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn LrSchedule> = Entry {
    name: "plateau",
    summary: "reduce the rate when the validation metric stops improving",
    options: &[
        OptionSpec::new("gamma", "0.1", "factor of one reduction (KRU on PTB characters: 0.3)"),
        OptionSpec::new("patience", "10", "observations without improvement that are let pass (KRU: 0)"),
        OptionSpec::new("threshold", "1e-4", "least improvement, relative to the best (KRU: 0)"),
        OptionSpec::new("cooldown", "0", "observations after a reduction that are not counted"),
        OptionSpec::new("floor", "0", "smallest factor"),
        OptionSpec::new("maximize", "false", "larger is better"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let schedule = ReduceOnPlateau {
            gamma: read.real("gamma")?,
            patience: read.count("patience")?,
            threshold: read.real("threshold")?,
            cooldown: read.count("cooldown")?,
            floor: read.real("floor")?,
            maximize: read.flag("maximize")?,
        };
        schedule.validate()?;
        Ok(Box::new(schedule))
    },
};
