//! A cell of one's own: written here, outside the crates, it trains, is explained, checked and budgeted like the
//! built-in ones.
//!
//! ```text
//! cargo run --release --example custom_cell
//! ```
//!
//! The cell is a gated unit with adaptation, as neurons have it: activity `h` tires a unit through a slow trace `r`.
//!
//! ```text
//! z_t = σ(W_z h_{t−1} + U_z x_t + b_z)
//! a_t = tanh(W_a h_{t−1} + U_a x_t + b_a − β ⊙ r_{t−1})
//! h_t = h_{t−1} + z_t ⊙ (a_t − h_{t−1})
//! r_t = r_{t−1} + σ(ρ) ⊙ (h_t − r_{t−1})
//! ```

use std::sync::Arc;

use retrograd::cells::{
    BoundCell, BoundOperator, Cell, Declare, Init, Input, InputMap, Layer, Loss, Model, ModelSpec, Readout,
    Recurrence, RecurrentOperator, StatePart,
};
use retrograd::datasets::{Request, Split};
use retrograd::engine::gradcheck;
use retrograd::train::{Parts, TrainConfig, Trainer, operator, task};
use retrograd::{DType, Params, Result, Tape, Var, engine, ops};

#[derive(Debug)]
struct Adaptive;

#[derive(Debug)]
struct BoundAdaptive {
    u: InputMap,
    w: Box<dyn BoundOperator>,
    beta: Var,
    rho: Var,
    n: usize,
}

impl Cell for Adaptive {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        n: usize,
        operator: &dyn RecurrentOperator,
    ) -> retrograd::cells::Result<Box<dyn BoundCell>> {
        let gates = ["z", "a"];
        let b = ctx.real("b", &[gates.len() * n], Init::Zeros)?;
        let u = InputMap::declare(ctx, input, gates.len(), n, false, Init::Glorot)?.with_bias(b);
        let w =
            operator.declare(ctx, Recurrence { name: "W", gates: &gates, n, complex: false, init: None })?;
        let beta = ctx.real("beta", &[n], Init::Uniform(0.1))?;
        let rho = ctx.real("rho", &[n], Init::Constant(-3.0))?;
        Ok(Box::new(BoundAdaptive { u, w, beta, rho, n }))
    }
}

impl BoundCell for BoundAdaptive {
    fn state(&self) -> Vec<StatePart> {
        ["h", "r"].map(|name| StatePart { name, width: self.n, complex: false }).to_vec()
    }

    fn step(&self, tape: &mut Tape, state: &[Var], x: Var) -> engine::Result<Vec<Var>> {
        let (h, r) = (state[0], state[1]);
        let ux = self.u.apply(tape, x)?; // moved out of the time loop by the plan
        let wh = self.w.apply_all(tape, h, 0..2)?;
        let z = ops::add(tape, wh[0], ux[0])?;
        let z = ops::sigmoid(tape, z)?;
        let tired = ops::mul(tape, self.beta, r)?;
        let a = ops::add(tape, wh[1], ux[1])?;
        let a = ops::sub(tape, a, tired)?;
        let a = ops::tanh(tape, a)?;
        let h = towards(tape, h, a, z)?;
        let rate = ops::sigmoid(tape, self.rho)?; // depends on a parameter alone: computed once
        let r = towards(tape, r, h, rate)?;
        Ok(vec![h, r])
    }
}

/// `from + rate ⊙ (to − from)`.
fn towards(tape: &mut Tape, from: Var, to: Var, rate: Var) -> engine::Result<Var> {
    let way = ops::sub(tape, to, from)?;
    let way = ops::mul(tape, rate, way)?;
    ops::add(tape, from, way)
}

/// A trainer for the cell on Kronecker-factored matrices, reading the adding problem.
fn trainer(steps: usize, budget: Option<usize>) -> Result<Trainer> {
    let mut config = TrainConfig::bare("adding", "adaptive", "kron");
    config.set("T", steps)?;
    config.set_all(["train=20000", "valid=500", "hidden=32", "lr=1e-2", "batch=50", "clip=norm"])?;
    config.budget = budget;
    let parts = Parts { task: task(&config)?, cell: Arc::new(Adaptive), operator: operator(&config)? };
    Trainer::with_parts(config, parts)
}

/// Trains it; the mean squared error reached.
pub fn train() -> Result<f64> {
    let mut trainer = trainer(20, None)?;
    println!("training {} numbers; always saying 1 has mse 0.1667", trainer.trained_count());
    let mut mse = f64::NAN;
    for _ in 0..4 {
        for _ in 0..200 {
            trainer.step()?;
        }
        mse = trainer.evaluate(Split::Valid, None)?.metric;
        println!("step {:4}   mse {mse:.4}", trainer.position().step);
    }
    Ok(mse)
}

/// Its plan in words: what is computed once, ahead of time, step by step; what is kept for the adjoint.
pub fn explain() -> Result<String> {
    Ok(trainer(20, None)?.plan()?.explain())
}

/// Checks its rules against finite differences, in double precision; whether all are right.
pub fn check() -> Result<bool> {
    let config = TrainConfig::bare("adding", "adaptive", "kron");
    let layer = Layer { cell: Arc::new(Adaptive), operator: operator(&config)?, hidden: 6 };
    let mut spec = ModelSpec::new(Input::Dense(2), vec![layer], Readout::Last, 1, Loss::SquaredError);
    spec.dtype = DType::F64;
    let mut model = Model::new(spec)?.record(1)?;
    let wrt = model.trainable_vars();
    let request = Request { split: Split::Train, batch_size: 3, epoch: 0, index: 0, seed: 1 };
    let batch = task(&config)?.batch(&request)?;
    let mut inputs = Params::new();
    inputs.insert("x", batch.x.cast(DType::F64)?);
    inputs.insert("target", batch.target.cast(DType::F64)?);
    let (values, options) = ([&model.params, &inputs], gradcheck::Options::default());
    let report = gradcheck::check_reference(&mut model.tape, &[model.loss], &wrt, &values, &options)?;
    println!("gradients: {} derivatives checked, {} wrong", report.checked(), report.failed());
    Ok(report.passed())
}

/// Trains it in a third of the memory; whether that gives the same bits.
pub fn budget() -> Result<bool> {
    let mut free = trainer(500, None)?;
    let third = free.plan()?.peak_bytes() / 3;
    let mut tight = trainer(500, Some(third))?;
    for _ in 0..3 {
        free.step()?;
        tight.step()?;
    }
    let same = free.params().iter().zip(tight.params().iter()).all(|((_, a), (_, b))| a.bit_eq(b));
    let (a, b) = (free.peak().measured_bytes, tight.peak().measured_bytes);
    println!(
        "memory over 500 steps: {a} bytes, within a budget {b}; same parameters after three updates: {same}"
    );
    Ok(same && b <= third)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    train()?;
    println!("\n{}", explain()?);
    if check()? && budget()? { Ok(()) } else { Err("the cell is wrong".into()) }
}
