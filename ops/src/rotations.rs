//! Layers of plane rotations: an orthogonal or unitary product without its matrix.

mod device;
mod kernel;
#[cfg(test)]
mod tests;

use retrograd_engine::device::DeviceKernel;
use retrograd_engine::kernel::{Args, RowRule, Structured};
use retrograd_engine::op::{Class, Cotangents, Io};
use retrograd_engine::profile::Work;
use retrograd_engine::{DType, Error, Op, Result, Shape, Tape, Ty, Var};
use smallvec::{SmallVec, smallvec};

use crate::check::{joint_dtype, real};
use crate::rule::sum_options;
use crate::spec::{Arg, Case, Domain, OpSpec};
use crate::{concat, cos, neg, sin, slice, zeros_like};
use kernel::{Apply, Grad, Layer};

/// Which elements the layers of [`rotations`] pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RotationStyle {
    /// `capacity` layers that pair neighbors: `(0,1), (2,3), …` and `(1,2), (3,4), …` in turn.
    Tunable {
        /// Number of layers, `L`.
        capacity: usize,
    },
    /// `log₂ N` layers that pair elements `N/2, N/4, …, 1` apart; `N` is a power of two.
    Fft,
}

impl RotationStyle {
    /// The layers for rows of `n` elements. Errors: the FFT style of an `n` that is not a power of two.
    fn layers(self, n: usize) -> Result<SmallVec<[Layer; 16]>> {
        let mut layers = SmallVec::new();
        let mut start = 0;
        let mut push = |first: usize, distance: usize, groups: usize| {
            layers.push(Layer { start, first, distance, groups });
            start += groups * distance;
        };
        match self {
            RotationStyle::Tunable { capacity } => {
                for l in 0..capacity {
                    push(l % 2, 1, n.saturating_sub(l % 2) / 2);
                }
            }
            RotationStyle::Fft if n.is_power_of_two() => {
                let mut distance = n / 2;
                while distance > 0 {
                    push(0, distance, n / (2 * distance));
                    distance /= 2;
                }
            }
            RotationStyle::Fft => {
                return Err(Error::shape("rotations", "last axis in the FFT style", "a power of two", n));
            }
        }
        Ok(layers)
    }

    /// Number of rotations for rows of `n` elements. Errors: the FFT style of an `n` that is not a power of two.
    pub fn count(self, n: usize) -> Result<usize> {
        Ok(self.layers(n)?.iter().map(|l| l.groups * l.distance).sum())
    }
}

/// Layers of rotations in planes of two elements of the last axis, one layer after the other. With the angles `θ`,
/// `φ` of its rotation a pair `(p, q)` becomes
///
/// ```text
/// y_p = cos θ · x_p − e^{iφ} sin θ · x_q
/// y_q = sin θ · x_p + e^{iφ} cos θ · x_q
/// ```
///
/// Elements that a layer does not pair stay. The product is orthogonal, with `φ` unitary.
///
/// Shapes: `x [.., N]`, `theta [R]`, `phi [R] -> y [.., N]`, with the `R` of [`RotationStyle::count`], layer after
/// layer, pairs in ascending order. `phi` needs a complex `x`; without it `φ = 0`, and `x` may be real.
/// Rule: `x_bar` is the adjoint product of `y_bar`; the angles' cotangents come from one sweep that keeps `x` alone
/// and computes the layers again. Sines and cosines are computed once a call, not once a step.
/// Domain: all numbers.   Errors: complex angles, or `phi` of a real `x`; angles that are not as many as rotations;
/// the FFT style of an `N` that is not a power of two; single with double precision.
///
/// Source: L. Jing et al. (2017), "Tunable efficient unitary neural networks (EUNN) and their application to RNNs",
/// ICML, eqs. (3), (5), (6). There the phase is on the first row; the families are the same.
pub fn rotations(tape: &mut Tape, x: Var, theta: Var, phi: Option<Var>, style: RotationStyle) -> Result<Var> {
    let mut tys = vec![tape.ty(x)?.clone(), tape.ty(theta)?.clone()];
    if let Some(phi) = phi {
        tys.push(tape.ty(phi)?.clone());
        if !tys[0].dtype.is_complex() {
            return Err(Error::dtype("rotations", "x of rotations with phases", "c32 or c64", tys[0].dtype));
        }
    }
    joint_dtype("rotations", &tys)?;
    let n = tape.last_dim("rotations", x)?;
    let count = style.count(n)?;
    for (i, ty) in tys.iter().enumerate().skip(1) {
        real("rotations", &tys, i)?;
        if ty.shape != Shape::shared([count]) {
            let what = if i == 1 { "theta" } else { "phi" };
            let expected = format!("[{count}], an angle for each rotation of {n} elements");
            return Err(Error::shape("rotations", what, expected, &ty.shape));
        }
    }
    let mut table = vec![cos(tape, theta)?, sin(tape, theta)?];
    if let Some(phi) = phi {
        table.extend([cos(tape, phi)?, sin(tape, phi)?]);
    }
    let table = concat(tape, &table, 0)?;
    let op = Rotations { style, phases: phi.is_some(), adjoint: false };
    tape.push(op, &[x, table])
}

/// The product as recorded: inputs `x` and the table `[cos θ, sin θ]` or `[cos θ, sin θ, cos φ, sin φ]`.
///
/// The rules take the numbers of the table for what they are, so that the product is affine in those of each layer
/// and every derivative is such a product with some of them replaced.
#[derive(Clone, Copy, Debug)]
struct Rotations {
    style: RotationStyle,
    phases: bool,
    /// Whether it is the conjugate transpose that is applied.
    adjoint: bool,
}

/// Cotangent of the table of `Re ⟨v, M u⟩` with `M` the product: inputs `u`, `v`, the table.
#[derive(Clone, Copy, Debug)]
struct RotationsGrad {
    style: RotationStyle,
    phases: bool,
}

/// Numbers of the table that belong to one factor of the product: two ranges of its `parts·R`.
type Factor = [(usize, usize); 2];

/// The factors that the product is affine in, for rows of `n` elements: the phases and the rotation of each layer.
fn factors(style: RotationStyle, phases: bool, n: usize) -> Result<Vec<Factor>> {
    let (layers, count) = (style.layers(n)?, style.count(n)?);
    let mut all = Vec::new();
    for layer in layers.iter().filter(|l| l.groups > 0) {
        let range = |part: usize| (part * count + layer.start, layer.groups * layer.distance);
        all.push([range(0), range(1)]);
        if phases {
            all.push([range(2), range(3)]);
        }
    }
    Ok(all)
}

/// The table with the numbers of one factor taken from another.
fn replaced(tape: &mut Tape, table: Var, factor: Factor, by: Var) -> Result<Var> {
    let end = tape.last_dim("rotations", table)?;
    let (mut parts, mut at) = (Vec::new(), 0);
    for (start, len) in factor {
        parts.push(slice(tape, table, at..start, 0)?);
        parts.push(slice(tape, by, start..start + len, 0)?);
        at = start + len;
    }
    parts.push(slice(tape, table, at..end, 0)?);
    concat(tape, &parts, 0)
}

/// Sum over factors of `with(the factor's numbers from by) − with(zeros in their place)`: the derivative along `by`.
fn along(
    tape: &mut Tape,
    (style, phases): (RotationStyle, bool),
    n: usize,
    table: Var,
    by: Var,
    mut with: impl FnMut(&mut Tape, Var) -> Result<Var>,
) -> Result<Option<Var>> {
    let zeros = zeros_like(tape, by)?;
    let mut sum = None;
    for factor in factors(style, phases, n)? {
        let there = replaced(tape, table, factor, by)?;
        let there = with(tape, there)?;
        let not = replaced(tape, table, factor, zeros)?;
        let not = with(tape, not)?;
        let not = neg(tape, not)?;
        let term = sum_options(tape, Some(there), Some(not))?;
        sum = sum_options(tape, sum, term)?;
    }
    Ok(sum)
}

impl Rotations {
    fn reversed(self) -> Rotations {
        Rotations { adjoint: !self.adjoint, ..self }
    }

    fn grad(self) -> RotationsGrad {
        RotationsGrad { style: self.style, phases: self.phases }
    }
}

impl Op for Rotations {
    fn name(&self) -> &'static str {
        "rotations"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        joint_dtype("rotations", inputs)?;
        Ok(inputs[0].clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, y_bar: Var) -> Result<Cotangents> {
        let (x, table) = (io.inputs[0], io.inputs[1]);
        let mut bars: Cotangents = smallvec![None; 2];
        if io.needs[0] {
            bars[0] = Some(tape.push(self.reversed(), &[y_bar, table])?);
        }
        if io.needs[1] {
            // Re⟨y_bar, Mᴴ x⟩ = Re⟨x, M y_bar⟩.
            let [u, v] = if self.adjoint { [y_bar, x] } else { [x, y_bar] };
            bars[1] = Some(tape.push(self.grad(), &[u, v, table])?);
        }
        Ok(bars)
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (x, table) = (io.inputs[0], io.inputs[1]);
        let from_x = x_dots[0].map(|d| tape.push(*self, &[d, table])).transpose()?;
        let Some(dot) = x_dots[1] else { return Ok(from_x) };
        let n = tape.last_dim("rotations", x)?;
        let with = |tape: &mut Tape, table: Var| tape.push(*self, &[x, table]);
        let from_table = along(tape, (self.style, self.phases), n, table, dot, with)?;
        sum_options(tape, from_x, from_table)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        flops(self.style, self.phases, &inputs[0])
    }

    fn work(&self) -> Work {
        Work::Product
    }
}

/// Floating-point operations of the product for one row.
fn flops(style: RotationStyle, phases: bool, x: &Ty) -> f64 {
    let n = x.shape.dims.last().copied().unwrap_or(0);
    let rows = x.shape.width().checked_div(n).unwrap_or(0);
    let each = 6 * x.dtype.planes() + if phases { 6 } else { 0 };
    (rows * each * style.count(n).unwrap_or(0)) as f64
}

/// Lanes of a block of rows: as many as the widest vector register holds.
fn lanes(dtype: DType) -> usize {
    64 / dtype.real().size().max(1)
}

impl Structured for Rotations {
    fn efficiency(&self) -> f64 {
        0.04
    }

    fn run_f32(&self, args: Args<'_, f32>) {
        Apply { style: self.style, phases: self.phases, adjoint: self.adjoint }.run::<f32, 16>(args);
    }

    fn run_f64(&self, args: Args<'_, f64>) {
        Apply { style: self.style, phases: self.phases, adjoint: self.adjoint }.run::<f64, 8>(args);
    }

    fn scratch(&self, inputs: &[Ty]) -> usize {
        let n = inputs[0].shape.dims.last().copied().unwrap_or(0);
        n * inputs[0].dtype.planes() * lanes(inputs[0].dtype)
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

impl Op for RotationsGrad {
    fn name(&self) -> &'static str {
        "rotations_grad"
    }

    fn infer(&self, inputs: &[Ty]) -> Result<Ty> {
        joint_dtype("rotations_grad", inputs)?;
        if inputs[0].dtype != inputs[1].dtype || inputs[0].shape.dims != inputs[1].shape.dims {
            return Err(Error::shape("rotations_grad", "v", &inputs[0], &inputs[1]));
        }
        Ok(inputs[2].clone())
    }

    fn class(&self) -> Class<'_> {
        Class::Structured(self)
    }

    fn vjp(&self, tape: &mut Tape, io: Io<'_>, k: Var) -> Result<Cotangents> {
        // ⟨k, grad⟩ = Re⟨v, D u⟩ with D the derivative of the product along k.
        let (u, v, table) = (io.inputs[0], io.inputs[1], io.inputs[2]);
        let n = tape.last_dim("rotations_grad", u)?;
        let (of, forward) = ((self.style, self.phases), self.product());
        let mut bars: Cotangents = smallvec![None; 3];
        if io.needs[0] {
            let with = |tape: &mut Tape, table: Var| tape.push(forward.reversed(), &[v, table]);
            bars[0] = along(tape, of, n, table, k, with)?;
        }
        if io.needs[1] {
            let with = |tape: &mut Tape, table: Var| tape.push(forward, &[u, table]);
            bars[1] = along(tape, of, n, table, k, with)?;
        }
        if io.needs[2] {
            // A factor's own part of the gradient does not depend on the factor and cancels.
            let with = |tape: &mut Tape, table: Var| tape.push(*self, &[u, v, table]);
            bars[2] = along(tape, of, n, table, k, with)?;
        }
        Ok(bars)
    }

    fn jvp(&self, tape: &mut Tape, io: Io<'_>, x_dots: &[Option<Var>]) -> Result<Option<Var>> {
        let (u, v, table) = (io.inputs[0], io.inputs[1], io.inputs[2]);
        let from_u = x_dots[0].map(|d| tape.push(*self, &[d, v, table])).transpose()?;
        let from_v = x_dots[1].map(|d| tape.push(*self, &[u, d, table])).transpose()?;
        let sum = sum_options(tape, from_u, from_v)?;
        let Some(dot) = x_dots[2] else { return Ok(sum) };
        let n = tape.last_dim("rotations_grad", u)?;
        let with = |tape: &mut Tape, table: Var| tape.push(*self, &[u, v, table]);
        let from_table = along(tape, (self.style, self.phases), n, table, dot, with)?;
        sum_options(tape, sum, from_table)
    }

    fn flops(&self, inputs: &[Ty], _: &Ty) -> f64 {
        3.0 * flops(self.style, self.phases, &inputs[0])
    }

    fn work(&self) -> Work {
        Work::Product
    }
}

impl RotationsGrad {
    fn product(self) -> Rotations {
        Rotations { style: self.style, phases: self.phases, adjoint: false }
    }
}

impl Structured for RotationsGrad {
    fn efficiency(&self) -> f64 {
        0.06
    }

    fn rows(&self) -> RowRule {
        RowRule::Reduce
    }

    fn run_f32(&self, args: Args<'_, f32>) {
        Grad { style: self.style, phases: self.phases }.run::<f32, 16>(args);
    }

    fn run_f64(&self, args: Args<'_, f64>) {
        Grad { style: self.style, phases: self.phases }.run::<f64, 8>(args);
    }

    fn scratch(&self, inputs: &[Ty]) -> usize {
        let n = inputs[0].shape.dims.last().copied().unwrap_or(0);
        let layers = self.style.layers(n).map_or(0, |l| l.len());
        (layers + 2) * n * inputs[0].dtype.planes() * lanes(inputs[0].dtype)
    }

    fn device(&self) -> Option<&dyn DeviceKernel> {
        Some(self)
    }
}

const TUNABLE: RotationStyle = RotationStyle::Tunable { capacity: 3 };

pub(crate) static SPEC: OpSpec = OpSpec {
    name: "rotations",
    summary: "layers of plane rotations of the last axis, real or with phases (EUNN)",
    cases: &[
        Case {
            label: "tunable",
            inputs: &[Arg::either("N 6", Domain::Any), Arg::real("8", Domain::Any)],
            build: |t, x| rotations(t, x[0], x[1], None, TUNABLE),
        },
        Case {
            label: "tunable, phases, odd size, rows of rows",
            inputs: &[
                Arg::complex("N B 5", Domain::Any),
                Arg::real("6", Domain::Any),
                Arg::real("6", Domain::Any),
            ],
            build: |t, x| rotations(t, x[0], x[1], Some(x[2]), TUNABLE),
        },
        Case {
            label: "FFT",
            inputs: &[Arg::either("T N 8", Domain::Any), Arg::real("12", Domain::Any)],
            build: |t, x| rotations(t, x[0], x[1], None, RotationStyle::Fft),
        },
        Case {
            label: "FFT, phases, shared vector",
            inputs: &[
                Arg::complex("4", Domain::Any),
                Arg::real("4", Domain::Any),
                Arg::real("4", Domain::Any),
            ],
            build: |t, x| rotations(t, x[0], x[1], Some(x[2]), RotationStyle::Fft),
        },
    ],
};
