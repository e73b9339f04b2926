//! The settings of K-FAC as text, and back.

use super::schedule::KfacSchedule;
use super::{Kfac, MomentumForm, NAME, StepRule};
use crate::error::{Error, Result};
use crate::kfac::{Adaptation, Approximation, BlockKind, Targets};
use crate::optimizer::Optimizer;
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Reader, Settings};

const KINDS: &[(&str, BlockKind)] = &[
    ("map", BlockKind::Map),
    ("full", BlockKind::Full),
    ("diagonal", BlockKind::Diagonal),
    ("adam", BlockKind::Adam),
];

fn asked(read: &Reader<'_>) -> Result<Vec<(Select, BlockKind)>> {
    let text = read.text("blocks")?;
    if text == "auto" {
        return Ok(Vec::new());
    }
    let bad = || Error::Value {
        owner: NAME,
        key: "blocks".into(),
        expected: "auto, or pattern:kind,... with kinds map, full, diagonal, adam".into(),
        got: text.into(),
    };
    text.split(',')
        .map(|part| {
            let (pattern, kind) = part.trim().rsplit_once(':').ok_or_else(bad)?;
            let kind = KINDS.iter().find(|k| k.0.eq_ignore_ascii_case(kind)).ok_or_else(bad)?;
            Ok((Select::patterns(pattern), kind.1))
        })
        .collect()
}

fn first_damping(read: &Reader<'_>) -> Result<Option<f64>> {
    let text = read.text("damping")?;
    if text == "auto" {
        return Ok(None);
    }
    let bad = |_: std::num::ParseFloatError| Error::Value {
        owner: NAME,
        key: "damping".into(),
        expected: "auto, or a number of at least 0".into(),
        got: text.into(),
    };
    text.parse::<f64>().map(Some).map_err(bad)
}

/// What [`build`] understands.
pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("kfac", "option2", "independence, option1 or option2: what is assumed about time"),
    OptionSpec::new("lr", "0.05", "learning rate per update of step=fixed"),
    OptionSpec::new("adam_lr", "1e-3", "learning rate of parameters that have no block"),
    OptionSpec::new("psi", "signed", "signed, or absolute as in the reference implementation (option1)"),
    OptionSpec::new("targets", "sampled", "sampled (the Fisher), or empirical (those of the data)"),
    OptionSpec::new("step", "quadratic", "quadratic (least point of the model), or fixed"),
    OptionSpec::new("momentum", "0.9", "momentum of step=fixed"),
    OptionSpec::new("momentum_form", "adam", "adam (on gradients), or regular (on steps), of step=fixed"),
    OptionSpec::new("norm_constraint", "0", "largest squared norm of a fixed step in the metric; 0 for none"),
    OptionSpec::new(
        "damping",
        "auto",
        "first multiple of the identity added to the Fisher; auto: by the first statistics",
    ),
    OptionSpec::new(
        "damping_floor",
        "0.03",
        "least adapted damping at an inversion, as a multiple of the mean curvature",
    ),
    OptionSpec::new(
        "block_scales",
        "true",
        "whether each block is scaled by exact curvature along its part of a quadratic step",
    ),
    OptionSpec::new(
        "trust_rate",
        "0.1",
        "rate at which quadratic steps become as long as the next batch says; 0 for whole steps",
    ),
    OptionSpec::new("trust_least", "0.25", "least factor that comes of it, above 0 and at most 1"),
    OptionSpec::new("damping_power", "1", "p of damping / T^p"),
    OptionSpec::new("pi", "true", "whether damping is balanced between the two factors"),
    OptionSpec::new("adapt", "true", "whether damping is adapted by how well the model did"),
    OptionSpec::new("lm_every", "5", "updates between two adaptations"),
    OptionSpec::new("lm_decay", "0.95", "factor of the damping per update"),
    OptionSpec::new("damping_min", "1e-8", "least damping"),
    OptionSpec::new("decay", "0.95", "decay of the averages of statistics"),
    OptionSpec::new("stats_rows", "0.125", "share of a batch's rows in statistics, at least 8 rows"),
    OptionSpec::new("model_rows", "0.125", "share of a batch's rows in exact products, at least 8 rows"),
    OptionSpec::new("stats_every", "4", "updates between two statistics, once `dense` is over"),
    OptionSpec::new("inverse_every", "20", "updates between two inversions, once `dense` is over"),
    OptionSpec::new("dense", "100", "updates with four times as many of both, then as many with twice"),
    OptionSpec::new(
        "inverse_lag",
        "0",
        "updates that an inversion is given on another thread, fewer than between two; 0 waits for it",
    ),
    OptionSpec::new("burn_in", "5", "updates at the start that only gather statistics"),
    OptionSpec::new("weight_decay", "0", "multiple of the parameter added to its gradient"),
    OptionSpec::new("widest", "256", "most outputs of a map with one factor; wider maps are cut into parts"),
    OptionSpec::new("most_inputs", "2048", "most inputs of a map, above which it is left to Adam"),
    OptionSpec::new("full", "64", "most real numbers of a full block"),
    OptionSpec::new("blocks", "auto", "auto, or pattern:kind,... with kinds map, full, diagonal, adam"),
];

/// From settings. Errors: unknown keys, values that do not fit.
pub(super) fn build(settings: &Settings) -> Result<Box<dyn Optimizer>> {
    let read = settings.reader(NAME, OPTIONS)?;
    let absolute = read.choice("psi", &[("signed", false), ("absolute", true)])?;
    let approximation = read.choice(
        "kfac",
        &[
            ("independence", Approximation::Independence),
            ("option1", Approximation::Option1 { absolute }),
            ("option2", Approximation::Option2),
        ],
    )?;
    let lm = Adaptation {
        every: read.count("lm_every")?,
        decay: read.real("lm_decay")?,
        least: read.real("damping_min")?,
    };
    let targets = [("sampled", Targets::Sampled), ("empirical", Targets::Empirical)];
    let steps = [("quadratic", StepRule::Quadratic), ("fixed", StepRule::Fixed)];
    let forms = [("adam", MomentumForm::Adam), ("regular", MomentumForm::Regular)];
    let kfac = Kfac {
        lr: read.real("lr")?,
        adam_lr: read.real("adam_lr")?,
        approximation,
        targets: read.choice("targets", &targets)?,
        step: read.choice("step", &steps)?,
        momentum_form: read.choice("momentum_form", &forms)?,
        momentum: read.real("momentum")?,
        constraint: read.real("norm_constraint")?,
        damping: first_damping(&read)?,
        damping_floor: read.real("damping_floor")?,
        block_scales: read.flag("block_scales")?,
        trust_rate: read.real("trust_rate")?,
        trust_least: read.real("trust_least")?,
        damping_power: read.real("damping_power")?,
        pi: read.flag("pi")?,
        adaptation: read.flag("adapt")?.then_some(lm),
        decay: read.real("decay")?,
        stats_rows: read.real("stats_rows")?,
        model_rows: read.real("model_rows")?,
        schedule: KfacSchedule {
            burn_in: read.count("burn_in")?,
            stats_every: read.count("stats_every")?,
            inverse_every: read.count("inverse_every")?,
            dense: read.count("dense")?,
            inverse_lag: read.count("inverse_lag")?,
        },
        weight_decay: read.real("weight_decay")?,
        widest: read.count("widest")? as usize,
        most_inputs: read.count("most_inputs")? as usize,
        full: read.count("full")? as usize,
        asked: asked(&read)?,
        ..Kfac::default()
    };
    kfac.validate()?;
    Ok(Box::new(kfac))
}

impl Kfac {
    /// All settings.
    pub(super) fn as_settings(&self) -> Settings {
        let name_of = |kind: BlockKind| KINDS.iter().find(|k| k.1 == kind).map_or("", |k| k.0);
        let asked: Vec<String> =
            self.asked.iter().map(|(s, kind)| format!("{}:{}", s.text(), name_of(*kind))).collect();
        let (kfac, psi) = match self.approximation {
            Approximation::Independence => ("independence", "signed"),
            Approximation::Option1 { absolute: false } => ("option1", "signed"),
            Approximation::Option1 { absolute: true } => ("option1", "absolute"),
            Approximation::Option2 => ("option2", "signed"),
        };
        let lm = self.adaptation.unwrap_or_default();
        Settings::new()
            .with("lr", self.lr)
            .with("adam_lr", self.adam_lr)
            .with("kfac", kfac)
            .with("psi", psi)
            .with("targets", if self.targets == Targets::Sampled { "sampled" } else { "empirical" })
            .with("step", if self.step == StepRule::Quadratic { "quadratic" } else { "fixed" })
            .with("momentum", self.momentum)
            .with("momentum_form", if self.momentum_form == MomentumForm::Adam { "adam" } else { "regular" })
            .with("norm_constraint", self.constraint)
            .with("damping", self.damping.map_or("auto".into(), |d| d.to_string()))
            .with("damping_floor", self.damping_floor)
            .with("block_scales", self.block_scales)
            .with("trust_rate", self.trust_rate)
            .with("trust_least", self.trust_least)
            .with("damping_power", self.damping_power)
            .with("pi", self.pi)
            .with("adapt", self.adaptation.is_some())
            .with("lm_every", lm.every)
            .with("lm_decay", lm.decay)
            .with("damping_min", lm.least)
            .with("decay", self.decay)
            .with("stats_rows", self.stats_rows)
            .with("model_rows", self.model_rows)
            .with("stats_every", self.schedule.stats_every)
            .with("inverse_every", self.schedule.inverse_every)
            .with("dense", self.schedule.dense)
            .with("inverse_lag", self.schedule.inverse_lag)
            .with("burn_in", self.schedule.burn_in)
            .with("weight_decay", self.weight_decay)
            .with("widest", self.widest)
            .with("most_inputs", self.most_inputs)
            .with("full", self.full)
            .with("blocks", if asked.is_empty() { "auto".into() } else { asked.join(",") })
    }

    /// Errors: a setting out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let owner = self.name();
        Range::NonNegative.check(owner, "lr", self.lr)?;
        Range::NonNegative.check(owner, "adam_lr", self.adam_lr)?;
        Range::Below1.check(owner, "momentum", self.momentum)?;
        Range::NonNegative.check(owner, "norm_constraint", self.constraint)?;
        Range::NonNegative.check(owner, "damping", self.damping.unwrap_or(0.0))?;
        Range::NonNegative.check(owner, "damping_floor", self.damping_floor)?;
        Range::NonNegative.check(owner, "trust_rate", self.trust_rate)?;
        Range::Positive.check(owner, "trust_least", self.trust_least)?;
        Range::Unit.check(owner, "trust_least", self.trust_least)?;
        Range::NonNegative.check(owner, "damping_power", self.damping_power)?;
        Range::Below1.check(owner, "decay", self.decay)?;
        Range::NonNegative.check(owner, "weight_decay", self.weight_decay)?;
        for (key, share) in [("stats_rows", self.stats_rows), ("model_rows", self.model_rows)] {
            Range::Positive.check(owner, key, share)?;
            Range::Unit.check(owner, key, share)?;
        }
        if let Some(lm) = self.adaptation {
            Range::Positive.check(owner, "lm_decay", lm.decay)?;
            Range::Unit.check(owner, "lm_decay", lm.decay)?;
            Range::NonNegative.check(owner, "damping_min", lm.least)?;
            Range::Positive.check(owner, "lm_every", lm.every as f64)?;
        }
        self.schedule.validate(owner)?;
        for (key, value) in [("widest", self.widest as f64), ("most_inputs", self.most_inputs as f64)] {
            Range::Positive.check(owner, key, value)?;
        }
        Ok(())
    }
}
