//! The Fisher block of a linear map that is used at every step, inverted: three assumptions about time.
//!
//! For `w_t = ā_t ⊗ g_t` with `V_0 = A_0 ⊗ G_0` and `V_1 = A_1 ⊗ G_1` (rows the later step), the block of a sequence of `T`
//! steps is `F = Σ_{|d|<T} (T − |d|) V_d`. Notation: `Ψ̂_C = C_0^{−1/2} C_1 C_0^{−1/2}` for `C` of `A`, `G`, with symmetric
//! roots. Everything is in double precision; complex factors come as real matrices of twice the size
//! (`composite`).

use faer::linalg::solvers::DenseSolveCore;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par, Side};

use super::matrix::{clipped_eigen, symmetric};
use super::product::View;

/// What is assumed about the steps of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approximation {
    /// Gradients of different steps are independent: `F = T A_0 ⊗ G_0`, as for a layer that is used once.
    Independence,
    /// A chain `w_t = Ψ w_{t−1} + ε_t` whose whitened `Ψ̂` is symmetric (Option 1 of Martens, Ba, Johnson 2018): exact for
    /// every `T` where `A_1` and `G_1` are symmetric.
    Option1 {
        /// Takes the absolute values of the eigenvalues of `Ψ̂_A` and `Ψ̂_G`, as the reference implementation does. Their
        /// signs are what the mathematics says, but where one is near −1 the block is nearly singular for even `T`.
        absolute: bool,
    },
    /// The same chain for `T → ∞` (Option 2), whatever `Ψ̂`; the error falls like `1/T`.
    #[default]
    Option2,
}

/// Lengths of sequences and their frequencies, which add up to 1.
pub type Lengths = [(usize, f64)];

/// Mean length.
pub fn mean_length(lengths: &Lengths) -> f64 {
    lengths.iter().map(|&(t, p)| t as f64 * p).sum()
}

/// The moments of a map: averages over steps and rows.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `A_0`, or its diagonal as one column.
    pub a0: Mat<f64>,
    /// `A_1`; `None` is 0.
    pub a1: Option<Mat<f64>>,
    /// `G_0`.
    pub g0: Mat<f64>,
    /// `G_1`; `None` is 0.
    pub g1: Option<Mat<f64>>,
}

/// What is added to the diagonals of `A_0` and `G_0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    /// To `A_0`: `π √λ'`.
    pub a: f64,
    /// To `G_0`: `√λ' / π`.
    pub g: f64,
}

impl Damping {
    /// No damping.
    pub const NONE: Damping = Damping { a: 0.0, g: 0.0 };

    /// Factored damping of strength `λ' = λ / T^p`, with `π = √((tr A_0 / n_A) / (tr G_0 / n_G))` from the mean diagonal
    /// elements given, or 1 where one of them is 0 (Martens, Grosse 2015, section 6.3).
    pub fn factored(strength: f64, mean_a: f64, mean_g: f64) -> Damping {
        let ratio = (mean_a / mean_g).sqrt();
        let pi = if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 };
        Damping { a: pi * strength.sqrt(), g: strength.sqrt() / pi }
    }
}

/// `S(x; T) = Σ_{|d|<T} (T − |d|) x^{|d|}` for `−1 ≤ x ≤ 1`: what a chain with the autocorrelation `x` adds up to.
pub fn chain_sum(x: f64, steps: usize) -> f64 {
    let t = steps as f64;
    let delta = 1.0 - x;
    if delta * t < 1e-3 {
        // The closed form is 0/0 at 1.
        return t * t - delta * t * (t * t - 1.0) / 3.0
            + delta * delta * t * (t - 1.0) * (t - 2.0) * (t + 1.0) / 12.0;
    }
    // 1 − x^T without loss of digits where |x| is near 1.
    let log = if x < 0.0 { (-(1.0 + x)).ln_1p() } else { (x - 1.0).ln_1p() };
    let power = if x < 0.0 && steps % 2 == 1 { 1.0 + (t * log).exp() } else { -(t * log).exp_m1() };
    (t * delta * (1.0 + x) - 2.0 * x * power) / (delta * delta)
}

/// [`chain_sum`] over sequences of several lengths.
fn mean_chain_sum(x: f64, lengths: &Lengths) -> f64 {
    lengths.iter().map(|&(t, p)| p * chain_sum(x, t)).sum()
}

/// A product with a damped inverse of a Fisher block, ready to be made many times.
#[derive(Clone, Debug)]
pub enum Inverse {
    /// `G Z A`.
    Independence {
        /// `(A_0 + damping)^{−1}`, or its diagonal as one column.
        a: Mat<f64>,
        /// `(G_0 + damping)^{−1} / T`.
        g: Mat<f64>,
    },
    /// `L_G [(L_Gᵀ Z L_A) ⊙ Y] L_Aᵀ`.
    Option1 {
        /// `A_0^{−1/2} U_A`.
        a: Mat<f64>,
        /// `G_0^{−1/2} U_G`.
        g: Mat<f64>,
        /// `1 / S(ψ_G ψ_A)`.
        y: Mat<f64>,
    },
    /// `Z ← Z − P_G Z P_Aᵀ`, `Z ← K_Gᵀ Z K_A ⊙ Y`, `Z ← K_G Z K_Aᵀ`, `Z ← Z − P_Gᵀ Z P_A`.
    Option2 {
        /// `P_A = A_1ᵀ A_0^{−1}`.
        pa: Mat<f64>,
        /// `K_A = A_0^{−1/2} E_A`.
        ka: Mat<f64>,
        /// `P_G`.
        pg: Mat<f64>,
        /// `K_G`.
        kg: Mat<f64>,
        /// `1 / (T (1 − μ_G μ_A))`.
        y: Mat<f64>,
    },
}

/// One factor of a block as the options need it.
#[derive(Debug)]
pub(crate) enum Half {
    Independence { inverse: Mat<f64> },
    Option1 { l: Mat<f64>, psi: Vec<f64> },
    Option2 { p: Mat<f64>, k: Mat<f64>, mu: Vec<f64> },
}

/// Why a factor has no inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is singular and there is no damping.
    Singular,
    /// It, or the decomposition of it, is not finite.
    NotFinite,
}

/// `W` with `W (C_0 + damping) Wᵀ = 1`: the inverse of the Cholesky factor, or, where rounding has left a `C_0` with
/// negative eigenvalues that damping does not lift, of the root with those eigenvalues as 0.
///
/// The blocks are the same for every such `W`: two of them differ by an orthogonal factor from the left, which the
/// eigenvectors of what they whiten undo.
fn whitening(c0: &Mat<f64>, damping: f64) -> Result<Mat<f64>, Unfit> {
    let n = c0.nrows();
    if let Ok(llt) = damped(c0, damping).llt(Side::Lower) {
        let mut w = Mat::zeros(n, n);
        invert_lower_triangular(w.as_mut(), llt.L(), Par::Seq);
        return Ok(w);
    }
    let (values, v) = clipped_eigen(c0).ok_or(Unfit::NotFinite)?;
    let values: Vec<f64> = values.iter().map(|e| e + damping).collect();
    if values.iter().any(|&e| e <= 0.0) {
        return Err(Unfit::Singular);
    }
    Ok(Mat::from_fn(n, n, |i, j| v[(j, i)] / values[i].sqrt()))
}

/// `C_0 + damping`.
fn damped(c0: &Mat<f64>, damping: f64) -> Mat<f64> {
    let n = c0.nrows();
    Mat::from_fn(n, n, |i, j| c0[(i, j)] + if i == j { damping } else { 0.0 })
}

/// Whether the moments are those of a diagonal, as one column.
fn is_diagonal(a0: &Mat<f64>) -> bool {
    a0.ncols() == 1 && a0.nrows() > 1
}

impl Half {
    /// The half of the inputs; a diagonal `A_0` has independence.
    pub(crate) fn of_inputs(
        kind: Approximation,
        a0: &Mat<f64>,
        a1: Option<&Mat<f64>>,
        damping: Damping,
    ) -> Result<Half, Unfit> {
        if !is_diagonal(a0) {
            return Half::new(kind, a0, a1, damping.a);
        }
        let inverse = Mat::from_fn(a0.nrows(), 1, |i, _| 1.0 / (a0[(i, 0)] + damping.a));
        match (0..inverse.nrows()).all(|i| inverse[(i, 0)].is_finite()) {
            true => Ok(Half::Independence { inverse }),
            false => Err(unfit(a0)),
        }
    }

    /// The half of moments `C_0`, `C_1`.
    pub(crate) fn new(
        kind: Approximation,
        c0: &Mat<f64>,
        c1: Option<&Mat<f64>>,
        damping: f64,
    ) -> Result<Half, Unfit> {
        let n = c0.nrows();
        if kind == Approximation::Independence {
            let inverse = match damped(c0, damping).llt(Side::Lower) {
                Ok(llt) => symmetric(&llt.inverse()),
                Err(_) => {
                    let w = whitening(c0, damping)?;
                    w.transpose() * &w
                }
            };
            return Ok(Half::Independence { inverse });
        }
        let w = whitening(c0, damping)?;
        let zero = Mat::zeros(n, n);
        let c1 = c1.unwrap_or(&zero);
        if let Approximation::Option1 { absolute } = kind {
            let whitened = symmetric(&(&w * symmetric(c1) * w.transpose()));
            let eigen = whitened.self_adjoint_eigen(Side::Lower).map_err(|_| Unfit::NotFinite)?;
            let psi = (0..n).map(|i| eigen.S()[i].clamp(-1.0, 1.0));
            let psi = psi.map(|psi| if absolute { psi.abs() } else { psi }).collect();
            return Ok(Half::Option1 { l: w.transpose() * eigen.U(), psi });
        }
        // The right singular vectors and squared singular values of the whitened C_1.
        let whitened = &w * c1 * w.transpose();
        let square = symmetric(&(whitened.transpose() * &whitened));
        let eigen = square.self_adjoint_eigen(Side::Lower).map_err(|_| Unfit::NotFinite)?;
        let mu = (0..n).map(|i| eigen.S()[i].clamp(0.0, 1.0)).collect();
        let inverse = w.transpose() * &w;
        Ok(Half::Option2 { p: c1.transpose() * inverse, k: w.transpose() * eigen.U(), mu })
    }
}

fn unfit(c0: &Mat<f64>) -> Unfit {
    let finite = (0..c0.ncols()).all(|j| (0..c0.nrows()).all(|i| c0[(i, j)].is_finite()));
    if finite { Unfit::Singular } else { Unfit::NotFinite }
}

/// Which factor of a block it was.
pub type Culprit = (&'static str, Unfit);

impl Inverse {
    /// The inverse of one block: [`Inverse::of_parts`] with one `G`.
    pub fn new(
        kind: Approximation,
        factors: &Factors,
        damping: Damping,
        lengths: &Lengths,
        uses: f64,
    ) -> Result<Inverse, Culprit> {
        let parts = [(factors.g0.clone(), factors.g1.clone())];
        let found =
            Inverse::of_parts(kind, &factors.a0, factors.a1.as_ref(), &parts, damping, lengths, uses)?;
        found.into_iter().next().ok_or(("G", Unfit::Singular))
    }

    /// The inverses for outputs in parts, each with its own `(G_0, G_1)`, that share the input moments. `uses`: how often
    /// the map is used in one step, as if independently. An `A_0` of one column is a diagonal, for which independence is
    /// assumed.
    ///
    /// Errors: a factor that is singular without damping, or not finite.
    pub fn of_parts(
        kind: Approximation,
        a0: &Mat<f64>,
        a1: Option<&Mat<f64>>,
        parts: &[(Mat<f64>, Option<Mat<f64>>)],
        damping: Damping,
        lengths: &Lengths,
        uses: f64,
    ) -> Result<Vec<Inverse>, Culprit> {
        let left = Half::of_inputs(kind, a0, a1, damping).map_err(|u| ("A", u))?;
        let kind = if is_diagonal(a0) { Approximation::Independence } else { kind };
        parts
            .iter()
            .map(|(g0, g1)| {
                let right = Half::new(kind, g0, g1.as_ref(), damping.g).map_err(|u| ("G", u))?;
                Ok(Inverse::join(&left, &right, lengths, uses))
            })
            .collect()
    }

    /// The inverse of two halves of one kind.
    pub(crate) fn join(left: &Half, right: &Half, lengths: &Lengths, uses: f64) -> Inverse {
        let steps = mean_length(lengths) * uses;
        match (left, right) {
            (Half::Independence { inverse: a }, Half::Independence { inverse: g }) => {
                Inverse::Independence { a: a.clone(), g: faer::Scale(1.0 / steps) * g }
            }
            (Half::Option1 { l: a, psi: pa }, Half::Option1 { l: g, psi: pg }) => {
                let y = Mat::from_fn(pg.len(), pa.len(), |i, j| {
                    // Rounding must not turn a vanishing sum into a large negative inverse.
                    let sum = mean_chain_sum(pg[i] * pa[j], lengths);
                    1.0 / (uses * sum.max(1e-12 * mean_length(lengths)))
                });
                Inverse::Option1 { a: a.clone(), g: g.clone(), y }
            }
            (Half::Option2 { p: pa, k: ka, mu: ma }, Half::Option2 { p: pg, k: kg, mu: mg }) => {
                let y = Mat::from_fn(mg.len(), ma.len(), |i, j| {
                    let rest = 1.0 - mg[i] * ma[j];
                    1.0 / (steps * if rest == 0.0 { 1.0 } else { rest })
                });
                Inverse::Option2 { pa: pa.clone(), ka: ka.clone(), pg: pg.clone(), kg: kg.clone(), y }
            }
            _ => unreachable!("bug: halves of two kinds"),
        }
    }

    /// The product with `Z` `[n_G, n_A]`.
    pub fn apply(&self, z: &Mat<f64>) -> Mat<f64> {
        self.view().apply(z.as_ref())
    }

    /// Its matrices, to multiply with.
    pub(crate) fn view(&self) -> View<'_, f64> {
        match self {
            Inverse::Independence { a, g } => View::Independence { a: a.as_ref(), g: g.as_ref() },
            Inverse::Option1 { a, g, y } => View::Option1 { a: a.as_ref(), g: g.as_ref(), y: y.as_ref() },
            Inverse::Option2 { pa, ka, pg, kg, y } => View::Option2 {
                pa: pa.as_ref(),
                ka: ka.as_ref(),
                pg: pg.as_ref(),
                kg: kg.as_ref(),
                y: y.as_ref(),
            },
        }
    }
}
