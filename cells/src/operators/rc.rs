//! RC: restricted-capacity unitary recurrence, a product of diagonals, reflections, Fourier transforms and a permutation.
//!
//! Arjovsky, Shah, Bengio, 2016, "Unitary evolution recurrent neural networks", ICML, arXiv:1511.06464. On the cell
//! `rc_urnn` it is the uRNN of that paper.
//!
//! ```text
//! W = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1                 (1)
//! D_j = diag(e^{iθ_j})                            (2)
//! R_j h = h − 2 v_j (v_jᴴ h) / ‖v_j‖²             (3)
//! ```
//!
//! `F` is the unitary discrete Fourier transform.
//!
//! | symbol | shape | initialization | meaning |
//! |---|---|---|---|
//! | `W.theta1` … `W.theta3`, or `W.gate.theta1` … | `[N]` | the cell's, else uniform ±π | angles of the diagonals |
//! | `W.v1`, `W.v2` | `[N]` complex | uniform on ±√(6/(2 + 2N)), each part | reflections |
//! | `W.pi` | `[N]` indices | a random permutation | `(Π h)_j = h_{pi_j}`; not trained |
//! | `W.scale` | `[N]` | 1 | only with `scale=true`: `diag(s)` after `D_3` |
//!
//! `7N` numbers for each gate. `W` is unitary whatever they are. States are complex.
//!
//! **Differs from the paper**: nothing. The program of the low-rank passthrough networks, which has this network as a
//! baseline, differs in two ways that are options: the Fourier transforms are switched off, `W = D_3 R_2 D_2 Π R_1 D_1`
//! (`fourier=false`); and a real diagonal after `D_3` is trained (`scale=true`), which a penalty of `5 Σ (s − 1)²` keeps near
//! 1 (`penalty=l2 l2.lambda=5 l2.target=1 l2.params=*.scale`). With it `W` is unitary only at first.

use std::f64::consts::PI;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{DType, Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::{Init, uniform};
use crate::operator::{BoundOperator, Recurrence, RecurrentOperator};
use crate::settings::{OptionDoc, Options};
use crate::table::OperatorEntry;

/// Products of diagonals, reflections, transforms and a permutation; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rc {
    /// Whether `F` and `F⁻¹` are there.
    pub fourier: bool,
    /// Whether a real diagonal is trained after `D_3`.
    pub scaled: bool,
    /// Whether all of it stays as it begins.
    pub frozen: bool,
}

impl Default for Rc {
    fn default() -> Rc {
        Rc { fourier: true, scaled: false, frozen: false }
    }
}

/// Table entry of [`Rc`].
pub const RC: OperatorEntry = OperatorEntry {
    name: "rc",
    summary: "restricted-capacity unitary: diagonals, reflections, Fourier transforms; complex states (uRNN)",
    options: &[
        OptionDoc {
            key: "fourier",
            default: "true",
            doc: "true, or false: without the Fourier transforms, as in the program of the low-rank passthrough networks",
        },
        OptionDoc {
            key: "scale",
            default: "false",
            doc: "true: a real diagonal that begins at 1 is trained after the last, as in the same program; W is then not unitary",
        },
        OptionDoc {
            key: "freeze",
            default: "false",
            doc: "keep diagonals and reflections as they begin; true or false",
        },
    ],
    build: |options: &Options<'_>| {
        Ok(Arc::new(Rc {
            fourier: options.flag("fourier")?,
            scaled: options.flag("scale")?,
            frozen: options.flag("freeze")?,
        }))
    },
};

impl RecurrentOperator for Rc {
    fn name(&self) -> &'static str {
        RC.name
    }

    fn declare(&self, ctx: &mut Declare<'_>, r: Recurrence<'_>) -> Result<Box<dyn BoundOperator>> {
        if !r.complex {
            return Err(Error::Field { operator: RC.name });
        }
        let angles = r.init.unwrap_or(Init::Uniform(PI));
        let gates = r.gates.iter().map(|gate| {
            let mut ctx = ctx.scope(&r.gate_name(gate));
            let product = Product::declare(&mut ctx, r.n, angles)?;
            let scale =
                if self.scaled { Some(ctx.real("scale", &[r.n], Init::Constant(1.0))?) } else { None };
            Ok(Product { fourier: self.fourier, scale, ..product })
        });
        let gates = gates.collect::<Result<_>>()?;
        if self.frozen {
            ctx.freeze(r.name);
        }
        Ok(Box::new(BoundRc { gates }))
    }
}

/// How the reflections begin: Glorot uniform as a real matrix `[2, 2N]`.
fn reflections(n: usize) -> Init {
    Init::Uniform((6.0 / (2 + 2 * n) as f64).sqrt())
}

/// A random permutation (Fisher and Yates).
fn permutation(n: usize, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let mut order: Vec<i32> = (0..n).map(|i| i as i32).collect();
    for i in (1..n).rev() {
        order.swap(i, (uniform(rng) * (i + 1) as f64) as usize);
    }
    Ok(Tensor::from_slice([n], &order)?)
}

/// One gate's product.
#[derive(Debug)]
pub(crate) struct Product {
    theta: [Var; 3],
    v: [Var; 2],
    pi: Var,
    n: usize,
    fourier: bool,
    scale: Option<Var>,
}

impl Product {
    /// Declares its parameters in this scope.
    pub(crate) fn declare(ctx: &mut Declare<'_>, n: usize, angles: Init) -> Result<Product> {
        let mut theta = |name| ctx.real(name, &[n], angles);
        let theta = [theta("theta1")?, theta("theta2")?, theta("theta3")?];
        let mut v = |name| ctx.complex(name, &[n], reflections(n));
        let v = [v("v1")?, v("v2")?];
        let pi = ctx.with("pi", &[n], DType::I32, |rng| permutation(n, rng))?;
        ctx.freeze("pi");
        Ok(Product { theta, v, pi, n, fourier: true, scale: None })
    }

    /// `W h` for every row `h`.
    pub(crate) fn apply(&self, tape: &mut Tape, h: Var) -> retrograd_engine::Result<Var> {
        let h = self.turned(tape, h, 0)?;
        let h = if self.fourier { ops::fft(tape, h)? } else { h };
        let h = self.reflected(tape, h, 0)?;
        let h = ops::take(tape, h, self.pi)?;
        let h = self.turned(tape, h, 1)?;
        let h = if self.fourier { ops::ifft(tape, h)? } else { h };
        let h = self.reflected(tape, h, 1)?;
        let h = self.turned(tape, h, 2)?; // eq. (1)
        match self.scale {
            Some(scale) => ops::mul(tape, h, scale),
            None => Ok(h),
        }
    }

    fn turned(&self, tape: &mut Tape, h: Var, j: usize) -> retrograd_engine::Result<Var> {
        let turn = ops::cis(tape, self.theta[j])?;
        ops::mul(tape, h, turn) // eq. (2)
    }

    fn reflected(&self, tape: &mut Tape, h: Var, j: usize) -> retrograd_engine::Result<Var> {
        // A reflection whose vector is zero would be 0/0; its limit is not defined, and none is trained into it.
        let v = ops::normalize(tape, self.v[j], 2.0, -1, f64::MIN_POSITIVE)?;
        let column = ops::conj(tape, v)?;
        let column = layout(tape, column, Layout::Reshape { dims: [self.n, 1].into_iter().collect() })?;
        let part = ops::matmul(tape, h, column)?;
        let part = ops::scale(tape, part, 2.0)?;
        let part = ops::mul(tape, part, v)?;
        ops::sub(tape, h, part) // eq. (3)
    }
}

#[derive(Debug)]
struct BoundRc {
    gates: Vec<Product>,
}

impl BoundOperator for BoundRc {
    fn apply(&self, tape: &mut Tape, h: Var, gate: usize) -> retrograd_engine::Result<Var> {
        self.gates[gate].apply(tape, h)
    }
}
