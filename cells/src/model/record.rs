//! Recording a model: declarations, then scans.

use retrograd_engine::core_ops::{concat, fill};
use retrograd_engine::{DType, Lead, Scan, Shape, State, Tape, Ty, Var};
use retrograd_ops as ops;

use super::loss::{self, Totals};
use super::{Loss, Mode, ModelSpec, Probe, Readout, Recorded, StateSlot, hits};
use crate::cell::{BoundCell, Input, UNCONVERGED, drop_symbol};
use crate::declare::{Declare, ParamStore};
use crate::error::{Error, Result};
use crate::init::Init;
use crate::masked::Masked;

/// Values with names: the states and sequences of a stack.
#[derive(Clone, Debug, Default)]
struct Named(Vec<(String, Var)>);

impl Named {
    fn push(&mut self, name: impl Into<String>, v: Var) {
        self.0.push((name.into(), v));
    }

    fn get(&self, name: &str) -> Option<Var> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    fn require(&self, name: &str) -> retrograd_engine::Result<Var> {
        self.get(name)
            .ok_or_else(|| retrograd_engine::Error::argument("model", format!("bug: no value `{name}`")))
    }

    fn vars(&self) -> Vec<Var> {
        self.0.iter().map(|(_, v)| *v).collect()
    }
}

impl State for Named {
    fn map_parts(
        &self,
        f: &mut dyn FnMut(&str, Var) -> retrograd_engine::Result<Var>,
    ) -> retrograd_engine::Result<Named> {
        self.0.iter().map(|(n, v)| Ok((n.clone(), f(n, *v)?))).collect::<Result<_, _>>().map(Named)
    }
}

/// A layer in one direction, with its learned first state.
#[derive(Debug)]
struct BoundLayer {
    cell: Box<dyn BoundCell>,
    /// For every part of the state; the count of what was not solved is not learned.
    learned: Option<Vec<Option<Var>>>,
}

/// A model with declared parameters.
#[derive(Debug)]
pub struct BoundModel {
    /// One for each layer, or two (forward, backward).
    layers: Vec<Vec<BoundLayer>>,
    embedding: Option<Var>,
    /// `[N, C]`, in training with dropout of vectors.
    input_mask: Option<Var>,
    /// `[N, width]`, in training with dropout before the read-out.
    readout_mask: Option<Var>,
    v: Var,
    c: Var,
}

const DIRECTIONS: [&str; 2] = ["forward", "backward"];

impl BoundModel {
    /// Declares all parameters of a model: `layer0.…` (or `layer0.forward.…` and `layer0.backward.…`), then the
    /// read-out `readout.V` `[width, O]`, Glorot, and `readout.c` `[O]`, 0. An embedding comes before all: `embedding.E`
    /// `[V, width]`, normal of deviation 0.1.
    pub fn declare(ctx: &mut Declare<'_>, spec: &ModelSpec) -> Result<BoundModel> {
        if spec.weight_norm {
            ctx.normalize_weights();
        }
        ctx.set_initial(&spec.initial);
        let seed = ctx.dropout_seed();
        let mut input = spec.input;
        let embedding = match spec.embedding {
            Some(width) => {
                let table = ctx.scope("embedding").real("E", &[input.size(), width], Init::Normal(0.1))?;
                input = Input::Dense(width);
                Some(table)
            }
            None => None,
        };
        let keep = 1.0 - spec.input_dropout;
        let dropped = seed.filter(|_| spec.input_dropout > 0.0);
        ctx.set_symbol_dropout(dropped.map(|seed| (seed, keep)));
        let vectors = matches!(spec.input, Input::Dense(_));
        let dtype = spec.dtype;
        let input_mask = match dropped.filter(|_| vectors) {
            Some(seed) => {
                let shape = Shape::rows([input.size()]);
                Some(ops::dropout_mask(ctx.tape(), seed, keep, dtype, shape, INPUT_MASK)?)
            }
            None => None,
        };
        let recurrent = seed.filter(|_| spec.recurrent_dropout > 0.0);
        let mut layers = Vec::new();
        for (i, layer) in spec.layers.iter().enumerate() {
            let mut ctx = ctx.scope(&format!("layer{i}"));
            let declare = |ctx: &mut Declare<'_>| -> Result<BoundLayer> {
                let cell = match recurrent {
                    Some(seed) => {
                        let (keep, shared) = (1.0 - spec.recurrent_dropout, spec.shared_masks);
                        let operator = Masked { operator: &*layer.operator, seed, keep, shared };
                        layer.cell.declare(ctx, input, layer.hidden, &operator)?
                    }
                    None => layer.cell.declare(ctx, input, layer.hidden, &*layer.operator)?,
                };
                let learned = match spec.learn_h0 {
                    true => Some(declare_h0(ctx, &*cell)?),
                    false => None,
                };
                Ok(BoundLayer { cell, learned })
            };
            let directions = match spec.bidirectional {
                false => vec![declare(&mut ctx)?],
                true => DIRECTIONS.iter().map(|d| declare(&mut ctx.scope(d))).collect::<Result<Vec<_>>>()?,
            };
            input = Input::Dense(directions.iter().map(|d| d.cell.output_width()).sum());
            layers.push(directions);
        }
        let mut readout = ctx.scope("readout");
        let v = readout.real("V", &[input.size(), spec.output], Init::Glorot)?;
        let c = readout.real("c", &[spec.output], Init::Zeros)?;
        for name in &spec.frozen {
            if ctx.freeze(name) == 0 {
                return Err(Error::model(format!("frozen parameter `{name}` does not exist")));
            }
        }
        if let Some((name, _)) = spec.initial.iter().find(|(name, _)| !ctx.declares(name)) {
            return Err(Error::model(format!("first values of parameter `{name}`, which does not exist")));
        }
        let readout_mask = match seed.filter(|_| spec.readout_dropout > 0.0) {
            Some(seed) => {
                let (keep, shape) = (1.0 - spec.readout_dropout, Shape::rows([input.size()]));
                Some(ops::dropout_mask(ctx.tape(), seed, keep, dtype, shape, READOUT_MASK)?)
            }
            None => None,
        };
        Ok(BoundModel { layers, embedding, input_mask, readout_mask, v, c })
    }

    /// What the first layer reads of the input of a step.
    fn read(
        &self,
        tape: &mut Tape,
        mut x: Var,
        symbols: Option<(Var, f64)>,
    ) -> retrograd_engine::Result<Var> {
        if let Some(table) = self.embedding {
            x = ops::gather(tape, table, x)?;
            if let Some((seed, keep)) = symbols {
                x = drop_symbol(tape, x, seed, keep)?;
            }
        }
        match self.input_mask {
            Some(mask) => ops::mul(tape, x, mask),
            None => Ok(x),
        }
    }

    fn outputs(&self, tape: &mut Tape, mut features: Var) -> retrograd_engine::Result<Var> {
        if let Some(mask) = self.readout_mask {
            features = ops::mul(tape, features, mask)?;
        }
        let y = ops::matmul(tape, features, self.v)?;
        ops::add(tape, y, self.c)
    }
}

/// Streams of masks that are not those of a layer.
const INPUT_MASK: u64 = 1 << 41;
const READOUT_MASK: u64 = 1 << 42;

fn declare_h0(ctx: &mut Declare<'_>, cell: &dyn BoundCell) -> Result<Vec<Option<Var>>> {
    let init = cell.first_state();
    let declare = |part: crate::StatePart| {
        if part.name == UNCONVERGED {
            return Ok(None);
        }
        let name = format!("{}0", part.name);
        match part.complex {
            true => ctx.complex(&name, &[part.width], init).map(Some),
            false => ctx.real(&name, &[part.width], init).map(Some),
        }
    };
    cell.state().into_iter().map(declare).collect()
}

/// What every part of the recording reads.
struct Recorder<'a> {
    spec: &'a ModelSpec,
    model: BoundModel,
    x: Var,
    target: Var,
    mask: Option<Var>,
    lengths: Option<Var>,
    dropout_seed: Option<Var>,
    /// Seed and probability with which symbols are kept, where they have an embedding.
    symbols: Option<(Var, f64)>,
}

pub(super) fn record(spec: &ModelSpec, mode: Mode, seed: u64) -> Result<Recorded> {
    let mut tape = Tape::new();
    let mut store = ParamStore::new(seed, spec.dtype)?;
    let dropout_seed = match spec.drops() && mode == Mode::Train {
        true => Some(tape.input("dropout_seed", DType::I32, Shape::shared([]))?),
        false => None,
    };
    store.set_dropout_seed(dropout_seed);
    let model = BoundModel::declare(&mut Declare::new(&mut tape, &mut store), spec)?;
    let x = match spec.input {
        Input::Dense(c) => tape.input("x", spec.dtype, Shape::sequence([c]))?,
        Input::Symbols(_) => tape.input("x", DType::I32, Shape::sequence([]))?,
    };
    let (dtype, shape) = loss::target_ty(spec.loss, spec.readout, spec.output, spec.dtype);
    let target = tape.input("target", dtype, shape.clone())?;
    let mask = match spec.masked {
        true => Some(tape.input("mask", spec.dtype, Shape::new(shape.lead, []))?),
        false => None,
    };
    let lengths = match spec.lengths {
        true => Some(tape.input("lengths", DType::I32, Shape::rows([]))?),
        false => None,
    };
    let all_seed = dropout_seed;
    let dropout_seed = dropout_seed.filter(|_| spec.dropout > 0.0);
    let symbols = all_seed.filter(|_| spec.input_dropout > 0.0).map(|seed| (seed, 1.0 - spec.input_dropout));
    let recorder = Recorder { spec, model, x, target, mask, lengths, dropout_seed, symbols };
    let mut results = match spec.bidirectional {
        false => recorder.one_direction(&mut tape)?,
        true => recorder.both_directions(&mut tape)?,
    };
    let Totals { loss: loss_sum, count, correct } = recorder.totals(&mut tape, &results.rows)?;
    let loss = loss::mean(&mut tape, loss_sum, count)?;
    tape.label(loss, "loss");
    Ok(Recorded {
        loss,
        loss_sum,
        count,
        correct,
        predictions: results.rows.get("output").filter(|_| spec.predictions),
        unconverged: results.unconverged,
        probes: std::mem::take(&mut results.probes),
        states: std::mem::take(&mut results.states),
        trainable: store.trainable().map(|(n, v)| (n.to_string(), v)).collect(),
        factors: store.trained_factors().map(str::to_string).collect(),
        params: store.into_params(),
        tape,
    })
}

/// What the scans hand over: row losses with what else is counted, and last states.
struct Results {
    rows: Named,
    states: Vec<StateSlot>,
    probes: Vec<Probe>,
    unconverged: Option<Var>,
}

/// Name of the input that moves a part of a layer's state.
fn probe_name(layer: usize, part: &str) -> String {
    format!("probe.{layer}.{part}")
}

/// Adds what the last states of a layer count of steps that were not solved.
fn count_unconverged(
    tape: &mut Tape,
    last: &Named,
    mut sum: Option<Var>,
) -> retrograd_engine::Result<Option<Var>> {
    for (_, v) in last.0.iter().filter(|(name, _)| counts_unconverged(name)) {
        let total = ops::sum_all(tape, *v)?;
        sum = Some(match sum {
            Some(sum) => ops::add(tape, sum, total)?,
            None => total,
        });
    }
    Ok(sum)
}

/// Whether a state of that name, `0.unconverged`, is a count.
fn counts_unconverged(name: &str) -> bool {
    name.rsplit('.').next() == Some(UNCONVERGED)
}

impl Recorder<'_> {
    fn scan(&self, reverse: bool) -> Scan {
        Scan::new().lengths(self.lengths).horizon(self.spec.horizon).reverse(reverse)
    }

    /// First state of a layer: given, learned or zero.
    fn first_state(&self, tape: &mut Tape, layer: &BoundLayer, at: usize) -> Result<Named> {
        let mut state = Named::default();
        for (k, part) in layer.cell.state().into_iter().enumerate() {
            let real = self.spec.dtype;
            let dtype = if part.complex { real.complex().unwrap_or(real) } else { real };
            let v = match layer.learned.as_ref().and_then(|learned| learned[k]) {
                _ if self.spec.stateful && part.name != UNCONVERGED => {
                    tape.input(&format!("state.{at}.{}", part.name), dtype, Shape::rows([part.width]))?
                }
                Some(learned) => learned,
                None => fill(tape, Ty::new(dtype, Shape::shared([part.width])), 0.0)?,
            };
            state.push(format!("{at}.{}", part.name), v);
        }
        Ok(state)
    }

    fn slots(&self, tape: &Tape, last: &Named) -> Result<Vec<StateSlot>> {
        let slot = |(name, v): &(String, Var)| {
            let ty = tape.ty(*v)?;
            let (dtype, width) = (ty.dtype, ty.shape.width());
            Ok(StateSlot { input: format!("state.{name}"), dtype, width, last: *v })
        };
        last.0.iter().filter(|(name, _)| !counts_unconverged(name)).map(slot).collect()
    }

    /// Sequences every step reads: the input, and what the loss of a step needs.
    fn sequences(&self, features: Var) -> Named {
        let mut xs = Named::default();
        xs.push("x", features);
        if self.spec.readout == Readout::EveryStep {
            xs.push("target", self.target);
            if let Some(mask) = self.mask {
                xs.push("mask", mask);
            }
        }
        xs
    }

    /// Layer, part, name and value of the inputs that move states, if they are wanted.
    fn probes(
        &self,
        tape: &mut Tape,
        layers: &[&BoundLayer],
    ) -> Result<Vec<(usize, &'static str, String, Var)>> {
        let mut probes = Vec::new();
        for (i, layer) in layers.iter().enumerate().filter(|_| self.spec.probes) {
            for part in layer.cell.state().into_iter().filter(|part| part.name != UNCONVERGED) {
                let real = self.spec.dtype;
                let dtype = if part.complex { real.complex().unwrap_or(real) } else { real };
                let name = probe_name(i, part.name);
                let v = tape.input(&name, dtype, Shape::sequence([part.width]))?;
                probes.push((i, part.name, name, v));
            }
        }
        Ok(probes)
    }

    fn one_direction(&self, tape: &mut Tape) -> Result<Results> {
        let layers: Vec<&BoundLayer> = self.model.layers.iter().map(|l| &l[0]).collect();
        let mut first = Named::default();
        for (i, layer) in layers.iter().enumerate() {
            first.0.extend(self.first_state(tape, layer, i)?.0);
        }
        let mut xs = self.sequences(self.x);
        let probes = self.probes(tape, &layers)?;
        probes.iter().for_each(|(_, _, name, v)| xs.push(name.clone(), *v));
        if let Some(layer) =
            layers.iter().position(|l| self.spec.walk_back.is_some() && l.cell.expansion().is_none())
        {
            let name = self.spec.layers[layer].cell.name();
            return Err(Error::model(format!(
                "walk_back: a step of `{name}` (layer {layer}) has no inverse"
            )));
        }
        // Errors of a layer reach those above it, which the comparison of every run sees.
        let expansion = layers.iter().filter_map(|layer| layer.cell.expansion()).fold(1.0, f64::max);
        let inverse = |tape: &mut Tape, state: Named, xs: Named| {
            let mut x = self.model.read(tape, xs.require("x")?, self.symbols)?;
            let (after, mut before) = (state.vars(), Vec::new());
            for (i, layer) in layers.iter().enumerate() {
                if i > 0 {
                    x = self.dropped(tape, x, i)?;
                }
                let here = &after[before.len()..before.len() + layer.cell.state().len()];
                let found = layer.cell.inverse(tape, here, x)?;
                before.extend(found);
                x = layer.cell.output(tape, here)?;
            }
            let names = state.0.into_iter().map(|(name, _)| name);
            Ok(Named(names.zip(before).collect()))
        };
        let scan = self.scan(false).walk_back(self.spec.walk_back);
        let step = |tape: &mut Tape, state: Named, xs: Named| {
            let mut histories = Named::default();
            let mut x = self.model.read(tape, xs.require("x")?, self.symbols)?;
            let (old, mut new) = (state.vars(), Vec::new());
            for (i, layer) in layers.iter().enumerate() {
                if i > 0 {
                    x = self.dropped(tape, x, i)?;
                }
                let width = layer.cell.state().len();
                let mut next = layer.cell.step(tape, &old[new.len()..new.len() + width], x)?;
                for (part, v) in layer.cell.state().into_iter().zip(&mut next) {
                    let name = probe_name(i, part.name);
                    if let Some(probe) = xs.get(&name) {
                        *v = ops::add(tape, *v, probe)?;
                        histories.push(name, *v);
                    }
                }
                x = layer.cell.output(tape, &next)?;
                new.extend(next);
            }
            let mut rows = match self.spec.readout {
                Readout::EveryStep => self.rows(tape, x, xs.require("target")?, xs.get("mask"))?,
                Readout::Last => Named::default(),
            };
            rows.0.extend(histories.0);
            let names = state.0.into_iter().map(|(name, _)| name);
            Ok((Named(names.zip(new).collect()), rows))
        };
        let (last, mut rows) = scan.run_reversible(tape, first, xs, step, expansion, inverse)?;
        let mut seen = Vec::with_capacity(probes.len());
        for (layer, part, input, var) in probes {
            let history = rows.require(&input)?;
            seen.push(Probe { layer, part, input, var, history });
        }
        if self.spec.readout == Readout::Last {
            let top = layers[layers.len() - 1];
            let states = last.vars();
            let features = top.cell.output(tape, &states[states.len() - top.cell.state().len()..])?;
            rows = self.rows(tape, features, self.target, self.mask)?;
        }
        let unconverged = count_unconverged(tape, &last, None)?;
        Ok(Results { rows, states: self.slots(tape, &last)?, probes: seen, unconverged })
    }

    fn both_directions(&self, tape: &mut Tape) -> Result<Results> {
        let mut features = self.x;
        let mut finals = Vec::new();
        let mut unconverged = None;
        for (i, directions) in self.model.layers.iter().enumerate() {
            let mut joined = Vec::new();
            finals.clear();
            for (d, layer) in directions.iter().enumerate() {
                let first = self.first_state(tape, layer, i)?;
                let (last, output) = self.scan(d == 1).run(tape, first, features, |tape, state, mut x| {
                    x = match i {
                        0 => self.model.read(tape, x, self.symbols)?,
                        _ => self.dropped(tape, x, i)?,
                    };
                    let next = layer.cell.step(tape, &state.vars(), x)?;
                    let output = layer.cell.output(tape, &next)?;
                    let names = state.0.into_iter().map(|(name, _)| name);
                    Ok((Named(names.zip(next).collect()), output))
                })?;
                unconverged = count_unconverged(tape, &last, unconverged)?;
                joined.push(output);
                finals.push(layer.cell.output(tape, &last.vars())?);
            }
            features = concat(tape, &joined, 0)?;
        }
        let rows = match self.spec.readout {
            Readout::Last => {
                let features = concat(tape, &finals, 0)?;
                self.rows(tape, features, self.target, self.mask)?
            }
            Readout::EveryStep => {
                let xs = self.sequences(features);
                let step = |tape: &mut Tape, (): (), xs: Named| {
                    let rows = self.rows(tape, xs.require("x")?, xs.require("target")?, xs.get("mask"))?;
                    Ok(((), rows))
                };
                self.scan(false).run(tape, (), xs, step)?.1
            }
        };
        Ok(Results { rows, states: Vec::new(), probes: Vec::new(), unconverged })
    }

    /// Dropout in front of layer `layer`.
    fn dropped(&self, tape: &mut Tape, x: Var, layer: usize) -> retrograd_engine::Result<Var> {
        match self.dropout_seed {
            Some(seed) => ops::dropout(tape, x, 1.0 - self.spec.dropout, seed, layer as u64),
            None => Ok(x),
        }
    }

    /// Loss, hits and weight of every row, from what the top layer shows; outputs too if they are wanted.
    fn rows(
        &self,
        tape: &mut Tape,
        features: Var,
        target: Var,
        mask: Option<Var>,
    ) -> retrograd_engine::Result<Named> {
        let y = self.model.outputs(tape, features)?;
        let mut rows = Named::default();
        rows.push("loss", loss::row_losses(tape, self.spec.loss, y, target, mask)?);
        if self.spec.loss == Loss::SoftmaxCrossEntropy {
            let hits = hits(tape, y, target)?;
            rows.push("correct", loss::weighted(tape, hits, mask)?);
        }
        // Lengths end the weights too, so that they add up to what was counted.
        if self.lengths.is_some() && self.spec.readout == Readout::EveryStep {
            let weight = match mask {
                Some(mask) => mask,
                None => fill(tape, Ty::new(self.spec.dtype, Shape::rows([])), 1.0)?,
            };
            rows.push("weight", weight);
        }
        if self.spec.predictions {
            rows.push("output", y);
        }
        Ok(rows)
    }

    fn totals(&self, tape: &mut Tape, rows: &Named) -> Result<Totals> {
        let lead = match self.spec.readout {
            Readout::Last => Lead::N,
            Readout::EveryStep => Lead::TN,
        };
        let losses = rows.require("loss")?;
        let loss = loss::total(tape, losses)?;
        let weights = rows.get("weight").or(self.mask);
        let count = loss::count(tape, weights, lead, self.spec.dtype)?;
        let correct = rows.get("correct").map(|v| loss::total(tape, v)).transpose()?;
        Ok(Totals { loss, count, correct })
    }
}
