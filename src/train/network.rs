//! A network as programs: one that trains and one that evaluates, for each form that batches come in.

use std::collections::HashMap;

use retrograd_cells::{Mode, Model, ModelSpec, Recorded, StateSlot};
use retrograd_datasets::{At, Batch, Loss, Pieces, Request, Task};
use retrograd_engine::device::{Left, Resident};
use retrograd_engine::{Params, Plan, Program, RunOptions, StreamPlan, Tensor, grad};

use crate::run::{Error, Result};

/// What a program is compiled for. Numbers of steps and rows need no program of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub(super) train: bool,
    pub(super) masked: bool,
    pub(super) lengths: bool,
}

/// What a program reads.
pub(super) enum Feed<'a> {
    /// A batch in memory.
    Whole(Batch),
    /// A batch that is read piece by piece.
    Pieces { reader: &'a dyn Pieces, request: Request, steps: usize, rows: usize },
}

impl<'a> Feed<'a> {
    /// The batch asked for. Errors: as [`Task::batch`].
    pub(super) fn new(task: &'a dyn Task, request: Request) -> Result<Feed<'a>> {
        match task.as_pieces() {
            Some(reader) => {
                let (steps, rows) = reader.size(&request)?;
                Ok(Feed::Pieces { reader, request, steps, rows })
            }
            None => Ok(Feed::Whole(task.batch(&request)?)),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Feed::Whole(batch) => batch.rows(),
            Feed::Pieces { rows, .. } => *rows,
        }
    }

    fn count(&self, at: At) -> f64 {
        match self {
            Feed::Whole(batch) => batch.count(at),
            Feed::Pieces { steps, rows, .. } => *steps as f64 * *rows as f64,
        }
    }
}

#[derive(Debug)]
struct Compiled {
    program: Program,
    /// Whether the number of hits is an output.
    hits: bool,
    /// Whether the number of steps that were not solved is an output.
    unconverged: bool,
    states: Vec<StateSlot>,
    /// Outputs before the gradients; the states are the last of them.
    before_gradients: usize,
}

impl Compiled {
    fn states_at(&self) -> usize {
        self.before_gradients.saturating_sub(self.states.len())
    }
}

/// Sums over scored positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Sum of losses.
    pub loss: f64,
    /// Number of positions whose largest output is the target's (classes only).
    pub hits: f64,
    /// Number of positions, weighted by the mask.
    pub count: f64,
}

impl Totals {
    /// Adds the sums of more positions.
    pub fn add(&mut self, more: Totals) {
        self.loss += more.loss;
        self.hits += more.hits;
        self.count += more.count;
    }
}

/// Parameters: here, or on the device that programs run on.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Here(&'a Params),
    There(&'a Resident),
}

/// Gradients of the parameters that are trained: here, or on the device until the next batch.
pub(super) enum Gradients {
    Here(Params),
    There(Vec<Left>),
}

/// What a training batch gave.
pub(super) struct Trained {
    /// Mean loss of a position.
    pub(super) loss: f64,
    /// Sums over positions.
    pub(super) totals: Totals,
    /// Rows and steps whose inner equation was not solved, of networks that solve one.
    pub(super) unconverged: Option<f64>,
    /// Gradients, where the parameters were.
    pub(super) grads: Gradients,
}

/// Programs of a network, its state from batch to batch, and what they take.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) spec: ModelSpec,
    pub(super) at: At,
    /// The task sums what the model's loss averages.
    pub(super) loss_scale: f64,
    pub(super) seed: u64,
    pub(super) options: RunOptions,
    trainable: Vec<String>,
    programs: HashMap<Form, Compiled>,
    peak: Peak,
}

/// Memory of the largest program run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// As planned before it ran, bytes.
    pub planned_bytes: usize,
    /// As measured while it ran, bytes.
    pub measured_bytes: usize,
}

/// Everything about a network that is known before any program.
pub(super) struct Declared {
    /// First values of all parameters.
    pub(super) params: Params,
    /// Names of the Kronecker factors that are trained.
    pub(super) factors: Vec<String>,
    /// Names of the matrices that are trained and must stay unitary.
    pub(super) unitary: Vec<String>,
}

impl Network {
    /// Whether the parameter of that name is trained.
    pub(super) fn is_trained(&self, name: &str) -> bool {
        self.trainable.iter().any(|t| t == name)
    }

    pub(super) fn new(
        spec: ModelSpec,
        task: &dyn Task,
        seed: u64,
        options: RunOptions,
    ) -> Result<(Network, Declared)> {
        let store = Model::new(spec.clone())?.declare(seed)?;
        let trainable = store.trainable().map(|(name, _)| name.to_string()).collect();
        let factors = store.trained_factors().map(String::from).collect();
        let unitary = store.trained_unitary().map(String::from).collect();
        let declared = Declared { factors, unitary, params: store.into_params() };
        let task = task.spec();
        let loss_scale = match task.loss {
            Loss::SquaredError { width } => width as f64,
            _ => 1.0,
        };
        let (programs, peak) = (HashMap::new(), Peak::default());
        let network = Network { spec, at: task.at, loss_scale, seed, options, trainable, programs, peak };
        Ok((network, declared))
    }

    /// Names of the parameters that are trained, in order.
    pub(super) fn trainable(&self) -> &[String] {
        &self.trainable
    }

    pub(super) fn peak(&self) -> Peak {
        self.peak
    }

    /// Loss and gradients of a batch; the state goes on from `carry` and is left there.
    pub(super) fn train(
        &mut self,
        params: Values<'_>,
        feed: &Feed<'_>,
        carry: &mut Params,
        dropout_seed: i32,
    ) -> Result<Trained> {
        let form = self.form_of(feed, true);
        let mut beside = Params::new();
        beside.insert("dropout_seed", Tensor::scalar(dropout_seed));
        let (out, left) = self.run(form, params, &beside, feed, carry)?;
        let mut out = out.into_iter();
        let mut next = |wanted: bool| -> Result<f64> {
            match wanted.then(|| out.next()).flatten() {
                Some(tensor) => Ok(tensor.item()?),
                None => Ok(0.0),
            }
        };
        let has = |of: fn(&Compiled) -> bool| self.programs.get(&form).is_some_and(of);
        let (hits, unconverged) = (has(|c| c.hits), has(|c| c.unconverged));
        let (loss, hits) = (next(true)? * self.loss_scale, next(hits)?);
        let unconverged = if unconverged { Some(next(true)?) } else { None };
        let count = feed.count(self.at);
        let grads = match params {
            Values::Here(_) => Gradients::Here(self.trainable.iter().cloned().zip(out).collect()),
            Values::There(_) => Gradients::There(left),
        };
        Ok(Trained { loss, totals: Totals { loss: loss * count, hits, count }, unconverged, grads })
    }

    /// Sums over a batch; the state goes on from `carry` and is left there.
    pub(super) fn evaluate(
        &mut self,
        params: Values<'_>,
        feed: &Feed<'_>,
        carry: &mut Params,
    ) -> Result<Totals> {
        let form = self.form_of(feed, false);
        let (out, _) = self.run(form, params, &Params::new(), feed, carry)?;
        let item = |i: usize| out.get(i).map_or(Ok(0.0), Tensor::item);
        let count = feed.count(self.at);
        Ok(Totals { loss: item(0)? * self.loss_scale, hits: item(1)?, count })
    }

    /// The plan of the training program for batches like this one.
    pub(super) fn plan(&mut self, batch: &Batch) -> Result<Plan> {
        let form = self.form(batch, true);
        Ok(self.compiled(form)?.program.plan(batch.steps(), batch.rows())?)
    }

    /// Bytes that the training program takes for a batch, pieces that are read included.
    pub(super) fn planned_bytes(&mut self, feed: &Feed<'_>) -> Result<usize> {
        match feed {
            Feed::Whole(batch) => Ok(self.plan(batch)?.peak_bytes()),
            Feed::Pieces { steps, rows, .. } => {
                Ok(self.stream_plan(self.form_of(feed, true), *steps, *rows)?.peak_bytes)
            }
        }
    }

    fn stream_plan(&mut self, form: Form, steps: usize, rows: usize) -> Result<StreamPlan> {
        let budget = self.options.budget;
        Ok(self.compiled(form)?.program.stream_within(steps, rows, budget)?)
    }

    fn form_of(&self, feed: &Feed<'_>, train: bool) -> Form {
        match feed {
            Feed::Whole(batch) => self.form(batch, train),
            Feed::Pieces { .. } => Form { train, masked: false, lengths: false },
        }
    }

    pub(super) fn form(&self, batch: &Batch, train: bool) -> Form {
        // A sequence that is scored at its end is scored there whatever its mask.
        let masked = batch.mask.is_some() && self.at == At::EveryStep;
        Form { train, masked, lengths: batch.lengths.is_some() }
    }

    pub(super) fn inputs(&self, batch: &Batch, form: Form) -> Result<Params> {
        let real =
            |t: &Tensor| if t.dtype().is_differentiable() { t.cast(self.spec.dtype) } else { Ok(t.clone()) };
        let mut inputs = Params::new();
        inputs.insert("x", real(&batch.x)?);
        inputs.insert("target", real(&batch.target)?);
        if let Some(mask) = batch.mask.as_ref().filter(|_| form.masked) {
            inputs.insert("mask", real(mask)?);
        }
        if let Some(lengths) = &batch.lengths {
            inputs.insert("lengths", lengths.clone());
        }
        Ok(inputs)
    }

    /// Outputs but the states, which go into `carry`; gradients stay on the device with the parameters.
    fn run(
        &mut self,
        form: Form,
        params: Values<'_>,
        beside: &Params,
        feed: &Feed<'_>,
        carry: &mut Params,
    ) -> Result<(Vec<Tensor>, Vec<Left>)> {
        let rows = feed.rows();
        for slot in &self.compiled(form)?.states {
            if carry.get(&slot.input).is_none() {
                carry.insert(slot.input.clone(), Tensor::zeros(slot.dtype, [rows, slot.width])?);
            }
        }
        let (mut out, left) = match (feed, params) {
            (Feed::Whole(batch), params) => {
                let inputs = self.inputs(batch, form)?;
                let compiled = self.compiled(form)?;
                match params {
                    Values::Here(params) => {
                        (compiled.program.run(&[params, &inputs, beside, carry])?, Vec::new())
                    }
                    Values::There(values) => {
                        let first = compiled.before_gradients;
                        compiled.program.run_with(values, &[&inputs, beside, carry], first)?
                    }
                }
            }
            (&Feed::Pieces { reader, request, steps, rows }, Values::Here(params)) => {
                let plan = self.stream_plan(form, steps, rows)?;
                let shared = [params, beside, &*carry];
                (self.read_and_run(form, &shared, (reader, &request, steps), &plan)?, Vec::new())
            }
            (Feed::Pieces { .. }, Values::There(_)) => {
                let reason = "a batch that is read piece by piece does not run on a device";
                return Err(Error::config("device", reason));
            }
        };
        let compiled = self.compiled(form)?;
        let states: Vec<Tensor> =
            out.drain(compiled.states_at()..compiled.before_gradients.min(out.len())).collect();
        for (slot, state) in compiled.states.iter().zip(states) {
            carry.insert(slot.input.clone(), state);
        }
        let measured = compiled.program.last_peak_bytes();
        if measured > self.peak.measured_bytes {
            let planned = match feed {
                Feed::Whole(batch) => {
                    self.compiled(form)?.program.plan(batch.steps(), batch.rows())?.peak_bytes()
                }
                Feed::Pieces { steps, rows, .. } => self.stream_plan(form, *steps, *rows)?.peak_bytes,
            };
            self.peak = Peak { planned_bytes: planned, measured_bytes: measured };
        }
        Ok((out, left))
    }

    /// Runs a program over pieces.
    fn read_and_run(
        &mut self,
        form: Form,
        shared: &[&Params],
        (reader, request, steps): (&dyn Pieces, &Request, usize),
        plan: &StreamPlan,
    ) -> Result<Vec<Tensor>> {
        // The engine does not know the errors of a task: it is told that there is one.
        let mut failed: Option<Error> = None;
        let dtype = self.spec.dtype;
        let mut read = |from: usize, most: usize| {
            if from >= steps {
                return Ok(None);
            }
            let piece = || -> Result<Params> {
                let Batch { x, target, .. } = reader.piece(request, from, most)?;
                let real = |t: Tensor| if t.dtype().is_differentiable() { t.cast(dtype) } else { Ok(t) };
                let mut inputs = Params::new();
                inputs.insert("x", real(x)?);
                inputs.insert("target", real(target)?);
                Ok(inputs)
            };
            piece().map(Some).map_err(|error| {
                failed = Some(error);
                retrograd_engine::Error::argument("pieces", format!("step {from} cannot be read"))
            })
        };
        let run = self.compiled(form)?.program.run_stream(shared, &mut read, &plan.stream);
        match failed {
            Some(error) => Err(error),
            None => Ok(run?.outputs),
        }
    }

    fn compiled(&mut self, form: Form) -> Result<&mut Compiled> {
        // Not the entry API: compiling can fail and needs the rest of the network.
        if !self.programs.contains_key(&form) {
            let compiled = self.compile(form)?;
            self.programs.insert(form, compiled);
        }
        match self.programs.get_mut(&form) {
            Some(compiled) => Ok(compiled),
            None => Err(retrograd_engine::Error::argument("network", "bug: no program").into()),
        }
    }

    fn compile(&self, form: Form) -> Result<Compiled> {
        let mut spec = self.spec.clone();
        spec.masked = form.masked;
        spec.lengths = form.lengths;
        let mode = if form.train { Mode::Train } else { Mode::Evaluate };
        let recorded = Model::new(spec)?.record_for(mode, self.seed)?;
        let wrt = recorded.trainable_vars();
        let Recorded { mut tape, loss, loss_sum, correct, unconverged, states, .. } = recorded;
        let unconverged = unconverged.filter(|_| form.train);
        let states = if self.spec.stateful { states } else { Vec::new() };
        let mut outputs = vec![if form.train { loss } else { loss_sum }];
        outputs.extend(correct);
        outputs.extend(unconverged);
        outputs.extend(states.iter().map(|slot| slot.last));
        let before_gradients = outputs.len();
        if form.train {
            outputs.extend(grad(&mut tape, loss, &wrt)?);
        }
        let program = Program::new(&tape, &outputs, self.options.clone())?;
        let (hits, unconverged) = (correct.is_some(), unconverged.is_some());
        Ok(Compiled { program, hits, unconverged, states, before_gradients })
    }
}
