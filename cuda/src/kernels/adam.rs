//! Adam for all parameters in one launch.

use super::{ADAM, Expect};
use crate::driver::{Arg, Grid, Kernel};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};

const NAME: &str = "adam";
const THREADS: u64 = 256;
/// Blocks of a launch: a grid walks over more elements than it has threads.
const BLOCKS: u64 = 1024;

/// Settings of an update. Source: Kingma and Ba, 2015, "Adam: a method for stochastic optimization", ICLR.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// η, learning rate per update.
    pub lr: f64,
    /// β₁, decay of the mean.
    pub beta1: f64,
    /// β₂, decay of the mean square.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
    /// λ, weight decay.
    pub weight_decay: f64,
    /// Whether the decay acts on the parameters directly (AdamW) instead of being added to the gradient.
    pub decoupled: bool,
}

impl Default for AdamSettings {
    fn default() -> AdamSettings {
        AdamSettings { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

/// Adam's state for parameters of given lengths. A complex parameter is one of twice as many reals, each with a mean
/// square of its own.
#[derive(Debug)]
pub struct Adam {
    gpu: Gpu,
    lengths: Vec<usize>,
    table: Buffer<u64>,
    m: Buffer<f32>,
    v: Buffer<f32>,
    updates: i32,
}

impl Adam {
    /// The state before the first update. Errors: out of memory.
    pub fn new(gpu: &Gpu, lengths: &[usize]) -> Result<Adam> {
        let total = Expect::new(NAME, "all parameters", &[lengths.iter().sum()])?.elements as usize;
        Ok(Adam {
            gpu: gpu.clone(),
            lengths: lengths.to_vec(),
            table: gpu.zeros(3 * lengths.len())?,
            m: gpu.zeros(total)?,
            v: gpu.zeros(total)?,
            updates: 0,
        })
    }

    /// Number of updates so far.
    pub fn updates(&self) -> i32 {
        self.updates
    }

    /// One update: `θ ← θ − η m̂ / (√v̂ + ε)`, as `retrograd_optim::Adam` has it. One launch.
    ///
    /// Errors: another number of parameters or gradients, or other lengths.
    pub fn update(
        &mut self,
        settings: AdamSettings,
        params: &mut [&mut Buffer<f32>],
        grads: &[&Buffer<f32>],
    ) -> Result<()> {
        let count = self.lengths.len();
        for (argument, got) in [("number of parameters", params.len()), ("number of gradients", grads.len())]
        {
            if got != count {
                return Err(Error::Unsupported {
                    kernel: NAME,
                    argument,
                    got: got.to_string(),
                    expected: format!("expected {count}"),
                });
            }
        }
        let (mut table, mut first) = (Vec::with_capacity(3 * count), 0);
        for (i, ((param, grad), len)) in params.iter_mut().zip(grads).zip(&self.lengths).enumerate() {
            Expect::new(NAME, &format!("parameter {i}"), &[*len])?.of(param)?;
            Expect::new(NAME, &format!("gradient {i}"), &[*len])?.of(grad)?;
            table.extend([param.output().bits().0, grad.input().bits().0, first]);
            first += *len as u64;
        }
        self.updates = self.updates.saturating_add(1);
        if first == 0 {
            return Ok(());
        }
        self.table.write(&table)?;
        let AdamSettings { lr, beta1, beta2, eps, weight_decay, decoupled } = settings;
        let scale = lr / (1.0 - beta1.powi(self.updates));
        let root = (1.0 - beta2.powi(self.updates)).sqrt();
        let (shrink, l2) = if decoupled { (1.0 - lr * weight_decay, 0.0) } else { (1.0, weight_decay) };
        let numbers = [beta1, beta2, eps, scale, root, shrink, l2].map(|x| Arg::F32(x as f32));
        let mut args = vec![self.table.input(), Arg::I32(count as i32), self.m.output(), self.v.output()];
        args.push(Arg::I64(first as i64));
        args.extend(numbers);
        let blocks = first.div_ceil(THREADS).min(BLOCKS) as u32;
        self.gpu.launch(Kernel { module: &ADAM, name: NAME }, Grid::row(blocks, THREADS as u32, 0), &args)
    }
}
