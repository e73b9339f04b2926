//! Cayley steps: descent along the manifold of unitary (orthogonal) matrices.

use faer::linalg::solvers::Solve;
use faer::traits::ComplexField;
use faer::{Mat, Scale, c64};
use retrograd_engine::{Params, Tensor};

use crate::elementwise::{check_like, check_slots, not_differentiable, slot_name, with_real};
use crate::error::{Error, Result};
use crate::optimizer::{Optimizer, initial_state, scaled_lr};
use crate::settings::{OptionSpec, Range, Settings};
use crate::state::{Slot, State};
use crate::table::Entry;

/// Cayley steps of unitary matrices (Wisdom, Powers, Hershey, Le Roux, Atlas 2016, eq. (9); Tagare 2011).
///
/// ```text
/// r ← ρ r + (1−ρ) g²,  G = g / (√r + ε)              with scaling, per real component, r starts at 0;  else G = g
/// A = G Wᴴ − W Gᴴ                                    skew-Hermitian
/// W ← (I + η/2 A)⁻¹ (I − η/2 A) W                    the inverse exists, the factor is unitary
/// W ← W (3I − WᴴW) / 2                               takes off what rounding adds to ‖WᴴW − I‖
/// ```
///
/// Parameters are square matrices that begin unitary, complex or real (then orthogonal). Computed in double precision
/// whatever theirs is; about `40 N³` real operations for a complex matrix.
/// Defaults: η = 1e-3 without scaling, as on the copy task; for pixel MNIST the authors scale and take η = 1e-6.
/// With scaling ρ = 0.9, ε = 1e-8. State: `r` with scaling.
///
/// **Differs from** the program of the authors: the last line. Without it matrices in single precision drift away from
/// the manifold over thousands of updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Cayley {
    /// η, learning rate per update.
    pub lr: f64,
    /// Whether the gradient is divided by the root of its running mean square.
    pub scaled: bool,
    /// ρ, decay of the mean square.
    pub decay: f64,
    /// ε, beside the root.
    pub eps: f64,
}

impl Default for Cayley {
    fn default() -> Cayley {
        Cayley { lr: 1e-3, scaled: false, decay: 0.9, eps: 1e-8 }
    }
}

impl Cayley {
    fn check_square(name: &str, param: &Tensor) -> Result<()> {
        match *param.dims() {
            [a, b] if a == b => Ok(()),
            _ => {
                let (what, expected) = (format!("cayley: parameter `{name}`"), "[N, N]".into());
                Err(Error::Mismatch { what, expected, got: format!("{:?}", param.dims()) })
            }
        }
    }

    /// The gradient divided by its root mean square, which moves on; or the gradient.
    fn direction(&self, name: &str, grad: &Tensor, state: &mut State) -> Result<Tensor> {
        let mut direction = grad.clone();
        if !self.scaled {
            return Ok(direction);
        }
        let key = slot_name(name, &self.slots()[0]);
        let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
        let r = state.tensors_mut().get_mut(&key).ok_or_else(missing)?;
        with_real!(direction, name, R => {
            let (rho, rest, eps) = (self.decay as R, (1.0 - self.decay) as R, self.eps as R);
            for (g, r) in direction.components_mut::<R>()?.iter_mut().zip(r.components_mut::<R>()?) {
                *r = rho * *r + rest * (*g * *g);
                let under = r.sqrt() + eps;
                *g = if under == 0.0 { 0.0 } else { *g / under };
            }
            Ok::<_, Error>(())
        })?;
        Ok(direction)
    }
}

impl Optimizer for Cayley {
    fn name(&self) -> &'static str {
        "cayley"
    }

    fn settings(&self) -> Settings {
        let scaling = if self.scaled { "rmsprop" } else { "none" };
        let settings = Settings::new().with("lr", self.lr).with("scaling", scaling);
        settings.with("decay", self.decay).with("eps", self.eps)
    }

    fn learning_rate(&self) -> f64 {
        self.lr
    }

    fn slots(&self) -> Vec<Slot> {
        if self.scaled { vec![Slot { suffix: "r", initial: 0.0 }] } else { Vec::new() }
    }

    fn validate(&self) -> Result<()> {
        Range::NonNegative.check(self.name(), "lr", self.lr)?;
        Range::Below1.check(self.name(), "decay", self.decay)?;
        Range::NonNegative.check(self.name(), "eps", self.eps)
    }

    fn init(&self, params: &Params) -> Result<State> {
        for (name, param) in params.iter() {
            Cayley::check_square(name, param)?;
        }
        initial_state(self, params)
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        let lr = scaled_lr(self, lr_scale)?;
        for (name, grad) in grads.iter() {
            let param = params.get(name);
            let param = param.ok_or_else(|| Error::Unexpected { what: format!("gradient of `{name}`") })?;
            check_like(|| format!("gradient of `{name}`"), param, grad)?;
            if !param.dtype().is_differentiable() {
                return Err(not_differentiable(name, param.dtype()));
            }
            Cayley::check_square(name, param)?;
            check_slots(&self.slots(), name, param, state)?;
        }
        for (name, param) in params.iter_mut() {
            let Some(grad) = grads.get(name) else { continue };
            let direction = self.direction(name, grad, state)?;
            if param.dtype().is_complex() {
                let moved = moved(&matrix(param, |z| z), &matrix(&direction, |z| z), lr);
                write(param, |i, j| moved[(i, j)]);
            } else {
                let moved = moved(&matrix(param, |z| z.re), &matrix(&direction, |z| z.re), lr);
                write(param, |i, j| moved[(i, j)].into());
            }
        }
        state.count_step();
        Ok(())
    }
}

fn matrix<T>(tensor: &Tensor, entry: impl Fn(c64) -> T) -> Mat<T> {
    let n = tensor.dims()[0];
    Mat::from_fn(n, n, |i, j| entry(tensor.get(i * n + j)))
}

fn write(tensor: &mut Tensor, entry: impl Fn(usize, usize) -> c64) {
    let n = tensor.dims()[0];
    tensor.fill_with(|i| entry(i / n, i % n));
}

/// `W` after one step along `G`.
fn moved<T: ComplexField>(w: &Mat<T>, g: &Mat<T>, lr: f64) -> Mat<T> {
    let n = w.nrows();
    let number = |x: f64| Scale(faer::traits::math_utils::from_f64::<T>(x));
    let half = g * w.adjoint();
    // A matrix minus its own adjoint is skew-Hermitian to the last bit.
    let a = number(0.5 * lr) * (&half - half.adjoint());
    let one = Mat::<T>::identity(n, n);
    let right = (&one - &a) * w;
    let w = (&one + &a).partial_piv_lu().solve(&right);
    let rest = number(3.0) * &one - w.adjoint() * &w;
    number(0.5) * (&w * &rest)
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Optimizer> = Entry {
    name: "cayley",
    summary: "Cayley transforms of the gradient: square matrices stay unitary or orthogonal (FC uRNN)",
    options: &[
        OptionSpec::new("lr", "1e-3", "learning rate per update; 1e-6 with scaling on pixel MNIST"),
        OptionSpec::new(
            "scaling",
            "none",
            "none, or rmsprop: gradients are divided by their root mean square",
        ),
        OptionSpec::new("decay", "0.9", "decay of the mean square"),
        OptionSpec::new("eps", "1e-8", "epsilon beside its root"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let cayley = Cayley {
            lr: read.real("lr")?,
            scaled: read.choice("scaling", &[("none", false), ("rmsprop", true)])?,
            decay: read.real("decay")?,
            eps: read.real("eps")?,
        };
        cayley.validate()?;
        Ok(Box::new(cayley))
    },
};
