//! What an optimiser that uses curvature asks of a network: statistics, products with its Gauss-Newton matrix, losses.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use retrograd_cells::Model;
use retrograd_cells::model::{Drawn, Noise, direction_name};
use retrograd_datasets::{At, Batch};
use retrograd_engine::{DType, Params, Program, Tensor, Var};
use retrograd_optim::kfac::{Curvature, MapMoments, MapSpec, Moments, Structure, Targets, Wanted};

use super::network::{Form, Network};
use super::noise::normal;
use crate::run::{Error, Result};

/// What is asked, and of batches of which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Question {
    Statistics,
    Products(usize),
    Loss,
}

/// Programs that answer, compiled when first asked.
#[derive(Debug)]
pub(super) struct Questions {
    wanted: Wanted,
    structure: Structure,
    programs: HashMap<(Question, Form), Program>,
    /// Places of a map's statistics among the outputs: `a0`, `a1`, `g1` where there are any.
    layout: Vec<[bool; 3]>,
}

impl Questions {
    /// What a network can tell, for an optimiser that wants this.
    pub(super) fn new(network: &Network, wanted: Wanted) -> Result<Questions> {
        let recorded = Model::new(network.spec.clone())?.record_statistics(
            network.seed,
            drawn(wanted),
            wanted.lag,
            wanted.widest,
        )?;
        let name = |v: Var| -> Result<String> {
            let found = recorded.trainable.iter().find(|(_, w)| *w == v);
            found
                .map(|(name, _)| name.clone())
                .ok_or_else(|| Error::config("kfac", "bug: a map without a name"))
        };
        let mut maps = Vec::new();
        let mut inputs: Vec<Option<Var>> = Vec::new();
        let mut layout = Vec::new();
        for m in &recorded.statistics.maps {
            let input = match inputs.iter().position(|a| *a == m.a0 && a.is_some()) {
                Some(known) => known,
                None => {
                    inputs.push(m.a0);
                    inputs.len() - 1
                }
            };
            layout.push([m.a0.is_some(), m.a1.is_some(), m.g1.is_some()]);
            maps.push(MapSpec {
                weight: m.weight.map(name).transpose()?,
                transposed: m.transposed,
                bias: m.bias.map(|(b, at)| Ok::<_, Error>((name(b)?, at))).transpose()?,
                outputs: m.outputs.clone(),
                lookup: m.lookup,
                every_step: m.every_step,
                uses: m.repeats,
                input,
            });
        }
        Ok(Questions { wanted, structure: Structure { maps }, programs: HashMap::new(), layout })
    }

    /// The linear maps among the parameters.
    pub(super) fn structure(&self) -> &Structure {
        &self.structure
    }

    fn program(&mut self, network: &Network, question: Question, form: Form) -> Result<&mut Program> {
        // Not the entry API: compiling can fail.
        if !self.programs.contains_key(&(question, form)) {
            let program = self.compile(network, question, form)?;
            self.programs.insert((question, form), program);
        }
        let found = self.programs.get_mut(&(question, form));
        found.ok_or_else(|| Error::config("kfac", "bug: no program"))
    }

    fn compile(&self, network: &Network, question: Question, form: Form) -> Result<Program> {
        let mut spec = network.spec.clone();
        spec.masked = form.masked;
        spec.lengths = form.lengths;
        let model = Model::new(spec)?;
        let options = network.options.clone();
        Ok(match question {
            Question::Statistics => {
                let w = self.wanted;
                let recorded = model.record_statistics(network.seed, drawn(w), w.lag, w.widest)?;
                let mut outputs = Vec::new();
                for m in &recorded.statistics.maps {
                    outputs.extend([m.a0, m.a1, Some(m.g0), m.g1].into_iter().flatten());
                }
                outputs.extend(&recorded.gradients);
                Program::new(&recorded.tape, &outputs, options)?
            }
            Question::Products(directions) => {
                let recorded = model.record_products(network.seed, directions)?;
                Program::new(&recorded.tape, &recorded.products, options)?
            }
            Question::Loss => {
                let recorded = model.record(network.seed)?;
                Program::new(&recorded.tape, &[recorded.loss], options)?
            }
        })
    }
}

fn drawn(wanted: Wanted) -> Drawn {
    match wanted.targets {
        Targets::Sampled => Drawn::FromModel,
        Targets::Empirical => Drawn::FromData,
    }
}

/// One batch of one network, answering.
pub(super) struct BatchCurvature<'a> {
    pub(super) network: &'a Network,
    pub(super) questions: &'a mut Questions,
    /// Parameters before the update.
    pub(super) at: Params,
    pub(super) batch: &'a Batch,
    /// State before the batch.
    pub(super) carry: Params,
    pub(super) dropout_seed: i32,
    /// Seed of drawn targets, with the number of the update.
    pub(super) seed: u64,
    /// Mean loss before the update, as the model has it.
    pub(super) loss: f64,
    /// Time spent answering.
    pub(super) spent: Duration,
}

impl BatchCurvature<'_> {
    /// Answers from a batch and the state before it; `first` comes before the parameters before the update.
    fn run(
        &mut self,
        question: Question,
        first: &Params,
        (batch, carry): (&Batch, &Params),
    ) -> Result<Vec<Tensor>> {
        let started = Instant::now();
        let form = self.network.form(batch, true);
        let mut inputs = self.network.inputs(batch, form)?;
        inputs.insert("dropout_seed", Tensor::scalar(self.dropout_seed));
        let program = self.questions.program(self.network, question, form)?;
        let out = program.run(&[first, &inputs, carry, &self.at])?;
        self.spent += started.elapsed();
        Ok(out)
    }

    /// Some of the rows of the batch, and their state.
    fn share(&self, share: f64, step: u64) -> Result<(Batch, Params)> {
        let rows = Wanted::rows(share, self.batch.rows(), step);
        if rows.len() == self.batch.rows() {
            return Ok((self.batch.clone(), self.carry.clone()));
        }
        let by_step = |t: &Tensor| picked(t, 1, &rows);
        let by_row = |t: &Tensor| picked(t, 0, &rows);
        let batch = Batch {
            x: by_step(&self.batch.x)?,
            target: match self.network.at {
                At::Last => by_row(&self.batch.target)?,
                At::EveryStep => by_step(&self.batch.target)?,
            },
            mask: self.batch.mask.as_ref().map(by_step).transpose()?,
            lengths: self.batch.lengths.as_ref().map(by_row).transpose()?,
        };
        let carry = self.carry.iter().map(|(name, t)| Ok((name.to_string(), by_row(t)?)));
        Ok((batch, carry.collect::<Result<_>>()?))
    }

    /// Noise for drawn targets, or signs of rows.
    fn noise(&self, step: u64, batch: &Batch) -> Result<Params> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let spec = &self.network.spec;
        let (steps, rows) = (batch.steps(), batch.rows());
        let mut more = Params::new();
        let unit = |rng: &mut ChaCha8Rng| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        match self.questions.wanted.targets {
            Targets::Empirical => {
                let mut signs = Tensor::zeros(spec.dtype, [rows])?;
                signs.fill_with(|_| if rng.next_u64() >> 63 == 0 { 1.0.into() } else { (-1.0).into() });
                more.insert("signs", signs);
            }
            Targets::Sampled => {
                let kind = Noise::of(spec.loss);
                let mut draw = || match kind {
                    Noise::Uniform => unit(&mut rng),
                    Noise::Normal => normal(&mut rng),
                    Noise::Gumbel => -(-(1.0 - unit(&mut rng)).ln()).ln(),
                };
                // The largest f32 below 1 is the draw for uniform numbers that round up to it.
                let bounded = |x: f64| if spec.dtype == DType::F32 { x.clamp(-1e30, 1e30) } else { x };
                let lead: &[usize] = match self.network.at {
                    At::Last => &[rows],
                    At::EveryStep => &[steps, rows],
                };
                let mut noise = Tensor::zeros(spec.dtype, [lead, &[spec.output]].concat())?;
                noise.fill_with(|_| bounded(draw()).into());
                more.insert("noise", noise);
            }
        }
        Ok(more)
    }

    fn statistics(&mut self, step: u64) -> Result<Moments> {
        let (batch, carry) = self.share(self.questions.wanted.stats_rows, step)?;
        let noise = self.noise(step, &batch)?;
        let mut out = self.run(Question::Statistics, &noise, (&batch, &carry))?.into_iter();
        let lost = || Error::config("kfac", "bug: an output is missing");
        let mut maps = Vec::new();
        for [a0, a1, g1] in self.questions.layout.clone() {
            let mut next = |there: bool| there.then(|| out.next().ok_or_else(lost)).transpose();
            let (a0, a1) = (next(a0)?, next(a1)?);
            let g0 = next(true)?.ok_or_else(lost)?;
            maps.push(MapMoments { a0, a1, g0, g1: next(g1)? });
        }
        let gradients = self.network.trainable().iter().cloned().zip(out).collect();
        let (steps, rows) = (batch.steps(), batch.rows());
        let lengths = match &batch.lengths {
            Some(lengths) => {
                let ends = lengths.as_slice::<i32>()?.iter().map(|&n| (n.max(0) as usize).min(steps));
                Moments::lengths_of(ends)
            }
            None => Moments::lengths_of([steps]),
        };
        Ok(Moments { maps, gradients, rows, lengths })
    }

    fn all_products(&mut self, step: u64, directions: &[&Params]) -> Result<Vec<f64>> {
        let mut inputs = Params::new();
        for name in self.network.trainable() {
            for (k, direction) in directions.iter().enumerate() {
                let of = self.at.require(name)?;
                let tensor = match direction.get(name) {
                    Some(tensor) => tensor.clone(),
                    None => Tensor::zeros(of.dtype(), of.dims())?,
                };
                inputs.insert(direction_name(k, name), tensor);
            }
        }
        let n = directions.len();
        let (batch, carry) = self.share(self.questions.wanted.model_rows, step)?;
        let out = self.run(Question::Products(n), &inputs, (&batch, &carry))?;
        let mut matrix = vec![0.0; n * n];
        let mut at = out.iter();
        for i in 0..n {
            for j in i..n {
                let value = at.next().map_or(Ok(f64::NAN), Tensor::item)?;
                (matrix[i * n + j], matrix[j * n + i]) = (value, value);
            }
        }
        Ok(matrix)
    }
}

/// The entries of `t` at these places of an axis.
fn picked(t: &Tensor, axis: usize, places: &[usize]) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let Some(&n) = dims.get(axis) else { return Ok(t.clone()) };
    let outer: usize = dims[..axis].iter().product();
    let inner = dims[axis + 1..].iter().product::<usize>() * t.dtype().size();
    dims[axis] = places.len();
    let mut out = Tensor::zeros(t.dtype(), &dims)?;
    let (from, to) = (t.as_bytes(), out.as_bytes_mut());
    for o in 0..outer {
        for (k, &place) in places.iter().enumerate() {
            let (a, b) = ((o * places.len() + k) * inner, (o * n + place) * inner);
            to[a..a + inner].copy_from_slice(&from[b..b + inner]);
        }
    }
    Ok(out)
}

/// Errors of the engine stay what they are.
fn asked(error: Error) -> retrograd_optim::Error {
    match error {
        Error::Engine(error) => error.into(),
        Error::Optim(error) => error,
        other => retrograd_optim::Error::Curvature { what: other.to_string() },
    }
}

impl Curvature for BatchCurvature<'_> {
    fn moments(&mut self, step: u64) -> retrograd_optim::Result<Moments> {
        self.statistics(step).map_err(asked)
    }

    fn products(&mut self, step: u64, directions: &[&Params]) -> retrograd_optim::Result<Vec<f64>> {
        self.all_products(step, directions).map_err(asked)
    }

    fn loss(&mut self, params: &Params) -> retrograd_optim::Result<f64> {
        let (batch, carry) = (self.batch, self.carry.clone());
        let out = self.run(Question::Loss, params, (batch, &carry)).map_err(asked)?;
        Ok(out.first().map_or(Ok(f64::NAN), Tensor::item)?)
    }

    fn loss_before(&self) -> f64 {
        self.loss
    }

    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, |n| n.get());
        self.network.options.threads.unwrap_or_else(all)
    }
}
