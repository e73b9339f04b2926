//! Gradient checking: derivatives recorded by the engine against finite differences and against each other.
//!
//! For outputs `y = f(x)` and fixed random cotangents `u`, [`check`] compares three things.
//!
//! 1. **Finite differences.** The recorded gradient of `Σ Re(conj(u) · y)` against a central difference of five
//!    points, `f' ≈ (8 (f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h`, one real component of `x` at a time: real and
//!    imaginary parts of complex values are moved separately. The step starts at `2⁻⁶ max(|x|, 1)` and is halved
//!    as long as that helps: the disagreement of two successive steps estimates the truncation error while it
//!    falls and the rounding error once it grows, and the step where it is least is taken. Values of many
//!    components are checked in a random subset of them and along random directions.
//! 2. **The adjoint identity** of the reverse and the forward rules, which holds to rounding:
//!    `|⟨Jv,u⟩ − ⟨v,J*u⟩| / (max(‖Jv‖‖u‖, ‖v‖‖J*u‖) · n · ε) < 30` for random tangents `v`, `n` the number of
//!    real components of `x` and `y` together.
//! 3. **Second order**, if asked for: both of the above for the recorded gradient itself as the output.
//!
//! The error of a derivative is `|ad − fd| / max(|ad|, |fd|, rms, 0.01 F)`: `rms` is the root mean square of all
//! derivatives checked of that value, and `F = Σ |u·y|` is the size of the numbers that are differenced, below
//! whose rounding a difference says nothing. Derivatives that are stopped on purpose (`stop_gradient`, a
//! truncated horizon) differ from finite differences, as they should.

mod differences;
mod random;
mod report;

pub use report::{Adjoint, Entry, Order, Part, Report, ValueReport};

use crate::autodiff;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Ty;
use crate::params::Params;
use crate::reference;
use crate::tape::{NodeKind, Tape, Var};
use crate::tensor::Tensor;
use differences::Probe;
use random::Random;

/// What to check, and how strictly.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Largest error of a derivative; see the [module](self).
    pub tolerance: f64,
    /// Largest ratio of the adjoint identity.
    pub adjoint_limit: f64,
    /// Whether the adjoint identity is checked. It needs the `jvp` rules.
    pub adjoint: bool,
    /// Whether the gradient's own gradient is checked.
    pub second_order: bool,
    /// Real components of a value checked one by one; of a larger value a random subset of this many.
    pub max_components: usize,
    /// Random directions checked of a value that has more components than that.
    pub directions: usize,
    /// Seed of cotangents, tangents, subsets and directions.
    pub seed: u64,
}

impl Default for Options {
    /// 10⁻⁹, ratio 30, first order only, up to 64 components a value, 4 directions.
    fn default() -> Options {
        Options {
            tolerance: 1e-9,
            adjoint_limit: 30.0,
            adjoint: true,
            second_order: false,
            max_components: 64,
            directions: 4,
            seed: 0,
        }
    }
}

/// Evaluates outputs of a tape for bound tensors: a backend, as far as [`check`] is concerned.
pub type Run<'a> = dyn FnMut(&Tape, &[Var], &[&Params]) -> Result<Vec<Tensor>> + 'a;

/// [`check`] on the reference evaluator, [`reference::evaluate`].
///
/// ```
/// use retrograd_engine::{DType, Params, Shape, Tape, Tensor, gradcheck, matmul};
/// # fn main() -> retrograd_engine::Result<()> {
/// let mut tape = Tape::new();
/// let w = tape.param("w", DType::F64, [2, 2])?;
/// let x = tape.input("x", DType::F64, Shape::rows([2]))?;
/// let y = matmul(&mut tape, x, w)?;
/// let data = Params::from_iter([
///     ("w".to_string(), Tensor::from_slice([2, 2], &[0.3, -1.2, 0.7, 0.1])?),
///     ("x".to_string(), Tensor::from_slice([1, 2], &[1.5, -0.5])?),
/// ]);
/// let options = gradcheck::Options { second_order: true, ..Default::default() };
/// let report = gradcheck::check_reference(&mut tape, &[y], &[w, x], &[&data], &options)?;
/// assert!(report.passed(), "{report}");
/// # Ok(()) }
/// ```
pub fn check_reference(
    tape: &mut Tape,
    outputs: &[Var],
    wrt: &[Var],
    bindings: &[&Params],
    options: &Options,
) -> Result<Report> {
    check(tape, outputs, wrt, bindings, options, &mut reference::evaluate)
}

/// Checks the derivatives of `outputs` by the parameters and inputs `wrt` at the bound values; see the
/// [module](self). Records on `tape` what it needs.
///
/// Errors: outputs or `wrt` that are not `F64` or `C64` (single precision cannot show 10⁻⁹); a value in `wrt` that
/// is neither parameter nor input; nothing to check; whatever the rules or `run` return. A wrong derivative is not
/// an error but a [`Report`] that has not [passed](Report::passed).
pub fn check(
    tape: &mut Tape,
    outputs: &[Var],
    wrt: &[Var],
    bindings: &[&Params],
    options: &Options,
    run: &mut Run<'_>,
) -> Result<Report> {
    if outputs.is_empty() || wrt.is_empty() {
        let what = format!("nothing to check, {} outputs by {} values", outputs.len(), wrt.len());
        return Err(Error::argument("gradcheck", what));
    }
    for (i, &v) in outputs.iter().enumerate() {
        double(&format!("output {i}"), tape.dtype(v)?)?;
    }
    let mut names = Vec::new();
    for &v in wrt {
        let node = tape.node(v)?;
        let (NodeKind::Param(name) | NodeKind::Input(name)) = &node.kind else {
            let what = format!("{v:?} in wrt is neither a parameter nor an input");
            return Err(Error::argument("gradcheck", what));
        };
        double(&format!("`{name}`"), node.ty.dtype)?;
        names.push(name.clone());
    }
    // Bindings as one, so that a moved value replaces the original under any backend's rule of precedence.
    let mut bound = Params::new();
    for (name, tensor) in bindings.iter().flat_map(|b| b.iter()) {
        if bound.get(name).is_none() {
            bound.insert(name, tensor.clone());
        }
    }
    for name in &names {
        bound.require(name)?;
    }

    let mut session = Session { wrt, names, bound, options, run, runs: 0, random: Random::new(options.seed) };
    let (first, gradients) = session.order(tape, 1, outputs)?;
    let second = match options.second_order && !gradients.is_empty() {
        true => Some(session.order(tape, 2, &gradients)?.0),
        false => None,
    };
    Ok(Report {
        first,
        second,
        tolerance: options.tolerance,
        adjoint_limit: options.adjoint_limit,
        runs: session.runs,
    })
}

fn double(what: &str, dtype: DType) -> Result<()> {
    match dtype {
        DType::F64 | DType::C64 => Ok(()),
        other => {
            Err(Error::dtype("gradcheck", what, "f64 or c64 (differences need double precision)", other))
        }
    }
}

struct Session<'a, 'r> {
    wrt: &'a [Var],
    names: Vec<String>,
    bound: Params,
    options: &'a Options,
    run: &'a mut Run<'r>,
    runs: usize,
    random: Random,
}

impl Session<'_, '_> {
    fn evaluate(&mut self, tape: &Tape, outputs: &[Var]) -> Result<Vec<Tensor>> {
        self.runs += 1;
        let values = (self.run)(tape, outputs, &[&self.bound])?;
        if values.len() != outputs.len() {
            return Err(Error::shape("gradcheck", "values of the runner", outputs.len(), values.len()));
        }
        Ok(values)
    }

    /// Declares an input like `v` and binds it to random numbers of these sizes.
    fn random_like(&mut self, tape: &mut Tape, name: &str, v: Var, dims: &[usize]) -> Result<Var> {
        let Ty { dtype, shape } = tape.ty(v)?.clone();
        // The length of the tape makes the name new.
        let name = format!("gradcheck {name} {}", tape.len());
        let input = tape.input(&name, dtype, shape)?;
        let mut tensor = Tensor::zeros(dtype, dims)?;
        tensor.fill_with(|_| self.random.complex());
        self.bound.insert(name, tensor);
        Ok(input)
    }

    /// Derivatives of `outputs`; returns the recorded cotangents of `wrt` that there are as well.
    fn order(&mut self, tape: &mut Tape, order: usize, outputs: &[Var]) -> Result<(Order, Vec<Var>)> {
        let values = self.evaluate(tape, outputs)?;
        let mut seeds = Vec::new();
        for (&v, value) in outputs.iter().zip(&values) {
            seeds.push((v, self.random_like(tape, "cotangent", v, value.dims())?));
        }
        let cotangents = self.tensors(tape, seeds.iter().map(|s| s.1))?;
        let bars = autodiff::vjp(tape, &seeds, self.wrt)?;
        let gradients = self.given(tape, &bars, self.wrt)?;
        let adjoint = match self.options.adjoint {
            true => Some(self.adjoint(tape, outputs, &values, &cotangents, &gradients)?),
            false => None,
        };
        let size = dot_of_sizes(&values, &cotangents);
        let mut reports = Vec::new();
        for (i, gradient) in gradients.iter().enumerate() {
            let name = self.names[i].clone();
            let entries = self.differences(tape, outputs, &cotangents, &name, gradient, size, order)?;
            reports.push(ValueReport::new(name, entries, self.options.tolerance, 0.01 * size));
        }
        Ok((Order { values: reports, adjoint }, bars.into_iter().flatten().collect()))
    }

    /// The bound tensors of inputs.
    fn tensors(&self, tape: &Tape, inputs: impl Iterator<Item = Var>) -> Result<Vec<Tensor>> {
        inputs
            .map(|v| match &tape.node(v)?.kind {
                NodeKind::Input(name) | NodeKind::Param(name) => self.bound.require(name).cloned(),
                other => Err(Error::argument("gradcheck", format!("bug: {other:?} is not bound"))),
            })
            .collect()
    }

    /// Values of recorded derivatives; zeros like `like`, a bound value, where there is none.
    fn given(&mut self, tape: &Tape, found: &[Option<Var>], like: &[Var]) -> Result<Vec<Tensor>> {
        let wanted: Vec<Var> = found.iter().flatten().copied().collect();
        let mut values =
            if wanted.is_empty() { Vec::new() } else { self.evaluate(tape, &wanted)? }.into_iter();
        let like = self.tensors(tape, like.iter().copied())?;
        found
            .iter()
            .zip(like)
            .map(|(v, like)| match v.and_then(|_| values.next()) {
                Some(value) if value.dims() == like.dims() && value.dtype() == like.dtype() => Ok(value),
                Some(value) => Err(Error::shape(
                    "gradcheck",
                    "derivative",
                    format!("{} {:?}", like.dtype(), like.dims()),
                    format!("{} {:?}", value.dtype(), value.dims()),
                )),
                None => Tensor::zeros(like.dtype(), like.dims()),
            })
            .collect()
    }

    fn adjoint(
        &mut self,
        tape: &mut Tape,
        outputs: &[Var],
        values: &[Tensor],
        cotangents: &[Tensor],
        gradients: &[Tensor],
    ) -> Result<Adjoint> {
        let mut seeds = Vec::new();
        for (&v, gradient) in self.wrt.iter().zip(gradients) {
            seeds.push((v, self.random_like(tape, "tangent", v, gradient.dims())?));
        }
        let tangents = self.tensors(tape, seeds.iter().map(|s| s.1))?;
        let dots = autodiff::jvp(tape, outputs, &seeds)?;
        let wanted: Vec<Var> = dots.iter().flatten().copied().collect();
        let mut found =
            if wanted.is_empty() { Vec::new() } else { self.evaluate(tape, &wanted)? }.into_iter();
        let mut pushed = Vec::new();
        for (dot, value) in dots.iter().zip(values) {
            pushed.push(match dot.and_then(|_| found.next()) {
                Some(tensor) => tensor,
                None => Tensor::zeros(value.dtype(), value.dims())?,
            });
        }
        let components = |list: &[Tensor]| list.iter().map(|t| t.len() * t.dtype().planes()).sum::<usize>();
        let n = components(values) + components(&tangents);
        Ok(Adjoint::new(
            dot(&pushed, cotangents),
            dot(&tangents, gradients),
            norm(&pushed) * norm(cotangents),
            norm(&tangents) * norm(gradients),
            n,
        ))
    }

    fn differences(
        &mut self,
        tape: &Tape,
        outputs: &[Var],
        cotangents: &[Tensor],
        name: &str,
        gradient: &Tensor,
        size: f64,
        order: usize,
    ) -> Result<Vec<Entry>> {
        let origin = self.bound.require(name)?.clone();
        let stop = 0.05 * self.options.tolerance;
        let mut entries = Vec::new();
        for probe in Probe::choose(&origin, self.options, &mut self.random) {
            let ad = probe.derivative_from(gradient);
            let difference = differences::central(probe.scale(&origin), stop, 0.01 * size, &mut |h| {
                self.bound.insert(name, probe.moved(&origin, h));
                let values = self.evaluate(tape, outputs)?;
                Ok(terms(&values, cotangents))
            });
            self.bound.insert(name, origin.clone());
            let (fd, uncertainty) = difference?;
            let (index, part) = probe.describe(origin.dims(), origin.dtype().is_complex());
            entries.push(Entry { order, value: name.into(), index, part, ad, fd, uncertainty, error: 0.0 });
        }
        Ok(entries)
    }
}

/// The terms of `Σ Re(conj(u) · y)`, one for each real component.
fn terms(y: &[Tensor], u: &[Tensor]) -> Vec<f64> {
    let mut terms = Vec::new();
    for (y, u) in y.iter().zip(u) {
        for i in 0..y.len().min(u.len()) {
            let (y, u) = (y.get(i), u.get(i));
            terms.extend([y.re * u.re, y.im * u.im]);
        }
    }
    terms
}

fn dot(a: &[Tensor], b: &[Tensor]) -> f64 {
    terms(a, b).iter().sum()
}

fn dot_of_sizes(a: &[Tensor], b: &[Tensor]) -> f64 {
    terms(a, b).iter().map(|x| x.abs()).sum()
}

fn norm(a: &[Tensor]) -> f64 {
    dot(a, a).sqrt()
}
