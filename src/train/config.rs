//! Everything that determines a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retrograd_engine::{DType, Stash};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::run::{Error, Result};

/// Settings of one owner, as text by key.
pub type Settings = BTreeMap<String, String>;

/// Something of a table, with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Name in its table.
    pub name: String,
    /// Settings that differ from the table's defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: Settings,
}

impl Named {
    /// With these settings.
    pub fn new(name: impl Into<String>) -> Named {
        Named { name: name.into(), settings: Settings::new() }
    }

    /// The same with one more setting.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Named {
        self.settings.insert(key.into(), value.to_string());
        self
    }
}

/// Precision of the numbers a network computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits a real component.
    #[default]
    F32,
    /// 64 bits a real component.
    F64,
}

impl Precision {
    /// The type of real numbers.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// So many passes over the training split.
    Epochs(u64),
    /// So many updates.
    Steps(u64),
}

/// Everything that determines a run, and so what it computes: the same configuration gives the same bits, whatever
/// the number of threads and the budget, interrupted or not.
///
/// [`TrainConfig::new`] fills in the published settings of a task and a cell where there are any
/// ([`PUBLISHED`](crate::train::PUBLISHED)); [`TrainConfig::set`] changes them by `key=value`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Task and its options.
    pub task: Named,
    /// Folder of the data files; `None` looks in the usual places.
    pub data: Option<PathBuf>,
    /// Cell and its settings.
    pub cell: Named,
    /// Recurrent operator and its settings.
    pub operator: Named,
    /// Size of the state of each layer.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Whether every layer also runs backwards in time.
    pub bidirectional: bool,
    /// Whether the first state is learned (else zero).
    pub learn_h0: bool,
    /// Whether input and recurrent matrices are directions and lengths; see [`retrograd_cells::ModelSpec::weight_norm`].
    #[serde(default)]
    pub weight_norm: bool,
    /// Probability with which an output of a layer is dropped on its way to the next layer.
    pub dropout: f64,
    /// Probability with which an element of the recurrent state is dropped, by one mask for a whole sequence; see
    /// [`retrograd_cells::ModelSpec::recurrent_dropout`].
    #[serde(default)]
    pub recurrent_dropout: f64,
    /// Whether all gates share one mask of the recurrent state.
    #[serde(default)]
    pub shared_masks: bool,
    /// Probability with which an input is dropped: whole symbols, or single numbers of vectors.
    #[serde(default)]
    pub input_dropout: f64,
    /// Probability with which an element of what the read-out sees is dropped.
    #[serde(default)]
    pub readout_dropout: f64,
    /// Learned numbers that stand for a symbol before the first layer reads it; `None` for tasks without symbols and for
    /// networks whose input matrices are the table.
    #[serde(default)]
    pub embedding: Option<usize>,
    /// Standard deviation of the Gaussian noise on parameters during training, 0 for none.
    #[serde(default)]
    pub weight_noise: f64,
    /// Precision.
    pub precision: Precision,
    /// In which precision values are kept for the backward pass.
    #[serde(
        default,
        skip_serializing_if = "is_exact",
        serialize_with = "write_stash",
        deserialize_with = "read_stash"
    )]
    pub stash: Stash,
    /// Steps between states that are kept for the backward pass where the others are walked back to; `None` to keep or
    /// replay all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_back: Option<usize>,
    /// Steps that gradients reach back inside a batch; `None` for all.
    pub horizon: Option<usize>,
    /// Parameters that are not trained, each with all below it (`layer0.W`).
    pub frozen: Vec<String>,
    /// Parameters that begin otherwise than their cells say, each with all below it, as `layer0.U:uniform:0.04`; the last
    /// that fits counts. See [`retrograd_cells::ModelSpec::initial`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<String>,
    /// Optimiser and its settings.
    pub optimizer: Named,
    /// Optimiser of matrices that must stay unitary, where the network has some, and its settings.
    #[serde(default = "cayley", skip_serializing_if = "is_cayley")]
    pub multiplicative: Named,
    /// Learning-rate schedule and its settings.
    pub schedule: Named,
    /// Clipping, and the policy for gradients that are not finite.
    pub gradients: Settings,
    /// Terms added to the loss.
    pub penalties: Vec<Named>,
    /// Sets the parameters must stay in.
    pub constraints: Vec<Named>,
    /// Rows of a training batch.
    pub batch: usize,
    /// Rows of a batch of validation and test.
    pub eval_batch: usize,
    /// How long to train.
    pub length: Length,
    /// Updates between two evaluations; `None` evaluates after every epoch.
    pub eval_every: Option<u64>,
    /// Batches of an evaluation on validation; `None` for the whole split.
    pub eval_batches: Option<usize>,
    /// Evaluations without a new best after which training stops; `None` never stops early.
    pub patience: Option<u64>,
    /// Validation metric at which training stops because that is good enough.
    pub goal: Option<f64>,
    /// Updates between two records of the training loss.
    pub log_every: u64,
    /// Updates between two checkpoints of the network that are kept, in `snapshots/STEP.safetensors`; `None` keeps only
    /// the best and the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// Seed of first parameters, of shuffling and of dropout.
    pub seed: u64,
    /// Largest memory of one program, bytes; `None` for as much as is fastest. Does not change results.
    pub budget: Option<usize>,
    /// Threads; `None` for all. Does not change results.
    pub threads: Option<usize>,
}

/// What moves unitary matrices where nothing else is said.
pub(super) fn cayley() -> Named {
    Named::new("cayley")
}

fn is_cayley(multiplicative: &Named) -> bool {
    *multiplicative == cayley()
}

fn is_exact(stash: &Stash) -> bool {
    *stash == Stash::Exact
}

fn write_stash<S: Serializer>(stash: &Stash, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(stash.name())
}

fn read_stash<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Stash, D::Error> {
    stash(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// The stash of this name. Errors: there is none.
pub(crate) fn stash(name: &str) -> std::result::Result<Stash, String> {
    let names = || Stash::ALL.map(Stash::name).join(", ");
    Stash::by_name(name).ok_or_else(|| format!("`{name}`, expected one of {}", names()))
}

impl TrainConfig {
    /// Errors: numbers out of their range. What tasks, cells and optimisers say about their settings is said when
    /// they are built.
    pub fn validate(&self) -> Result<()> {
        let positive = |key: &str, value: Option<u64>| match value {
            Some(0) => Err(Error::config(key, "0, expected at least 1")),
            _ => Ok(()),
        };
        positive("hidden", Some(self.hidden as u64))?;
        positive("layers", Some(self.layers as u64))?;
        positive("batch", Some(self.batch as u64))?;
        positive("eval_batch", Some(self.eval_batch as u64))?;
        positive("eval_every", self.eval_every)?;
        positive("eval_batches", self.eval_batches.map(|n| n as u64))?;
        positive("patience", self.patience)?;
        positive("snapshots", self.snapshots)?;
        positive("log_every", Some(self.log_every))?;
        positive("horizon", self.horizon.map(|n| n as u64))?;
        positive("walk_back", self.walk_back.map(|n| n as u64))?;
        positive("budget", self.budget.map(|n| n as u64))?;
        positive("threads", self.threads.map(|n| n as u64))?;
        match self.length {
            Length::Epochs(n) => positive("epochs", Some(n)),
            Length::Steps(n) => positive("steps", Some(n)),
        }?;
        if !(self.weight_noise.is_finite() && self.weight_noise >= 0.0) {
            return Err(Error::config("weight_noise", format!("{}, expected 0 or more", self.weight_noise)));
        }
        for (key, dropout) in [
            ("dropout", self.dropout),
            ("recurrent_dropout", self.recurrent_dropout),
            ("input_dropout", self.input_dropout),
            ("readout_dropout", self.readout_dropout),
        ] {
            if !(0.0..1.0).contains(&dropout) {
                return Err(Error::config(key, format!("{dropout}, expected from 0 to below 1")));
            }
        }
        positive("embedding", self.embedding.map(|n| n as u64))?;
        if self.goal.is_some_and(|g| !g.is_finite()) {
            return Err(Error::config("goal", "not finite"));
        }
        Ok(())
    }

    /// Name of the network in words: `kru`, or `lstm on kron` where the operator is not the cell's own.
    pub fn network(&self) -> String {
        let own =
            retrograd_cells::cell_entry(&self.cell.name).is_ok_and(|e| e.operator == self.operator.name);
        match own || self.operator.name.is_empty() {
            true => self.cell.name.clone(),
            false => format!("{}-{}", self.cell.name, self.operator.name),
        }
    }

    /// The configuration as JSON, as it stands in the run folder.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|e| Error::config("configuration", e))
    }

    /// The inverse of [`TrainConfig::to_json`]. Errors: a key that is unknown, missing, or of another type; a
    /// number out of its range.
    pub fn from_json(json: serde_json::Value) -> Result<TrainConfig> {
        let config: TrainConfig =
            serde_json::from_value(json).map_err(|e| Error::config("config.json", e))?;
        config.validate()?;
        Ok(config)
    }

    /// The keys in which this differs from `other`, with both values.
    pub fn differences(&self, other: &TrainConfig) -> Result<Vec<String>> {
        let (mine, theirs) = (self.to_json()?, other.to_json()?);
        let (Some(mine), Some(theirs)) = (mine.as_object(), theirs.as_object()) else {
            return Ok(Vec::new());
        };
        let differing = mine.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
        Ok(differing
            .map(|(key, value)| {
                format!("{key} is {value}, was {}", theirs.get(key).unwrap_or(&serde_json::Value::Null))
            })
            .collect())
    }
}
