//! K-FAC for networks with recurrent maps.

mod inversion;
mod options;
mod retreat;
mod scales;
mod schedule;
mod step;
mod trust;

use retrograd_engine::{DType, Params, Tensor};

use self::step::Occasion;
pub use self::{
    schedule::KfacSchedule,
    step::{MomentumForm, StepRule},
};
use super::adam::Adam;
use crate::elementwise::{check_like, not_differentiable};
use crate::error::{Error, Result};
use crate::kfac::background::{Background, Task};
use crate::kfac::block::{Block, Place, WEIGHT, choose};
use crate::kfac::vector::add_scaled;
use crate::kfac::{Adaptation, Approximation, BlockKind, Curvature, Structure, Targets, Wanted};
use crate::optimizer::Optimizer;
use crate::select::Select;
use crate::settings::{Range, Settings};
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
/// step=quadratic:  δ = κ (α Δ + μ δ_before), (α, μ) the least point of ∇ᵀδ + ½ δᵀ(F + λI)δ, F exact   θ ← θ + δ
/// κ ← κ exp(−r ∇ᵀδ_before / δ_beforeᵀFδ_before), the exponent within ±r, κ within [trust_least, 1]   from 1, r = trust_rate
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
/// four times as often in the first 100 updates and twice as often in the next; `step=quadratic` with κ of at least ¼, for
/// gradients as they are ([`Optimizer::takes_whole_gradients`]); statistics and products of
/// an eighth of a batch's rows, as Martens and Grosse take for statistics (section 8). An update then costs about twice a
/// first-order one.
///
/// State: averages (`f64`) and cached inverses of every block, the last step or velocity `kfac.v`, `m` and `v` of
/// parameters left to Adam, `/kfac.weight`, `/kfac.lambda`, `/kfac.loss`, `/kfac.trust` (κ).
///
/// Without a network's structure ([`Optimizer::bind`]) every parameter is left to Adam.
///
/// **Differs from** the reference implementation: eigenvalues ψ of Option 1 keep their signs unless `psi=absolute`; its
/// symmetrised `C_1` is a copy; `1/S(ψ)` is bounded where `S` vanishes; sequences of several lengths use the mean of `S`
/// over the lengths and all their steps as the divisor, so that padding does not count; λ begins and ends where the mean
/// curvature says; steps are as long as the next batch says (κ), and may be taken back; maps wider than `widest` outputs are cut into parts.
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
    /// Rate at which κ follows what the next batch says of a quadratic step; 0 leaves it at 1.
    pub trust_rate: f64,
    /// Least κ.
    pub trust_least: f64,
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
    /// When statistics are taken and blocks inverted.
    pub schedule: KfacSchedule,
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
            trust_rate: 0.1,
            trust_least: 0.25,
            damping_power: 1.0,
            pi: true,
            adaptation: Some(Adaptation::default()),
            decay: 0.95,
            stats_rows: 0.125,
            model_rows: 0.125,
            schedule: KfacSchedule::default(),
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

const NAME: &str = "kfac";

const LAMBDA: &str = "/kfac.lambda";
const LOSS: &str = "/kfac.loss";
const TRUST: &str = "/kfac.trust";

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
        let scale = |group: &Vec<&str>| (scale_of(group[0]), DType::F64, vec![]);
        all.extend(self.groups().iter().map(scale));
        if self.schedule.inverse_lag > 0 {
            all.extend(Task::places(self.blocks.iter().flat_map(|b| b.places(self.approximation))));
        }
        if !self.blocks.is_empty() {
            all.extend([WEIGHT, LAMBDA, LOSS, TRUST].map(|k| (k.to_string(), DType::F64, vec![])));
        }
        all
    }

    fn scalar(state: &Params, key: &str) -> Result<f64> {
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        Ok(state.get(key).ok_or_else(missing)?.get(0).re)
    }
}

impl Optimizer for Kfac {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Settings {
        self.as_settings()
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        if self.blocks.is_empty() { self.adam().slots() } else { Vec::new() }
    }

    fn validate(&self) -> Result<()> {
        self.check()
    }

    fn takes_whole_gradients(&self) -> bool {
        self.step == StepRule::Quadratic
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
        let mut parts: Vec<String> =
            kinds.iter().map(|(k, names)| format!("{k}: {}", names.join(", "))).collect();
        if self.takes_whole_gradients() {
            parts.push("gradients are not clipped".into());
        }
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
            tensors.insert(TRUST, Tensor::scalar(1.0f64));
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
        let due = self.schedule.due(step);
        let mut inverted = false;
        let mut lambda = Kfac::scalar(&tensors, LAMBDA)?;
        if due.gathers {
            let lengths = self.gather(step, curvature, &mut tensors)?;
            if due.begins {
                lambda = self.damping_now(step, lambda, &lengths, &tensors)?;
                tensors.insert(LAMBDA, Tensor::scalar(lambda));
                let first = self.schedule.is_first(step);
                inverted = self.begin(first, &lengths, lambda, &mut tensors, curvature.threads())?;
            }
        }
        if due.takes_over {
            inverted |= self.take_over(lambda, &mut tensors, curvature.threads())?;
        }
        self.adam().update(&self.unblocked(grads), &mut adam_state, &mut moved, lr_scale)?;
        if due.moves {
            if self.weight_decay > 0.0 {
                add_scaled(&mut mine, params, self.weight_decay)?;
            }
            let judging = self.adaptation.filter(|lm| self.schedule.moved(step).is_multiple_of(lm.every));
            let occasion = Occasion { at: step, lr_scale, lambda, inverted, judged: judging.is_some() };
            let (delta, predicted) = self.next_step(occasion, &mine, &mut tensors, curvature)?;
            if let Some((name, _)) = delta.iter().find(|(_, t)| !t.is_finite()) {
                let (name, value) = (format!("step of {name}"), "not finite".into());
                return Err(Error::NotFinite { name, index: 0, value });
            }
            add_scaled(&mut moved, &delta, 1.0)?;
            if let (Some(lm), Some(predicted)) = (judging, predicted) {
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

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: NAME,
    summary: "Kronecker-factored curvature of recurrent and other linear maps, with exact quadratic model",
    options: options::OPTIONS,
    build: options::build,
};
