//! From a configuration to what it names.

use std::sync::Arc;

use retrograd_cells as cells;
use retrograd_cells::{Cell, Layer, Model, ModelSpec, RecurrentOperator};
use retrograd_datasets::{At, Input, Loss, Options, Task};
use retrograd_engine::Horizon;
use retrograd_optim as optim;
use retrograd_optim::{Divided, GradientRules, Recipe, Select};

use super::config::{Named, TrainConfig};
use crate::run::{Error, Result};

/// What a network is trained on and made of: from the tables, or a caller's own.
pub struct Parts {
    /// Task.
    pub task: Box<dyn Task>,
    /// Cell of every layer.
    pub cell: Arc<dyn Cell>,
    /// Operator of its recurrent matrices.
    pub operator: Arc<dyn RecurrentOperator>,
}

impl Parts {
    /// The parts that a configuration names. Errors: names that are in no table and settings that do not fit, with
    /// the nearest known ones; data files that are missing or damaged.
    pub fn new(config: &TrainConfig) -> Result<Parts> {
        Ok(Parts { cell: cell(config)?, operator: operator(config)?, task: task(config)? })
    }
}

/// The task that a configuration names. Errors: as [`Parts::new`].
pub fn task(config: &TrainConfig) -> Result<Box<dyn Task>> {
    let mut options = Options::new();
    if let Some(folder) = &config.data {
        options = options.with_data(folder);
    }
    for (key, value) in &config.task.settings {
        options = options.with(key, value);
    }
    Ok(retrograd_datasets::task(&config.task.name, &options)?)
}

/// The cell that a configuration names. Errors: as [`Parts::new`].
pub fn cell(config: &TrainConfig) -> Result<Arc<dyn Cell>> {
    let settings: cells::Settings = config.cell.settings.iter().map(|(k, v)| (k.as_str(), v)).collect();
    Ok(cells::cell(&config.cell.name, &settings)?)
}

/// The operator that a configuration names. Errors: as [`Parts::new`].
pub fn operator(config: &TrainConfig) -> Result<Arc<dyn RecurrentOperator>> {
    let settings: cells::Settings = config.operator.settings.iter().map(|(k, v)| (k.as_str(), v)).collect();
    Ok(cells::operator(&config.operator.name, &settings)?)
}

/// The network for a task. Whether batches come with masks and lengths is a matter of the batch, so neither is set.
/// Errors: a description that contradicts itself.
pub fn model_spec(config: &TrainConfig, parts: &Parts) -> Result<ModelSpec> {
    let spec = parts.task.spec();
    let layer = Layer { cell: parts.cell.clone(), operator: parts.operator.clone(), hidden: config.hidden };
    let input = match spec.input {
        Input::Dense { width } => cells::Input::Dense(width),
        Input::Index { vocabulary } => cells::Input::Symbols(vocabulary),
    };
    let readout = match spec.at {
        At::Last => cells::Readout::Last,
        At::EveryStep => cells::Readout::EveryStep,
    };
    let loss = match spec.loss {
        Loss::SoftmaxCrossEntropy { .. } => cells::Loss::SoftmaxCrossEntropy,
        Loss::SquaredError { .. } => cells::Loss::SquaredError,
        Loss::BinaryCrossEntropy { .. } => cells::Loss::BinaryCrossEntropy,
    };
    let mut model = ModelSpec::new(input, vec![layer; config.layers], readout, spec.loss.width(), loss);
    model.bidirectional = config.bidirectional;
    model.dtype = config.precision.dtype();
    model.stateful = spec.stateful;
    model.learn_h0 = config.learn_h0;
    model.weight_norm = config.weight_norm;
    model.horizon = config.horizon.map_or(Horizon::Full, Horizon::Steps);
    model.walk_back = config.walk_back;
    model.dropout = config.dropout;
    model.recurrent_dropout = config.recurrent_dropout;
    model.shared_masks = config.shared_masks;
    model.input_dropout = config.input_dropout;
    model.readout_dropout = config.readout_dropout;
    model.embedding = config.embedding;
    model.frozen = config.frozen.clone();
    model.initial = config.init.iter().map(|text| initial(text)).collect::<Result<_>>()?;
    Model::new(model.clone())?;
    Ok(model)
}

/// A name and how it begins, from `NAME:INIT`. Errors: no colon, an unknown way to begin.
pub fn initial(text: &str) -> Result<(String, cells::Init)> {
    let (name, init) = text.split_once(':').ok_or_else(|| {
        Error::config(
            "init",
            format!("`{text}`, expected a parameter and how it begins, as layer0.U:normal:0.1"),
        )
    })?;
    Ok((name.to_string(), init.parse()?))
}

/// The optimiser and all around it. `factors` are the names of the Kronecker factors, which a soft unitary penalty is
/// put on unless it says otherwise; `unitary` those of matrices that have an optimiser of their own; a plateau schedule
/// looks for the better of the task's metric.
///
/// Errors: names that are in no table and settings that do not fit; a soft unitary penalty without factors.
pub fn recipe(
    config: &TrainConfig,
    factors: &[String],
    unitary: &[String],
    larger_is_better: bool,
) -> Result<Recipe> {
    let mut schedule = config.schedule.clone();
    if schedule.name == "plateau" {
        schedule.settings.entry("maximize".into()).or_insert_with(|| larger_is_better.to_string());
    }
    let penalty = |part: &Named| -> Result<_> {
        let mut part = part.clone();
        if part.name == "soft-unitary" && !part.settings.contains_key("params") {
            if factors.is_empty() {
                let reason =
                    format!("soft-unitary: operator `{}` has no Kronecker factors", config.operator.name);
                return Err(Error::config("penalty", reason));
            }
            part.settings.insert("params".into(), factors.join(","));
        }
        Ok(optim::penalty(&part.name, &settings(&part))?)
    };
    let mut optimizer = optim::optimizer(&config.optimizer.name, &settings(&config.optimizer))?;
    if !unitary.is_empty() {
        let names = unitary.to_vec();
        optimizer = Box::new(Divided {
            select: Select::predicate(unitary.join(","), move |name| names.iter().any(|n| n == name)),
            special: optim::multiplicative(&config.multiplicative.name, &settings(&config.multiplicative))?,
            others: optimizer,
        });
    }
    let gradients = settings(&Named { name: String::new(), settings: config.gradients.clone() });
    let recipe = Recipe {
        optimizer,
        schedule: optim::schedule(&schedule.name, &settings(&schedule))?,
        gradients: GradientRules::from_settings(&gradients)?,
        penalties: config.penalties.iter().map(penalty).collect::<Result<_>>()?,
        constraints: config
            .constraints
            .iter()
            .map(|part| Ok(optim::constraint(&part.name, &settings(part))?))
            .collect::<Result<_>>()?,
    };
    Ok(recipe)
}

fn settings(part: &Named) -> optim::Settings {
    part.settings.iter().fold(optim::Settings::new(), |all, (key, value)| all.with(key, value))
}
