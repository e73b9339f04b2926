//! A network named on the command line: what `explain` and `bench` look at.

use clap::ValueEnum;
use retrograd::cells::init::{Init, rng_for};
use retrograd::cells::{self, Input, Layer, Loss, Model, ModelSpec, Readout, Recorded, Settings};
use retrograd::engine::Stash;
use retrograd::run::rates;
use retrograd::train::initial;
use retrograd::{DType, Error, Params, RunOptions, Tensor};
use serde_json::{Value, json};

use super::{Result, parse};

/// Arguments that describe a network, the sizes of its batches, and how it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Cell or published network, one of `retrograd list cells` and `retrograd list networks`
    #[arg(long)]
    pub(crate) cell: String,
    /// Recurrent operator, one of `retrograd list operators` [default: the one the cell was published with]
    #[arg(long)]
    pub(crate) operator: Option<String>,
    /// A setting of the cell or the operator; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Number of layers
    #[arg(long, default_value = "1", value_parser = parse::positive)]
    pub(crate) layers: usize,
    /// Units of each layer
    #[arg(long, default_value = "128", value_parser = parse::positive)]
    pub(crate) hidden: usize,
    /// Inputs of a step
    #[arg(long, default_value = "1", value_parser = parse::positive)]
    pub(crate) input: usize,
    /// Outputs, read through a softmax
    #[arg(long, default_value = "10", value_parser = parse::positive)]
    pub(crate) output: usize,
    /// Steps of a sequence
    #[arg(long, default_value = "784", value_parser = parse::positive)]
    pub(crate) steps: usize,
    /// Rows of a batch
    #[arg(long, default_value = "20", value_parser = parse::positive)]
    pub(crate) batch: usize,
    /// Where outputs are read
    #[arg(long, value_enum, default_value_t = At::Last)]
    pub(crate) readout: At,
    /// Precision of numbers, real and complex
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) dtype: Precision,
    /// Most memory, as 64MiB, 1GB or 500k; does not change results
    #[arg(long, value_parser = parse::bytes)]
    pub(crate) budget: Option<usize>,
    /// Threads [default: as many as the machine has]; does not change results
    #[arg(long, value_parser = parse::positive)]
    pub(crate) threads: Option<usize>,
    /// How values are kept for the backward pass: exact, bf16 or f16; rounded ones change gradients
    #[arg(long, value_name = "TYPE", default_value = "exact", value_parser = parse::stash)]
    pub(crate) stash: Stash,
    /// Keep the state of every so many steps and walk the others back, for cells with an inverse; gradients change by
    /// rounding
    #[arg(long, value_name = "STEPS", value_parser = parse::positive)]
    pub(crate) walk_back: Option<usize>,
    #[command(flatten)]
    pub(crate) place: parse::Place,
    /// How a parameter begins, as layer0.U:normal:0.1, instead of as its cell says; may be given several times
    #[arg(long, value_name = "NAME:INIT")]
    pub(crate) init: Vec<String>,
    /// Seed of the parameters and of the random batch
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// Where outputs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    /// After the last step
    Last,
    /// After every step
    Every,
}

/// Precision of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// Single
    F32,
    /// Double
    F64,
}

impl Precision {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// A cell (or published network) and an operator by name, with the settings that each of them knows. Errors: unknown
/// names, settings that neither has.
pub(crate) fn layer(cell: &str, operator: Option<&str>, set: &[String], hidden: usize) -> Result<Layer> {
    let network = cells::network(cell)?.on(operator)?;
    let (cell, operator) = (cells::cell_entry(network.cell)?, cells::operator_entry(network.operator)?);
    let mut of_cell: Settings = network.cell_set.iter().copied().collect();
    let mut of_operator: Settings = network.operator_set.iter().copied().collect();
    for text in set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Error::config("set", format!("`{text}`, expected KEY=VALUE")))?;
        let known = |options: &[cells::OptionDoc]| options.iter().any(|o| o.key == key);
        let (in_cell, in_operator) = (known(cell.options), known(operator.options));
        if !in_cell && !in_operator {
            let keys: Vec<&str> = cell.options.iter().chain(operator.options).map(|o| o.key).collect();
            let reason = format!(
                "neither cell `{}` nor operator `{}` has it, known: {}",
                cell.name,
                operator.name,
                keys.join(", ")
            );
            return Err(Error::config(key, reason));
        }
        if in_cell {
            of_cell.set(key, value);
        }
        if in_operator {
            of_operator.set(key, value);
        }
    }
    Ok(Layer { cell: cell.make(&of_cell)?, operator: operator.make(&of_operator)?, hidden })
}

impl NetworkArgs {
    fn layer(&self) -> Result<Layer> {
        layer(&self.cell, self.operator.as_deref(), &self.set, self.hidden)
    }

    /// Records the network for training.
    pub(crate) fn record(&self) -> Result<Recorded> {
        let readout = match self.readout {
            At::Last => Readout::Last,
            At::Every => Readout::EveryStep,
        };
        let layers = vec![self.layer()?; self.layers];
        let input = Input::Dense(self.input);
        let mut spec = ModelSpec::new(input, layers, readout, self.output, Loss::SoftmaxCrossEntropy);
        spec.dtype = self.dtype.dtype();
        spec.walk_back = self.walk_back;
        spec.initial = self.init.iter().map(|text| initial(text)).collect::<std::result::Result<_, _>>()?;
        Ok(Model::new(spec)?.record(self.seed)?)
    }

    /// A random batch.
    pub(crate) fn batch(&self) -> Result<Params> {
        self.batch_of(self.steps)
    }

    /// A random batch of sequences of so many steps.
    pub(crate) fn batch_of(&self, steps: usize) -> Result<Params> {
        let mut rng = rng_for(self.seed, "batch");
        let mut batch = Params::new();
        let dims = [steps, self.batch, self.input];
        batch.insert("x", Init::Normal(1.0).tensor(&dims, self.dtype.dtype(), &mut rng)?);
        let dims: &[usize] = match self.readout {
            At::Last => &[self.batch],
            At::Every => &[steps, self.batch],
        };
        let mut target = Tensor::zeros(DType::I32, dims)?;
        for class in target.as_mut_slice::<i32>()? {
            *class = (cells::init::uniform(&mut rng) * self.output as f64) as i32;
        }
        batch.insert("target", target);
        Ok(batch)
    }

    /// How it runs. Errors: the device is not there.
    pub(crate) fn options(&self) -> Result<RunOptions> {
        let NetworkArgs { budget, threads, stash, place, .. } = *self;
        let device = place.engine()?;
        let rates = rates::known(self.dtype.dtype(), device.as_deref());
        Ok(RunOptions { budget, threads, stash, rates, device, ..RunOptions::default() })
    }

    /// Cell and operator, as `lstm on kron`.
    pub(crate) fn name(&self) -> Result<String> {
        let layer = self.layer()?;
        Ok(format!("{} on {}", layer.cell.name(), layer.operator.name()))
    }

    /// What was asked for.
    pub(crate) fn json(&self) -> Result<Value> {
        let layer = self.layer()?;
        Ok(json!({
            "cell": layer.cell.name(), "operator": layer.operator.name(), "set": self.set, "layers": self.layers,
            "hidden": self.hidden, "input": self.input, "output": self.output, "steps": self.steps,
            "batch": self.batch, "readout": format!("{:?}", self.readout).to_lowercase(),
            "dtype": self.dtype.dtype().to_string(), "budget": self.budget, "threads": self.threads,
            "init": self.init, "stash": self.stash.name(), "walk_back": self.walk_back, "device": self.place.device.to_string(), "products": self.place.products.name(),
            "seed": self.seed,
        }))
    }
}
