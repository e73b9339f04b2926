//! Training in memory: a step, an evaluation, and what a checkpoint holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retrograd_cells::ModelSpec;
use retrograd_datasets::{Request, Split, Task, TaskSpec};
use retrograd_engine::device::Device;
use retrograd_engine::{Params, Plan, RunOptions, Tensor};
use retrograd_optim::{Clock, DeviceUpdate, LrState, NonFinite, Recipe, State, Update, Verdict};

use super::config::{Length, TrainConfig};
use super::curvature::{BatchCurvature, Questions};
use super::network::{Declared, Feed, Gradients, Network, Peak, Totals, Trained, Values};
use super::noise::with_noise;
use super::parts::{Parts, model_spec, recipe};
use super::position::{Best, Position};
use crate::run::checkpoint::{Checkpoint, Metadata};
use crate::run::{Error, Result};

/// Updates in a row with gradients that are not finite, after which no policy helps.
const MOST_NOT_FINITE: u32 = 100;

/// Trains one network on one task. Holds everything that the rest of a run depends on.
///
/// Nothing here touches the disk; [`Session`](super::Session) adds the run folder.
///
/// ```
/// use retrograd::datasets::Split;
/// use retrograd::train::{TrainConfig, Trainer};
/// let mut config = TrainConfig::new("adding", "kru", None)?;
/// config.set_all(["hidden=8", "T=10", "train=200", "valid=100", "batch=20", "steps=5"])?;
/// let mut trainer = Trainer::new(config)?;
/// while trainer.ended().is_none() {
///     trainer.step()?;
/// }
/// assert!(trainer.evaluate(Split::Valid, None)?.metric.is_finite());
/// # Ok::<(), retrograd::Error>(())
/// ```
pub struct Trainer {
    config: TrainConfig,
    task: Box<dyn Task>,
    model: ModelSpec,
    network: Network,
    recipe: Recipe,
    /// All parameters, frozen ones too.
    params: Params,
    optimizer: State,
    lr: LrState,
    position: Position,
    /// State carried from batch to batch (streams).
    carry: Params,
    /// What an optimiser that uses curvature may ask.
    questions: Option<Questions>,
    /// Parameters and optimiser on the device, where all of an update happens there.
    there: Option<DeviceUpdate>,
    /// Whether `params` and `optimizer` are behind those.
    behind: bool,
    cost: Cost,
}

/// Time spent on updates by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Updates.
    pub updates: u64,
    /// On losses and gradients.
    pub first_order: Duration,
    /// On what an optimiser asked about curvature.
    pub curvature: Duration,
    /// On everything the optimiser did, answers included.
    pub optimizer: Duration,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Updates made, this one included.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Mean loss of a position of the batch, before the update, without penalties.
    pub loss: f64,
    /// Percentage of hits, for tasks with classes that report accuracy.
    pub accuracy: Option<f64>,
    /// Learning rate used.
    pub lr: f64,
    /// Norm of the gradients before clipping; NaN if not finite.
    pub norm: f64,
    /// Sum of the penalties.
    pub penalty: f64,
    /// Rows and steps of the batch whose inner equation was not solved, of networks that solve one.
    pub unconverged: Option<f64>,
    /// What was done to the gradients.
    pub verdict: Verdict,
}

/// A network judged on a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Split.
    pub split: Split,
    /// The task's metric.
    pub metric: f64,
    /// Mean loss of a position.
    pub loss: f64,
    /// Number of positions.
    pub count: f64,
}

/// An evaluation on validation during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Milestone {
    /// Updates made.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// On validation.
    pub valid: Evaluation,
    /// Mean training loss since the evaluation before.
    pub train_loss: f64,
    /// The metric of training since the evaluation before; parameters changed meanwhile.
    pub train_metric: f64,
    /// Whether this is the best so far.
    pub is_best: bool,
    /// Factor on the learning rate, if it was reduced now.
    pub reduced_to: Option<f64>,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All epochs or steps are done.
    Done,
    /// The goal is reached.
    Goal,
    /// No new best for as many evaluations as patience allows.
    Patience,
}

impl Ended {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Ended::Done => "all steps done",
            Ended::Goal => "goal reached",
            Ended::Patience => "no improvement any more",
        }
    }
}

impl Trainer {
    /// A trainer for a configuration whose parts are all in tables. Errors: as [`Parts::new`] and
    /// [`Trainer::with_parts`].
    pub fn new(config: TrainConfig) -> Result<Trainer> {
        Trainer::on(config, None)
    }

    /// The same with its programs on a device; `None` is the processor. Where a run is trained is no part of its
    /// configuration; sums are rounded in another order there. Errors: as [`Trainer::new`]; a device on which a program
    /// does not run is an error of the first step.
    pub fn on(config: TrainConfig, device: Option<Arc<dyn Device>>) -> Result<Trainer> {
        config.validate()?;
        let parts = Parts::new(&config)?;
        Trainer::assemble(config, parts, device)
    }

    /// A trainer for parts that need not be in any table. The configuration still says everything else.
    ///
    /// Errors: numbers out of their range; sizes that do not fit together; optimisers and what surrounds them that
    /// are unknown or have unfit settings; splits without a batch.
    pub fn with_parts(config: TrainConfig, parts: Parts) -> Result<Trainer> {
        config.validate()?;
        Trainer::assemble(config, parts, None)
    }

    fn assemble(config: TrainConfig, parts: Parts, device: Option<Arc<dyn Device>>) -> Result<Trainer> {
        let model = model_spec(&config, &parts)?;
        let task = parts.task;
        let TrainConfig { budget, threads, stash, .. } = config;
        let rates = crate::run::rates::known(config.precision.dtype(), device.as_deref());
        let options = RunOptions { budget, threads, stash, rates, device, ..RunOptions::default() };
        let (network, declared) = Network::new(model.clone(), &*task, config.seed, options)?;
        let Declared { params, factors, unitary } = declared;
        let mut recipe = recipe(&config, &factors, &unitary, task.spec().metric.larger_is_better())?;
        let trained = subset(&params, network.trainable());
        let questions =
            recipe.optimizer.wanted().map(|wanted| Questions::new(&network, wanted)).transpose()?;
        if let Some(questions) = &questions {
            if task.as_pieces().is_some() {
                let reason = format!(
                    "{} looks at whole batches, and those of {} are read piece by piece",
                    config.optimizer.name,
                    task.spec().name
                );
                return Err(Error::config("optimizer", reason));
            }
            recipe.optimizer.bind(questions.structure(), &trained)?;
        }
        let optimizer = recipe.optimizer.init(&trained)?;
        let alone = recipe.penalties.is_empty()
            && recipe.constraints.is_empty()
            && questions.is_none()
            && task.as_pieces().is_none();
        let there = match network.options.device.clone().filter(|_| alone && config.weight_noise == 0.0) {
            Some(device) => {
                let values = (&params, network.trainable());
                DeviceUpdate::new(&device, &*recipe.optimizer, &recipe.gradients, values, &optimizer)?
            }
            None => None,
        };
        for (split, size) in [(Split::Train, config.batch), (Split::Valid, config.eval_batch)] {
            if task.batches(split, size) == 0 {
                return Err(Error::config(
                    "task",
                    format!("{}: no batch of split {split}", task.spec().name),
                ));
            }
        }
        Ok(Trainer {
            config,
            task,
            model,
            network,
            recipe,
            params,
            optimizer,
            lr: LrState::default(),
            position: Position::default(),
            carry: Params::new(),
            questions,
            there,
            behind: false,
            cost: Cost::default(),
        })
    }

    /// Which parameters the optimiser treats in which way, if it makes differences.
    pub fn treatment(&self) -> Option<String> {
        self.recipe.optimizer.describe()
    }

    /// Time spent on updates so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether the optimiser asks about curvature.
    pub fn uses_curvature(&self) -> bool {
        self.questions.is_some()
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// What the task is.
    pub fn task(&self) -> &TaskSpec {
        self.task.spec()
    }

    /// What the network is.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// The parameters, frozen ones too. Where updates happen on a device they are as [`Trainer::fetch`] found them last.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Whether updates happen on the device, with the parameters and what the optimiser remembers there from step to step:
    /// an optimiser with a rule for components, gradients clipped by their norm or not at all, nothing else around it.
    pub fn updates_on_device(&self) -> bool {
        self.there.is_some()
    }

    /// Copies parameters and the optimiser's state from the device if updates have happened there. An evaluation on
    /// validation does so too. Errors: the device's.
    pub fn fetch(&mut self) -> Result<()> {
        if let Some(there) = self.there.as_ref().filter(|_| self.behind) {
            there.fetch(&mut self.params, &mut self.optimizer)?;
            self.behind = false;
        }
        Ok(())
    }

    /// Number of real numbers that are trained (a complex parameter counts two).
    pub fn trained_count(&self) -> usize {
        subset(&self.params, self.network.trainable()).real_count()
    }

    /// Where the run stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Memory of the largest program run so far.
    pub fn peak(&self) -> Peak {
        self.network.peak()
    }

    /// The plan of a training step for the next batch. Errors: a batch that is read piece by piece, of which
    /// [`Trainer::planned_bytes`] tells; a budget too small.
    pub fn plan(&mut self) -> Result<Plan> {
        let request = self.request(Split::Train, self.position.epoch, self.position.index);
        match Feed::new(&*self.task, request)? {
            Feed::Whole(batch) => self.network.plan(&batch),
            Feed::Pieces { .. } => {
                let name = self.task.spec().name;
                Err(Error::config(
                    "task",
                    format!("{name} is read piece by piece and has no plan of a batch"),
                ))
            }
        }
    }

    /// Bytes that a training step takes for the next batch, pieces that are read included. Errors: a budget too small.
    pub fn planned_bytes(&mut self) -> Result<usize> {
        let request = self.request(Split::Train, self.position.epoch, self.position.index);
        self.network.planned_bytes(&Feed::new(&*self.task, request)?)
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.task.batches(Split::Train, self.config.batch) as u64
    }

    /// Updates until the end, if nothing ends it earlier.
    pub fn total_steps(&self) -> u64 {
        match self.config.length {
            Length::Epochs(n) => n.saturating_mul(self.batches()),
            Length::Steps(n) => n,
        }
    }

    /// Whether training has ended, and why.
    pub fn ended(&self) -> Option<Ended> {
        let p = &self.position;
        let metric = self.task.spec().metric;
        let reached = |goal: f64| p.best.is_some_and(|best| !metric.better(goal, best.metric));
        if self.config.goal.is_some_and(reached) {
            Some(Ended::Goal)
        } else if self.config.patience.is_some_and(|patience| p.bad >= patience) {
            Some(Ended::Patience)
        } else if p.step >= self.total_steps() {
            Some(Ended::Done)
        } else {
            None
        }
    }

    /// Whether the next thing to do is an evaluation.
    pub fn evaluation_due(&self) -> bool {
        let p = &self.position;
        let due = match self.config.eval_every {
            Some(every) => p.step.is_multiple_of(every),
            None => p.index == 0,
        };
        p.step > 0 && p.evaluated != Some(p.step) && (due || p.step >= self.total_steps())
    }

    fn request(&self, split: Split, epoch: u64, index: usize) -> Request {
        let batch_size = if split == Split::Train { self.config.batch } else { self.config.eval_batch };
        Request { split, batch_size, epoch, index, seed: self.config.seed }
    }

    /// One update from the next batch.
    ///
    /// Errors: [`Error::NonFinite`] where the loss or a gradient is not finite and the policy is to stop, or has
    /// not helped for a hundred updates in a row; a budget too small. Nothing has changed then.
    pub fn step(&mut self) -> Result<Step> {
        let position = self.position.clone();
        let request = self.request(Split::Train, position.epoch, position.index);
        let feed = Feed::new(&*self.task, request)?;
        let mut carry = match position.index {
            0 => Params::new(),
            _ => self.carry.clone(),
        };
        let dropout = mixed(self.config.seed, position.step) as i32;
        let noisy;
        let at = if self.config.weight_noise > 0.0 {
            // Frozen parameters stay as they are.
            let trained = |name: &str| self.network.is_trained(name);
            let seed = mixed(self.config.seed ^ 0x77, position.step);
            noisy = with_noise(&self.params, &trained, self.config.weight_noise, seed)?;
            &noisy
        } else {
            &self.params
        };
        let mut before = (at.clone(), carry.clone());
        let started = Instant::now();
        let values = match &self.there {
            Some(there) => Values::There(there.values()),
            None => Values::Here(at),
        };
        let Trained { loss, totals, unconverged, grads } =
            self.network.train(values, &feed, &mut carry, dropout)?;
        let first_order = started.elapsed();
        // The first batch of a stream comes with no state: it begins at 0.
        for (name, after) in carry.iter() {
            if before.1.get(name).is_none() {
                before.1.insert(name, Tensor::zeros(after.dtype(), after.dims())?);
            }
        }

        let stop = |what: String| {
            let kept =
                "nothing of this update was made; try a smaller learning rate, clip=norm or non_finite=skip";
            Error::NonFinite { step: position.step + 1, what, kept: kept.into() }
        };
        let policy = self.recipe.gradients.non_finite;
        // One that uses curvature may take the step back that led here.
        if !loss.is_finite() && policy == NonFinite::Stop && self.questions.is_none() {
            return Err(stop(format!("loss is {loss}")));
        }
        let clock = Clock { step: position.step, epoch: position.epoch };
        let started = Instant::now();
        let mut asked = Duration::ZERO;
        // Where all of it happens there; unless gradients are not finite, which is for the recipe to judge.
        let mut done = None;
        let mut grads = match (grads, &mut self.there) {
            (Gradients::Here(grads), _) => grads,
            (Gradients::There(_), None) => Params::new(),
            (Gradients::There(left), Some(there)) => {
                let factor = self.recipe.schedule.factor(clock, &self.lr);
                let optimizer = &*self.recipe.optimizer;
                let processed = there.update(optimizer, &mut self.optimizer, &left, factor)?;
                if processed.verdict == Verdict::Skip {
                    if self.behind {
                        there.fetch(&mut self.params, &mut self.optimizer)?;
                        self.behind = false;
                    }
                    there.gradients(&left)?
                } else {
                    let (lr, penalty) = (optimizer.learning_rate() * factor, 0.0);
                    let (norm, verdict) = (processed.norm, processed.verdict);
                    done = Some(Update { lr, penalty, norm, verdict });
                    self.behind = true;
                    Params::new()
                }
            }
        };
        let (optimizer, params) = (&mut self.optimizer, &mut self.params);
        let update = match (done, &mut self.questions, &feed) {
            (Some(done), ..) => Ok(done),
            (None, Some(questions), Feed::Whole(batch)) => {
                let mut curvature = BatchCurvature {
                    network: &self.network,
                    questions,
                    at: before.0,
                    batch,
                    carry: before.1,
                    dropout_seed: dropout,
                    seed: self.config.seed ^ 0x6b,
                    loss: loss / self.network.loss_scale,
                    spent: Duration::ZERO,
                };
                let update =
                    self.recipe.update_with(&mut grads, optimizer, &self.lr, params, clock, &mut curvature);
                asked = curvature.spent;
                update
            }
            _ => self.recipe.update(&mut grads, optimizer, &self.lr, params, clock),
        };
        self.cost.updates += 1;
        self.cost.first_order += first_order;
        self.cost.curvature += asked;
        self.cost.optimizer += started.elapsed();
        if let Some(there) = self.there.as_mut().filter(|_| !self.behind) {
            there.put(&self.params, &self.optimizer)?;
        }
        let update = update.map_err(|error| match error {
            retrograd_optim::Error::NotFinite { .. } => stop(error.to_string()),
            error => error.into(),
        })?;
        if !loss.is_finite() && policy == NonFinite::Stop && update.verdict != Verdict::Skip {
            return Err(stop(format!("loss is {loss}")));
        }

        let finite = !matches!(update.verdict, Verdict::Skip | Verdict::Replaced);
        self.position.not_finite = if finite { 0 } else { position.not_finite + 1 };
        if self.position.not_finite >= MOST_NOT_FINITE {
            return Err(stop(format!("gradients are not finite for {MOST_NOT_FINITE} updates in a row")));
        }
        if loss.is_finite() {
            self.position.since.add(totals);
            self.carry = carry;
        }
        self.position.step += 1;
        self.position.index += 1;
        if self.position.index as u64 >= self.batches() {
            self.position.index = 0;
            self.position.epoch += 1;
            self.carry = Params::new();
        }
        let accuracy = (self.task.spec().metric == retrograd_datasets::Metric::Accuracy)
            .then(|| 100.0 * totals.hits / totals.count);
        Ok(Step {
            step: self.position.step,
            epoch: self.position.epoch,
            loss,
            accuracy,
            lr: update.lr,
            norm: update.norm,
            penalty: update.penalty,
            unconverged,
            verdict: update.verdict,
        })
    }

    /// Judges the network as it stands on a split, or on its first batches.
    pub fn evaluate(&mut self, split: Split, batches: Option<usize>) -> Result<Evaluation> {
        let all = self.task.batches(split, self.config.eval_batch);
        let mut totals = Totals::default();
        let mut carry = Params::new();
        for index in 0..batches.map_or(all, |n| n.min(all)) {
            let feed = Feed::new(&*self.task, self.request(split, 0, index))?;
            let values = match &self.there {
                Some(there) => Values::There(there.values()),
                None => Values::Here(&self.params),
            };
            totals.add(self.network.evaluate(values, &feed, &mut carry)?);
        }
        let metric = self.task.spec().metric.from_totals(totals.loss, totals.hits, totals.count);
        Ok(Evaluation { split, metric, loss: totals.loss / totals.count, count: totals.count })
    }

    /// Evaluates on validation, and draws the conclusions: a new best, patience, the learning rate.
    pub fn evaluate_and_learn(&mut self) -> Result<Milestone> {
        let valid = self.evaluate(Split::Valid, self.config.eval_batches)?;
        self.fetch()?;
        let metric = self.task.spec().metric;
        let p = &mut self.position;
        let is_best = match p.best {
            Some(best) => metric.better(valid.metric, best.metric),
            None => !valid.metric.is_nan(),
        };
        if is_best {
            p.best = Some(Best { step: p.step, metric: valid.metric });
            p.bad = 0;
        } else {
            p.bad += 1;
        }
        p.evaluated = Some(p.step);
        let since = std::mem::take(&mut p.since);
        let (step, epoch) = (p.step, p.epoch);
        let reduced = self.recipe.schedule.observe(valid.metric, &mut self.lr);
        Ok(Milestone {
            step,
            epoch,
            valid,
            train_loss: since.loss / since.count,
            train_metric: metric.from_totals(since.loss, since.hits, since.count),
            is_best,
            reduced_to: reduced.then_some(self.lr.factor),
        })
    }

    /// Name of the first parameter that holds a number that is not finite.
    pub(super) fn not_finite(&self) -> Option<&str> {
        self.params.iter().find(|(_, tensor)| !tensor.is_finite()).map(|(name, _)| name)
    }

    /// Groups of tensors and metadata from which [`Trainer::restore`] goes on to the same bits.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot> {
        self.fetch()?;
        let position = serde_json::to_string(&self.position).map_err(|e| Error::config("position", e))?;
        let mut metadata = Metadata::new();
        metadata.insert(POSITION.into(), position);
        Ok(Snapshot {
            groups: [
                (MODEL, self.params.clone()),
                (OPTIMIZER, self.optimizer.to_params()),
                (SCHEDULE, self.lr.to_params()?),
                (CARRY, self.carry.clone()),
            ],
            metadata,
        })
    }

    /// Goes on from a checkpoint. Errors: the reason why it does not fit; nothing has changed then.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        let Checkpoint { mut groups, metadata } = checkpoint;
        let position = metadata.get(POSITION).ok_or("no training position; it holds a model only")?;
        let position: Position = serde_json::from_str(position).map_err(|e| format!("position: {e}"))?;
        let params = take(&mut groups, MODEL)?;
        check_like(&self.params, &params)?;
        let optimizer = State::from_params(take(&mut groups, OPTIMIZER)?).map_err(|e| e.to_string())?;
        let trained = subset(&params, self.network.trainable());
        self.recipe.optimizer.check_state(&trained, &optimizer).map_err(|e| e.to_string())?;
        let lr = LrState::from_params(&take(&mut groups, SCHEDULE)?).map_err(|e| e.to_string())?;
        let carry = take(&mut groups, CARRY)?;
        (self.params, self.optimizer, self.lr, self.carry) = (params, optimizer, lr, carry);
        self.position = position;
        self.restored()
    }

    /// Takes what was restored to the device.
    fn restored(&mut self) -> Result<(), String> {
        self.behind = false;
        match &mut self.there {
            Some(there) => there.put(&self.params, &self.optimizer).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    }

    /// Takes over the parameters of a checkpoint, and nothing else. Errors: the reason why they do not fit.
    pub(super) fn restore_model(&mut self, mut checkpoint: Checkpoint) -> Result<(), String> {
        let params = take(&mut checkpoint.groups, MODEL)?;
        check_like(&self.params, &params)?;
        self.params = params;
        self.restored()
    }
}

/// Name of the group of parameters in a checkpoint.
pub(crate) const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const SCHEDULE: &str = "schedule";
const CARRY: &str = "carry";
pub(super) const POSITION: &str = "position";

/// What a checkpoint of a run holds.
pub(super) struct Snapshot {
    groups: [(&'static str, Params); 4],
    pub(super) metadata: Metadata,
}

impl Snapshot {
    pub(super) fn groups(&self) -> Vec<(&str, &Params)> {
        self.groups.iter().map(|(name, params)| (*name, params)).collect()
    }
}

fn take(groups: &mut HashMap<String, Params>, name: &str) -> Result<Params, String> {
    groups.remove(name).ok_or_else(|| format!("no group `{name}`"))
}

/// Errors unless both hold tensors of the same names, types and sizes.
fn check_like(mine: &Params, theirs: &Params) -> Result<(), String> {
    for (name, tensor) in mine.iter() {
        let got = theirs.get(name).ok_or_else(|| format!("parameter `{name}` is missing"))?;
        if (got.dtype(), got.dims()) != (tensor.dtype(), tensor.dims()) {
            let (want, has) = ((tensor.dtype(), tensor.dims()), (got.dtype(), got.dims()));
            return Err(format!(
                "parameter `{name}`: expected {} {:?}, got {} {:?}",
                want.0, want.1, has.0, has.1
            ));
        }
    }
    match theirs.names().find(|name| mine.get(name).is_none()) {
        Some(name) => Err(format!("parameter `{name}` belongs to another network")),
        None => Ok(()),
    }
}

/// Clones share their storage, so this costs nothing.
fn subset(params: &Params, names: &[String]) -> Params {
    names.iter().filter_map(|name| Some((name.clone(), params.get(name)?.clone()))).collect()
}

/// A number that depends on both evenly (the finalizer of SplitMix64, Steele et al. 2014).
fn mixed(seed: u64, step: u64) -> u64 {
    let mut z = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
