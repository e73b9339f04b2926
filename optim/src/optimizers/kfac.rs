//! K-FAC for networks with recurrent maps.

use retrograd_engine::{Params, Tensor};

use super::adam::Adam;
use crate::elementwise::{check_like, not_differentiable};
use crate::error::{Error, Result};
use crate::kfac::approximation::Lengths;
use crate::kfac::background::{Background, Task};
use crate::kfac::block::{Block, Inversion, Place, WEIGHT, apply_all, choose, mean_curvature};
use crate::kfac::vector::{add_scaled, dot, scaled};
use crate::kfac::{Adaptation, Approximation, BlockKind, Curvature, Plane, Structure, Targets, Wanted};
use crate::optimizer::Optimizer;
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Reader, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// K-FAC (Martens and Grosse 2015), for maps used at every step of a sequence by the approximations of Martens, Ba and
/// Johnson 2018, "Kronecker-factored curvature approximations for recurrent neural networks".
///
/// ```text
/// C ← decay C + (1 − decay) C_batch                        C of A_0, A_1, G_0, G_1; divided by its own running weight
/// λ' = λ / T^p,  A_0 ← A_0 + π √λ' I,  G_0 ← G_0 + √λ'/π I     π = √((tr A_0/n_A) / (tr G_0/n_G))
/// Δ = F̂^{−1} ∇                                             block by block, see kfac::approximation
/// Δ_b ← c_b Δ_b,  c_b = ∇_bᵀΔ_b / Δ_bᵀ(F + λI)Δ_b          step=quadratic; measured at inversions, geometric averages
///
/// step=quadratic:  δ = α Δ + μ δ_before, (α, μ) the least point of ∇ᵀδ + ½ δᵀ(F + λI)δ, F exact   θ ← θ + δ
/// step=fixed, momentum_form=adam:     v ← μ v + ∇,          θ ← θ − η F̂^{−1} v
/// step=fixed, momentum_form=regular:  v ← μ v + F̂^{−1} ∇,   θ ← θ − η v
/// fixed, with a constraint c:  F̂^{−1}∇ is scaled by min(1, √(c / (η² ∇ᵀF̂^{−1}∇)))    (Ba, Grosse, Martens 2017)
/// where the next loss is no number, or more than twice the one before:  θ ← θ − δ, δ ← 0, λ ← λ/ω⁴  (adapted λ alone)
/// every k updates:  ρ = (loss after − loss before) / (∇ᵀδ + ½ δᵀFδ);  λ ← λ ω for ρ > ¾, λ/ω for ρ < ¼, ω = lm_decay^k
/// at an inversion:  λ at least `damping_floor` times the mean of F's diagonal over maps
/// ```
///
/// Blocks: Kronecker factors of each linear map with its bias, recurrent or not; of an embedding with a diagonal `A_0` and
/// steps taken as independent; the full matrix for other tensors of at most `full` real numbers, estimated from one sample
/// a batch and shrunk towards its diagonal while samples are few; the diagonal for longer vectors; other parameters are
/// moved by Adam (`adam_lr`), and [`Optimizer::describe`] says which. `blocks` overrides by name. Complex maps are inverted
/// as real matrices of twice the size with half the mean square in each component. Factors are averaged and decomposed in
/// double precision, and multiplied in that of the parameters; blocks in parallel.
///
/// Defaults: `option2`; λ at first ten times the mean of the diagonal of F over maps, adapted every 5 updates by 0.95⁵ and
/// never below three hundredths of that mean: on its own batch a step does the better the less it is damped; decay 0.95; 5
/// updates at the start that only gather statistics, then statistics every fourth update and inverses every twentieth, but
/// four times as often in the first 100 updates and twice as often in the next; `step=quadratic`; statistics and products of
/// an eighth of a batch's rows, as Martens and Grosse take for statistics (section 8). An update then costs about twice a
/// first-order one.
///
/// State: averages (`f64`) and cached inverses of every block, the last step or velocity `kfac.v`, `m` and `v` of
/// parameters left to Adam, `/kfac.weight`, `/kfac.lambda`, `/kfac.loss`.
///
/// Without a network's structure ([`Optimizer::bind`]) every parameter is left to Adam.
///
/// **Differs from** the reference implementation: eigenvalues ψ of Option 1 keep their signs unless `psi=absolute`; its
/// symmetrised `C_1` is a copy; `1/S(ψ)` is bounded where `S` vanishes; sequences of several lengths use the mean of `S`
/// over the lengths and all their steps as the divisor, so that padding does not count; λ begins and ends where the mean
/// curvature says; a step may be taken back; maps wider than `widest` outputs are cut into parts.
pub struct Kfac {
    /// η, learning rate per update of `step=fixed`.
    pub lr: f64,
    /// Learning rate of parameters left to Adam.
    pub adam_lr: f64,
    /// What is assumed about time.
    pub approximation: Approximation,
    /// Where targets come from.
    pub targets: Targets,
    /// How long a step is.
    pub step: StepRule,
    /// Where momentum goes in.
    pub momentum_form: MomentumForm,
    /// μ of `step=fixed`.
    pub momentum: f64,
    /// c of the norm constraint; 0 for none.
    pub constraint: f64,
    /// First λ; `None` takes it from the first statistics: ten times the mean curvature along a parameter of a map.
    pub damping: Option<f64>,
    /// Least λ at an inversion as a multiple of the mean curvature along a parameter of a map, where λ is adapted. On its
    /// own batch a step does the better the less it is damped, so that the adaptation alone does not know where to stop.
    pub damping_floor: f64,
    /// Whether every block's part of a quadratic step is scaled by exact curvature along it, measured at each inversion.
    pub block_scales: bool,
    /// `p` of `λ / T^p`.
    pub damping_power: f64,
    /// Whether π balances the factors.
    pub pi: bool,
    /// Adaptation of λ; `None` for a fixed one.
    pub adaptation: Option<Adaptation>,
    /// Decay of the averages.
    pub decay: f64,
    /// Share of a batch's rows that statistics are taken of, at least 8 rows.
    pub stats_rows: f64,
    /// Share of a batch's rows that exact products are made with, at least 8 rows.
    pub model_rows: f64,
    /// Updates between two statistics, after those at the start.
    pub stats_every: u64,
    /// Updates between two inversions, once `dense` is over.
    pub inverse_every: u64,
    /// Updates, after those that only gather statistics, with four times as many statistics and inversions; then as many
    /// again with twice as many. Rounded down to a multiple of `inverse_every`.
    pub dense: u64,
    /// Updates from the beginning of an inversion to the first that uses it, during which another thread computes it.
    pub inverse_lag: u64,
    /// Updates at the start that only gather statistics.
    pub burn_in: u64,
    /// Fisher-norm weight decay: this multiple of the parameter is added to the gradient before preconditioning.
    pub weight_decay: f64,
    /// Most outputs of a map with one `G`.
    pub widest: usize,
    /// Most inputs of a map, above which it is left to Adam.
    pub most_inputs: usize,
    /// Most real numbers of a full block.
    pub full: usize,
    /// Blocks by patterns of names.
    pub asked: Vec<(Select, BlockKind)>,
    blocks: Vec<Block>,
    left: Option<Vec<String>>,
    background: Background,
}

/// How long a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepRule {
    /// The least point of the quadratic model.
    #[default]
    Quadratic,
    /// The learning rate.
    Fixed,
}

/// Where momentum goes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentumForm {
    /// On the gradient, before the inverse.
    #[default]
    Adam,
    /// On the step.
    Regular,
}

impl Default for Kfac {
    fn default() -> Kfac {
        Kfac {
            lr: 0.05,
            adam_lr: 1e-3,
            approximation: Approximation::Option2,
            targets: Targets::Sampled,
            step: StepRule::Quadratic,
            momentum_form: MomentumForm::Adam,
            momentum: 0.9,
            constraint: 0.0,
            damping: None,
            damping_floor: 0.03,
            block_scales: true,
            damping_power: 1.0,
            pi: true,
            adaptation: Some(Adaptation::default()),
            decay: 0.95,
            stats_rows: 0.125,
            model_rows: 0.125,
            stats_every: 4,
            inverse_every: 20,
            dense: 100,
            inverse_lag: 0,
            burn_in: 5,
            weight_decay: 0.0,
            widest: 256,
            most_inputs: 2048,
            full: 64,
            asked: Vec::new(),
            blocks: Vec::new(),
            left: None,
            background: Background::default(),
        }
    }
}

const LAMBDA: &str = "/kfac.lambda";
const LOSS: &str = "/kfac.loss";

/// First λ as a multiple of the mean curvature `tr F / n` of maps. With π and λ/T the Kronecker factors of a map of mean
/// curvature are damped by the root of it times the mean of their own eigenvalues.
const FIRST_DAMPING: f64 = 10.0;

/// A step is taken back where the loss after it is so many times the loss before.
const MUCH_WORSE: f64 = 2.0;
/// Adaptations that a step taken back counts for.
const BACK: i32 = 4;

/// Takes over cached inverses.
fn adopt(found: Vec<(String, Tensor)>, tensors: &mut Params) -> Result<()> {
    for (key, tensor) in found {
        let shaped = match tensors.get(&key) {
            Some(old) => tensor.reshape(old.dims())?,
            None => tensor,
        };
        tensors.insert(key, shaped);
    }
    Ok(())
}

fn velocity(name: &str) -> String {
    format!("{name}/kfac.v")
}

/// Where the scale of the group of blocks that this parameter begins is kept; 0 as long as there is none.
fn scale_of(name: &str) -> String {
    format!("{name}/kfac.scale")
}

impl Kfac {
    fn adam(&self) -> Adam {
        Adam { lr: self.adam_lr, ..Adam::default() }
    }

    /// Parameters moved by blocks, of those in `params`.
    fn blocked(&self, params: &Params) -> Params {
        let names: Vec<&str> = self.blocks.iter().flat_map(Block::params).collect();
        let mine = params.iter().filter(|(name, _)| names.contains(name));
        mine.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
    }

    fn unblocked(&self, params: &Params) -> Params {
        let names: Vec<&str> = self.blocks.iter().flat_map(Block::params).collect();
        let others = params.iter().filter(|(name, _)| !names.contains(name));
        others.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
    }

    /// Tensors of the state besides those of Adam.
    fn places(&self, params: &Params) -> Vec<Place> {
        let mut all: Vec<Place> = self.blocks.iter().flat_map(|b| b.places(self.approximation)).collect();
        let blocked = self.blocked(params);
        all.extend(blocked.iter().map(|(name, t)| (velocity(name), t.dtype(), t.dims().to_vec())));
        let scale = |group: &Vec<&str>| (scale_of(group[0]), retrograd_engine::DType::F64, vec![]);
        all.extend(self.groups().iter().map(scale));
        if self.inverse_lag > 0 {
            all.extend(Task::places(self.blocks.iter().flat_map(|b| b.places(self.approximation))));
        }
        if !self.blocks.is_empty() {
            all.extend([WEIGHT, LAMBDA, LOSS].map(|k| (k.to_string(), retrograd_engine::DType::F64, vec![])));
        }
        all
    }

    fn scalar(state: &Params, key: &str) -> Result<f64> {
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        Ok(state.get(key).ok_or_else(missing)?.get(0).re)
    }

    /// Adds the statistics of a batch to the averages.
    fn gather(
        &self,
        step: u64,
        curvature: &mut dyn Curvature,
        tensors: &mut Params,
    ) -> Result<Vec<(usize, f64)>> {
        let moments = curvature.moments(step)?;
        let bound = self.blocks.iter().map(|b| match b {
            Block::Map(m) => m.parts.iter().map(|p| p.0 + 1).max().unwrap_or(0),
            _ => 0,
        });
        let expected = bound.max().unwrap_or(0);
        if moments.maps.len() < expected || moments.rows == 0 {
            let got = format!("{} of {} rows", moments.maps.len(), moments.rows);
            let expected = format!("at least {expected} of at least 1 row");
            return Err(Error::Mismatch { what: "statistics of maps".into(), expected, got });
        }
        for block in &self.blocks {
            block.accumulate(&moments, self.decay, tensors)?;
        }
        let weight = self.decay * Kfac::scalar(tensors, WEIGHT)? + 1.0 - self.decay;
        tensors.insert(WEIGHT, Tensor::scalar(weight));
        Ok(moments.lengths)
    }

    fn inversion(&self, lambda: f64) -> Inversion {
        Inversion {
            approximation: self.approximation,
            lambda,
            power: self.damping_power,
            pi: self.pi,
            decay: self.decay,
        }
    }

    /// Updates between two of what is done `every` so many, `since` updates after the first.
    fn period(&self, every: u64, since: u64) -> u64 {
        let dense = self.dense / self.inverse_every.max(1) * self.inverse_every;
        let oftener = if since < dense {
            4
        } else if since < 2 * dense {
            2
        } else {
            1
        };
        (every / oftener).max(1)
    }

    /// Whether an inversion begins at this update, and whether one begun earlier is taken over.
    fn due(&self, step: u64) -> (bool, bool) {
        let Some(since) = step.checked_sub(self.burn_in) else { return (false, false) };
        let period = self.period(self.inverse_every, since);
        let phase = since % period;
        (phase == 0, self.inverse_lag > 0 && since >= period && phase == self.inverse_lag)
    }

    /// Whether statistics are taken at this update: at all of the first, and with every inversion.
    fn gathers(&self, step: u64, inverts: bool) -> bool {
        let since = step.checked_sub(self.burn_in);
        inverts || since.is_none_or(|since| since.is_multiple_of(self.period(self.stats_every, since)))
    }

    /// The damping of an inversion: the first one if this is the first, and no less than the floor if it is adapted.
    fn damping_now(&self, step: u64, lambda: f64, lengths: &Lengths, tensors: &Params) -> Result<f64> {
        let first = step == self.burn_in && self.damping.is_none();
        let Some(lm) = self.adaptation.filter(|_| !first && self.damping_floor == 0.0) else {
            let weight = Kfac::scalar(tensors, WEIGHT)?;
            let mean = mean_curvature(&self.blocks, lengths, weight, tensors)?;
            let least = self.adaptation.map_or(0.0, |lm| lm.least.max(self.damping_floor * mean));
            return Ok(if first { FIRST_DAMPING * mean } else { lambda }.max(least));
        };
        Ok(lambda.max(lm.least))
    }

    /// Begins an inversion; without a lag, and the first one, ends it too.
    fn begin(
        &self,
        first: bool,
        lengths: &Lengths,
        lambda: f64,
        tensors: &mut Params,
        threads: usize,
    ) -> Result<()> {
        let weight = Kfac::scalar(tensors, WEIGHT)?;
        let task = Task::now(&self.blocks, self.inversion(lambda), lengths, weight, tensors);
        if first || self.inverse_lag == 0 {
            return adopt(task.run(&self.blocks, threads)?, tensors);
        }
        task.store(tensors)?;
        // As it will be read back.
        let task = Task::load(&self.blocks, self.inversion(lambda), tensors)?;
        self.background.start(&self.blocks, task);
        Ok(())
    }

    /// `F̂^{−1} z`.
    fn preconditioned(&self, tensors: &Params, z: &Params, threads: usize) -> Result<Params> {
        let mut out = scaled(z, 0.0)?;
        apply_all(&self.blocks, self.approximation, tensors, z, &mut out, threads)?;
        Ok(out)
    }

    /// Parameters of the blocks that have some in common; no group is empty.
    fn groups(&self) -> Vec<Vec<&str>> {
        let mut groups: Vec<Vec<&str>> = Vec::new();
        for block in &self.blocks {
            let names = block.params();
            let (mut joined, apart): (Vec<Vec<&str>>, Vec<Vec<&str>>) =
                groups.into_iter().partition(|g| g.iter().any(|n| names.contains(n)));
            joined.push(names);
            let mut group = joined.concat();
            group.sort_unstable();
            group.dedup();
            groups = apart;
            groups.push(group);
        }
        groups.retain(|g| !g.is_empty());
        groups
    }

    /// Measures, with exact products, how much more curved the loss is along each group's part of `F̂^{−1} ∇` than its
    /// blocks say, and keeps the geometric mean with what was measured before.
    ///
    /// What a block assumes of time, or of many uses in one step, can be wrong by a factor of a thousand where states hardly
    /// change from use to use. One step length for all parameters would then be that of the worst block.
    fn measure_scales(
        &self,
        at: u64,
        grads: &Params,
        delta: &Params,
        lambda: f64,
        tensors: &mut Params,
        curvature: &mut dyn Curvature,
    ) -> Result<()> {
        // As many directions at a time as the step itself has, so that no other program is needed.
        for pair in self.groups().chunks(2) {
            let part = |group: &Vec<&str>| -> Params {
                let mine = group.iter().filter_map(|&n| Some((n.to_string(), delta.get(n)?.clone())));
                mine.collect()
            };
            let parts: Vec<Params> = pair.iter().map(part).collect();
            let directions: Vec<&Params> = parts.iter().collect();
            let fisher = curvature.products(at, &directions)?;
            for (i, (group, part)) in pair.iter().zip(&parts).enumerate() {
                let curved = fisher[i * parts.len() + i] + lambda * dot(part, part)?;
                let scale = dot(grads, part)? / curved;
                if !scale.is_finite() || scale <= 0.0 {
                    continue;
                }
                let key = scale_of(group[0]);
                let before = Kfac::scalar(tensors, &key)?;
                let scale = if before > 0.0 { (before * scale).sqrt() } else { scale };
                tensors.insert(key, Tensor::scalar(scale));
            }
        }
        Ok(())
    }

    /// Multiplies each group's part of `delta` by its scale.
    fn scale_groups(&self, tensors: &Params, delta: &mut Params) -> Result<()> {
        for group in self.groups() {
            let scale = Kfac::scalar(tensors, &scale_of(group[0]))?;
            for name in group.iter().filter(|_| scale > 0.0) {
                let Some(part) = delta.get(name) else { continue };
                let part: Params = [(name.to_string(), part.clone())].into_iter().collect();
                for (name, part) in scaled(&part, scale)?.iter() {
                    delta.insert(name, part.clone());
                }
            }
        }
        Ok(())
    }

    /// Takes the last step back where the loss of this batch says that it made things much worse, with more damping from
    /// now on; whether it did. The quadratic model knows nothing of a recurrence that begins to expand.
    fn much_worse(
        &self,
        step: u64,
        curvature: &dyn Curvature,
        tensors: &mut Params,
        moved: &mut Params,
    ) -> Result<bool> {
        let (before, now) = (Kfac::scalar(tensors, LOSS)?, curvature.loss_before());
        if before > 0.0 && now > MUCH_WORSE * before && self.undo(step, tensors, moved)? {
            return Ok(true);
        }
        if before > 0.0 && !now.is_finite() {
            return Err(Error::NotFinite { name: "loss".into(), index: 0, value: now.to_string() });
        }
        let mean = if before > 0.0 { 0.5 * (before + now) } else { now };
        tensors.insert(LOSS, Tensor::scalar(mean));
        Ok(false)
    }

    /// Undoes the last step and damps more, if there was one and damping is adapted.
    fn undo(&self, step: u64, tensors: &mut Params, moved: &mut Params) -> Result<bool> {
        let steps = self.blocked(moved);
        let steps = steps.names().filter_map(|n| Some((n.to_string(), tensors.get(&velocity(n))?.clone())));
        let steps: Params = steps.collect();
        let possible = self.step == StepRule::Quadratic && step > self.burn_in && dot(&steps, &steps)? > 0.0;
        let Some(lm) = self.adaptation.filter(|_| possible) else { return Ok(false) };
        add_scaled(moved, &steps, -1.0)?;
        for (name, step) in steps.iter() {
            tensors.insert(velocity(name), Tensor::zeros(step.dtype(), step.dims())?);
        }
        let lambda = Kfac::scalar(tensors, LAMBDA)? * lm.decay.powf(-(lm.every as f64) * f64::from(BACK));
        tensors.insert(LAMBDA, Tensor::scalar(lambda));
        Ok(true)
    }

    /// The step of the blocked parameters, and what the model without damping says of it where it is judged.
    fn next_step(
        &self,
        at: u64,
        grads: &Params,
        tensors: &mut Params,
        lr_scale: f64,
        lambda: f64,
        (inverted, judged): (bool, bool),
        curvature: &mut dyn Curvature,
    ) -> Result<(Params, Option<f64>)> {
        let load = |tensors: &Params| -> Params {
            let mine =
                grads.iter().filter_map(|(n, _)| Some((n.to_string(), tensors.get(&velocity(n))?.clone())));
            mine.collect()
        };
        let before = load(tensors);
        let step = match self.step {
            StepRule::Quadratic => {
                let mut delta = self.preconditioned(tensors, grads, curvature.threads())?;
                if inverted && self.block_scales {
                    self.measure_scales(at, grads, &delta, lambda, tensors, curvature)?;
                }
                self.scale_groups(tensors, &mut delta)?;
                let resting = dot(&before, &before)? == 0.0;
                let directions: &[&Params] = if resting { &[&delta] } else { &[&delta, &before] };
                let f = curvature.products(at, directions)?;
                let n = directions.len();
                let fisher = |i: usize, j: usize| if i < n && j < n { f[i * n + j] } else { 0.0 };
                let damped = |i: usize, j: usize, a: &Params, b: &Params| -> Result<f64> {
                    Ok(fisher(i, j) + lambda * dot(a, b)?)
                };
                let plane = Plane {
                    curvature: [
                        damped(0, 0, &delta, &delta)?,
                        damped(0, 1, &delta, &before)?,
                        damped(1, 1, &before, &before)?,
                    ],
                    slope: [dot(grads, &delta)?, dot(grads, &before)?],
                };
                let Some(found) = plane.solve(None) else {
                    // A gradient of 0, or no curvature along it at all: there is nothing to do.
                    return Ok((scaled(grads, 0.0)?, None));
                };
                let (alpha, mu) = (found.alpha * lr_scale, found.mu * lr_scale);
                let mut step = scaled(&delta, alpha)?;
                add_scaled(&mut step, &before, mu)?;
                let quadratic =
                    alpha * alpha * fisher(0, 0) + 2.0 * alpha * mu * fisher(0, 1) + mu * mu * fisher(1, 1);
                let predicted = alpha * plane.slope[0] + mu * plane.slope[1] + 0.5 * quadratic;
                for (name, tensor) in step.iter() {
                    tensors.insert(velocity(name), tensor.clone());
                }
                return Ok((step, Some(predicted)));
            }
            StepRule::Fixed => {
                let lr = self.lr * lr_scale;
                let mut v = scaled(&before, self.momentum)?;
                let limit = |d: &Params, g: &Params| -> Result<f64> {
                    let square = lr * lr * dot(d, g)?;
                    let fits = self.constraint == 0.0 || square.is_nan() || square <= self.constraint;
                    Ok(if fits { 1.0 } else { (self.constraint / square).sqrt() })
                };
                let step = match self.momentum_form {
                    MomentumForm::Adam => {
                        add_scaled(&mut v, grads, 1.0)?;
                        let d = self.preconditioned(tensors, &v, curvature.threads())?;
                        let factor = limit(&d, &v)?;
                        scaled(&d, -lr * factor)?
                    }
                    MomentumForm::Regular => {
                        let d = self.preconditioned(tensors, grads, curvature.threads())?;
                        let factor = limit(&d, grads)?;
                        add_scaled(&mut v, &d, factor)?;
                        scaled(&v, -lr)?
                    }
                };
                for (name, tensor) in v.iter() {
                    tensors.insert(velocity(name), tensor.clone());
                }
                step
            }
        };
        let predicted = match judged {
            true => Some(dot(grads, &step)? + 0.5 * curvature.products(at, &[&step])?[0]),
            false => None,
        };
        Ok((step, predicted))
    }
}

impl Optimizer for Kfac {
    fn name(&self) -> &'static str {
        "kfac"
    }

    fn settings(&self) -> Settings {
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
            .with("damping_power", self.damping_power)
            .with("pi", self.pi)
            .with("adapt", self.adaptation.is_some())
            .with("lm_every", lm.every)
            .with("lm_decay", lm.decay)
            .with("damping_min", lm.least)
            .with("decay", self.decay)
            .with("stats_rows", self.stats_rows)
            .with("model_rows", self.model_rows)
            .with("stats_every", self.stats_every)
            .with("inverse_every", self.inverse_every)
            .with("dense", self.dense)
            .with("inverse_lag", self.inverse_lag)
            .with("burn_in", self.burn_in)
            .with("weight_decay", self.weight_decay)
            .with("widest", self.widest)
            .with("most_inputs", self.most_inputs)
            .with("full", self.full)
            .with("blocks", if asked.is_empty() { "auto".into() } else { asked.join(",") })
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        if self.blocks.is_empty() { self.adam().slots() } else { Vec::new() }
    }

    fn validate(&self) -> Result<()> {
        let owner = self.name();
        Range::NonNegative.check(owner, "lr", self.lr)?;
        Range::NonNegative.check(owner, "adam_lr", self.adam_lr)?;
        Range::Below1.check(owner, "momentum", self.momentum)?;
        Range::NonNegative.check(owner, "norm_constraint", self.constraint)?;
        Range::NonNegative.check(owner, "damping", self.damping.unwrap_or(0.0))?;
        Range::NonNegative.check(owner, "damping_floor", self.damping_floor)?;
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
        let shortest = self.period(self.inverse_every, 0);
        if self.inverse_lag > 0 && self.inverse_lag >= shortest {
            let (key, expected) =
                ("inverse_lag".into(), format!("below {shortest}, the first period of inversions"));
            return Err(Error::Value { owner, key, expected, got: self.inverse_lag.to_string() });
        }
        for (key, value) in [
            ("stats_every", self.stats_every as f64),
            ("inverse_every", self.inverse_every as f64),
            ("widest", self.widest as f64),
            ("most_inputs", self.most_inputs as f64),
        ] {
            Range::Positive.check(owner, key, value)?;
        }
        Ok(())
    }

    fn bind(&mut self, structure: &Structure, params: &Params) -> Result<()> {
        let kind = |name: &str| self.asked.iter().find(|(s, _)| s.contains(name)).map(|(_, kind)| *kind);
        let (blocks, left) = choose(structure, params, self.most_inputs, self.full, &kind);
        (self.blocks, self.left) = (blocks, Some(left));
        Ok(())
    }

    fn wanted(&self) -> Option<Wanted> {
        let lag = self.approximation != Approximation::Independence;
        let (stats_rows, model_rows) = (self.stats_rows, self.model_rows);
        Some(Wanted { lag, widest: self.widest, targets: self.targets, stats_rows, model_rows })
    }

    fn describe(&self) -> Option<String> {
        let left = self.left.as_ref()?;
        let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
        let blocks = self.blocks.iter().map(Block::describe);
        for (name, kind) in blocks.chain(left.iter().map(|name| (name.clone(), "Adam"))) {
            match kinds.iter_mut().find(|k| k.0 == kind) {
                Some(known) if known.1.contains(&name) => {}
                Some(known) => known.1.push(name),
                None => kinds.push((kind, vec![name])),
            }
        }
        let parts: Vec<String> =
            kinds.iter().map(|(k, names)| format!("{k}: {}", names.join(", "))).collect();
        Some(parts.join("; "))
    }

    fn init(&self, params: &Params) -> Result<State> {
        self.validate()?;
        if let Some((name, bad)) = params.iter().find(|(_, t)| !t.dtype().is_differentiable()) {
            return Err(not_differentiable(name, bad.dtype()));
        }
        let mut tensors = self.adam().init(&self.unblocked(params))?.tensors().clone();
        for (key, dtype, dims) in self.places(params) {
            tensors.insert(key, Tensor::zeros(dtype, dims)?);
        }
        if !self.blocks.is_empty() {
            tensors.insert(LAMBDA, Tensor::scalar(self.damping.unwrap_or(0.0)));
        }
        Ok(State::new(tensors))
    }

    fn check_state(&self, params: &Params, state: &State) -> Result<()> {
        let expected = self.init(params)?;
        for (key, tensor) in expected.tensors().iter() {
            let what = || format!("optimiser state `{key}`");
            let got = state.tensors().get(key).ok_or_else(|| Error::Missing { what: what() })?;
            check_like(what, tensor, got)?;
        }
        match state.tensors().names().find(|key| expected.tensors().get(key).is_none()) {
            Some(key) => Err(Error::Unexpected { what: format!("optimiser state `{key}`") }),
            None => Ok(()),
        }
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        self.update_with(grads, state, params, lr_scale, &mut crate::kfac::NoCurvature)
    }

    fn take_back(&self, state: &mut State, params: &mut Params) -> Result<bool> {
        if self.blocks.is_empty() {
            return Ok(false);
        }
        let (mut tensors, mut moved) = (state.tensors().clone(), params.clone());
        if !self.undo(state.step(), &mut tensors, &mut moved)? {
            return Ok(false);
        }
        *params = moved;
        *state.tensors_mut() = tensors;
        state.count_step();
        Ok(true)
    }

    fn update_with(
        &self,
        grads: &Params,
        state: &mut State,
        params: &mut Params,
        lr_scale: f64,
        curvature: &mut dyn Curvature,
    ) -> Result<()> {
        Range::NonNegative.check(self.name(), "lr_scale", lr_scale)?;
        let step = state.step();
        let adam_slots = self.adam().slots();
        let others: Params = state
            .tensors()
            .iter()
            .filter(|(key, _)| {
                let of = key.rsplit_once('/').map_or("", |(name, _)| name);
                adam_slots.iter().any(|s| *key == format!("{of}/{}", s.suffix))
            })
            .map(|(key, t)| (key.to_string(), t.clone()))
            .collect();
        let mut adam_state = state.with_tensors(others);
        let mut moved = params.clone();
        if self.blocks.is_empty() {
            self.adam().update(grads, &mut adam_state, params, lr_scale)?;
            *state = adam_state;
            return Ok(());
        }
        let mut mine = self.blocked(grads);
        for (name, grad) in grads.iter() {
            let param = params.get(name);
            let param = param.ok_or_else(|| Error::Unexpected { what: format!("gradient of `{name}`") })?;
            check_like(|| format!("gradient of `{name}`"), param, grad)?;
        }
        let mut tensors = state.tensors().clone();
        if self.much_worse(step, curvature, &mut tensors, &mut moved)? {
            *params = moved;
            *state.tensors_mut() = tensors;
            state.count_step();
            return Ok(());
        }
        let started = step >= self.burn_in;
        let (invert, take_over) = self.due(step);
        let mut lambda = Kfac::scalar(&tensors, LAMBDA)?;
        if self.gathers(step, invert) {
            let lengths = self.gather(step, curvature, &mut tensors)?;
            if invert {
                lambda = self.damping_now(step, lambda, &lengths, &tensors)?;
                tensors.insert(LAMBDA, Tensor::scalar(lambda));
                self.begin(step == self.burn_in, &lengths, lambda, &mut tensors, curvature.threads())?;
            }
        }
        let take_over = take_over && Task::is_stored(&tensors);
        if take_over {
            let task = Task::load(&self.blocks, self.inversion(lambda), &tensors)?;
            adopt(self.background.finish(&self.blocks, &task, curvature.threads())?, &mut tensors)?;
            Task::clear(&mut tensors)?;
        }
        self.adam().update(&self.unblocked(grads), &mut adam_state, &mut moved, lr_scale)?;
        if started {
            if self.weight_decay > 0.0 {
                add_scaled(&mut mine, params, self.weight_decay)?;
            }
            // The first inversion is over at once.
            let inverted = take_over || (invert && (self.inverse_lag == 0 || step == self.burn_in));
            let judged = self.adaptation.is_some_and(|lm| (step - self.burn_in + 1).is_multiple_of(lm.every));
            let (delta, predicted) =
                self.next_step(step, &mine, &mut tensors, lr_scale, lambda, (inverted, judged), curvature)?;
            if let Some((name, _)) = delta.iter().find(|(_, t)| !t.is_finite()) {
                let (name, value) = (format!("step of {name}"), "not finite".into());
                return Err(Error::NotFinite { name, index: 0, value });
            }
            add_scaled(&mut moved, &delta, 1.0)?;
            if let (Some(lm), true, Some(predicted)) = (self.adaptation, judged, predicted) {
                let change = curvature.loss(&moved)? - curvature.loss_before();
                lambda = lm.next(lambda, change, predicted);
                tensors.insert(LAMBDA, Tensor::scalar(lambda));
            }
        }
        for (key, tensor) in adam_state.tensors().iter() {
            tensors.insert(key, tensor.clone());
        }
        *params = moved;
        *state.tensors_mut() = tensors;
        state.count_step();
        Ok(())
    }
}

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
        owner: ENTRY.name,
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
        owner: ENTRY.name,
        key: "damping".into(),
        expected: "auto, or a number of at least 0".into(),
        got: text.into(),
    };
    text.parse::<f64>().map(Some).map_err(bad)
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "kfac",
    summary: "Kronecker-factored curvature of recurrent and other linear maps, with exact quadratic model",
    options: &[
        OptionSpec::new("kfac", "option2", "independence, option1 or option2: what is assumed about time"),
        OptionSpec::new("lr", "0.05", "learning rate per update of step=fixed"),
        OptionSpec::new("adam_lr", "1e-3", "learning rate of parameters that have no block"),
        OptionSpec::new("psi", "signed", "signed, or absolute as in the reference implementation (option1)"),
        OptionSpec::new("targets", "sampled", "sampled (the Fisher), or empirical (those of the data)"),
        OptionSpec::new("step", "quadratic", "quadratic (least point of the model), or fixed"),
        OptionSpec::new("momentum", "0.9", "momentum of step=fixed"),
        OptionSpec::new("momentum_form", "adam", "adam (on gradients), or regular (on steps), of step=fixed"),
        OptionSpec::new(
            "norm_constraint",
            "0",
            "largest squared norm of a fixed step in the metric; 0 for none",
        ),
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
        OptionSpec::new(
            "widest",
            "256",
            "most outputs of a map with one factor; wider maps are cut into parts",
        ),
        OptionSpec::new("most_inputs", "2048", "most inputs of a map, above which it is left to Adam"),
        OptionSpec::new("full", "64", "most real numbers of a full block"),
        OptionSpec::new("blocks", "auto", "auto, or pattern:kind,... with kinds map, full, diagonal, adam"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
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
            damping_power: read.real("damping_power")?,
            pi: read.flag("pi")?,
            adaptation: read.flag("adapt")?.then_some(lm),
            decay: read.real("decay")?,
            stats_rows: read.real("stats_rows")?,
            model_rows: read.real("model_rows")?,
            stats_every: read.count("stats_every")?,
            inverse_every: read.count("inverse_every")?,
            dense: read.count("dense")?,
            inverse_lag: read.count("inverse_lag")?,
            burn_in: read.count("burn_in")?,
            weight_decay: read.real("weight_decay")?,
            widest: read.count("widest")? as usize,
            most_inputs: read.count("most_inputs")? as usize,
            full: read.count("full")? as usize,
            asked: asked(&read)?,
            ..Kfac::default()
        };
        kfac.validate()?;
        Ok(Box::new(kfac))
    },
};
