//! The iterations, as recorded operations on rows.

use retrograd_engine::core_ops::select;
use retrograd_engine::{DType, Error, Result, Tape, Var};

use super::{Rate, Solver};
use crate::{add, div, gt, maximum, mul, neg, norm, scale, shift, sub, sum};

/// A function from rows to rows.
pub(super) type Map<'a> = &'a mut dyn FnMut(&mut Tape, Var) -> Result<Var>;

/// Where a solver stopped.
pub(super) struct Iterates {
    pub(super) z: Var,
    /// How many steps each row made.
    pub(super) iterations: Var,
}

/// `‖d‖ / (1 + ‖z‖)` of each row.
pub(super) fn distance(tape: &mut Tape, d: Var, z: Var) -> Result<Var> {
    let axes = axes(tape, z)?;
    let (d, z) = (norm(tape, d, 2.0, &axes, true)?, norm(tape, z, 2.0, &axes, true)?);
    let z = shift(tape, z, 1.0)?;
    div(tape, d, z)
}

fn axes(tape: &Tape, z: Var) -> Result<Vec<i32>> {
    Ok((0..tape.shape(z)?.dims.len() as i32).collect())
}

/// `Σ a b` of each row.
fn dot(tape: &mut Tape, a: Var, b: Var) -> Result<Var> {
    let axes = axes(tape, a)?;
    let ab = mul(tape, a, b)?;
    sum(tape, ab, &axes, true)
}

/// Runs a solver for `steps` steps; rows within `tolerance` stay where they are, if it is not 0.
pub(super) fn solve(
    tape: &mut Tape,
    z0: Var,
    solver: &Solver,
    steps: usize,
    tolerance: f64,
    f: Map<'_>,
) -> Result<Iterates> {
    let mut z = z0;
    let mut iterations: Option<Var> = None;
    let mut past = Past { z: Vec::new(), d: Vec::new(), updates: Vec::new() };
    for k in 0..steps {
        let image = f(tape, z)?;
        same_type(tape, image, z)?;
        let d = sub(tape, image, z)?;
        let change = match solver {
            Solver::Damped { rates } => match rates[k.min(rates.len() - 1)] {
                Rate::Constant(rate) => scale(tape, d, rate)?,
                Rate::Value(rate) => mul(tape, rate, d)?,
            },
            Solver::Anderson { memory, mixing } => past.anderson(tape, z, d, *memory, *mixing)?,
            Solver::Broyden => past.broyden(tape, z, d)?,
        };
        let distance = distance(tape, d, z)?;
        let limit = tape.scalar(distance, tolerance)?;
        let active = gt(tape, distance, limit)?;
        let next = add(tape, z, change)?;
        past.z.push(z);
        past.d.push(d);
        // NaN is not above any limit and would stop as if it had converged: it goes on, and stays NaN.
        z = if tolerance > 0.0 {
            let done = crate::le(tape, distance, limit)?;
            select(tape, done, z, next)?
        } else {
            next
        };
        iterations = Some(match iterations {
            Some(n) => add(tape, n, active)?,
            None => active,
        });
    }
    match iterations {
        Some(iterations) => Ok(Iterates { z, iterations }),
        None => Err(Error::argument("fixed_point", "0 steps, at least 1")),
    }
}

fn same_type(tape: &Tape, image: Var, z: Var) -> Result<()> {
    let (image, z) = (tape.ty(image)?, tape.ty(z)?);
    if image.dtype != z.dtype {
        return Err(Error::dtype("fixed_point", "f(z)", z.dtype.to_string(), image.dtype));
    }
    match image.shape.dims == z.shape.dims {
        true => Ok(()),
        false => Err(Error::shape("fixed_point", "f(z)", &z.shape, &image.shape)),
    }
}

/// Iterates and residuals so far.
struct Past {
    z: Vec<Var>,
    d: Vec<Var>,
    /// Broyden's updates `(u, v)`: `B = −1 + Σ u vᵀ`.
    updates: Vec<(Var, Var)>,
}

impl Past {
    /// `β d − Σ γ_i (Δz_i + β Δd_i)` with the `γ` that makes `‖d − Σ γ_i Δd_i‖` smallest.
    fn anderson(&self, tape: &mut Tape, z: Var, d: Var, memory: usize, mixing: f64) -> Result<Var> {
        let mut change = scale(tape, d, mixing)?;
        let first = self.z.len().saturating_sub(memory);
        let (mut z_steps, mut d_steps) = (Vec::new(), Vec::new());
        for i in first..self.z.len() {
            let (z_next, d_next) = match i + 1 < self.z.len() {
                true => (self.z[i + 1], self.d[i + 1]),
                false => (z, d),
            };
            z_steps.push(sub(tape, z_next, self.z[i])?);
            d_steps.push(sub(tape, d_next, self.d[i])?);
        }
        let gamma = least_squares(tape, &d_steps, d)?;
        for ((gamma, dz), dd) in gamma.into_iter().zip(z_steps).zip(d_steps) {
            let dd = scale(tape, dd, mixing)?;
            let both = add(tape, dz, dd)?;
            let both = mul(tape, gamma, both)?;
            change = sub(tape, change, both)?;
        }
        Ok(change)
    }

    /// `−B d` after the update for the step made last: with `s = Δz`, `y = Δd`,
    /// `B ← B + (s − B y) sᵀ B / (sᵀ B y)`.
    fn broyden(&mut self, tape: &mut Tape, z: Var, d: Var) -> Result<Var> {
        if let (Some(&z_old), Some(&d_old)) = (self.z.last(), self.d.last()) {
            let (s, y) = (sub(tape, z, z_old)?, sub(tape, d, d_old)?);
            let by = self.apply(tape, y)?;
            let v = self.apply_transposed(tape, s)?;
            let u = sub(tape, s, by)?;
            let scale = dot(tape, s, by)?;
            let tiny = tape.scalar(scale, f64::from(f32::MIN_POSITIVE))?;
            let size = crate::abs(tape, scale)?;
            let usable = gt(tape, size, tiny)?;
            let one = tape.scalar(scale, 1.0)?;
            // A row that has stopped makes no step: its update is 0 over 0.
            let divisor = select(tape, usable, scale, one)?;
            let u = div(tape, u, divisor)?;
            let u = mul(tape, usable, u)?;
            self.updates.push((u, v));
        }
        let step = self.apply(tape, d)?;
        neg(tape, step)
    }

    /// `B x`.
    fn apply(&self, tape: &mut Tape, x: Var) -> Result<Var> {
        self.with_updates(tape, x, |(u, v)| (v, u))
    }

    /// `Bᵀ x`.
    fn apply_transposed(&self, tape: &mut Tape, x: Var) -> Result<Var> {
        self.with_updates(tape, x, |(u, v)| (u, v))
    }

    fn with_updates(&self, tape: &mut Tape, x: Var, order: impl Fn((Var, Var)) -> (Var, Var)) -> Result<Var> {
        let mut y = neg(tape, x)?;
        for &update in &self.updates {
            let (read, along) = order(update);
            let share = dot(tape, read, x)?;
            let part = mul(tape, share, along)?;
            y = add(tape, y, part)?;
        }
        Ok(y)
    }
}

/// The `γ` for which `‖b − Σ γ_i a_i‖` is smallest, row by row: normal equations, a diagonal of rounding size added, and
/// elimination without exchange of rows, as the matrix is positive.
fn least_squares(tape: &mut Tape, a: &[Var], b: Var) -> Result<Vec<Var>> {
    let n = a.len();
    if n == 0 {
        return Ok(Vec::new());
    }
    let mut gram = vec![Vec::new(); n];
    let mut right = Vec::with_capacity(n);
    for i in 0..n {
        for j in 0..=i {
            let entry = dot(tape, a[i], a[j])?;
            gram[i].push(entry);
        }
        right.push(dot(tape, a[i], b)?);
    }
    let rounding = match tape.dtype(b)?.real() {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    let mut trace = gram[0][0];
    for (i, row) in gram.iter().enumerate().skip(1) {
        trace = add(tape, trace, row[i])?;
    }
    let floor = scale(tape, trace, 10.0 * rounding)?;
    let floor = shift(tape, floor, f64::from(f32::MIN_POSITIVE))?;
    for j in 0..n {
        let pivot = add(tape, gram[j][j], floor)?;
        gram[j][j] = maximum(tape, pivot, floor)?;
        for i in j + 1..n {
            let factor = div(tape, gram[i][j], gram[j][j])?;
            for c in j + 1..=i {
                let product = mul(tape, factor, gram[c][j])?;
                gram[i][c] = sub(tape, gram[i][c], product)?;
            }
            let product = mul(tape, factor, right[j])?;
            right[i] = sub(tape, right[i], product)?;
        }
    }
    for j in (0..n).rev() {
        for i in j + 1..n {
            let product = mul(tape, gram[i][j], right[i])?;
            right[j] = sub(tape, right[j], product)?;
        }
        right[j] = div(tape, right[j], gram[j][j])?;
    }
    Ok(right)
}
