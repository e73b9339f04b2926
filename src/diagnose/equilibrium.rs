//! The equation that the next state solves: its Jacobian, and how inner steps approach the solution.

use std::sync::{Arc, Mutex, PoisonError};

use faer::{Mat, c64};
use num_complex::Complex64;
use retrograd_cells::model::BoundModel;
use retrograd_cells::{BoundCell, Cell, Declare, Input, Layer, ParamStore, RecurrentOperator, UNCONVERGED};
use retrograd_engine::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, Var, jvp};

use super::pictures::scatter;
use super::subject::Subject;
use super::{Measured, Options, Table, number};
use crate::run::{Chart, Error, Result, Series};

/// Steps toward the equilibrium, and their size.
const STEPS: usize = 400;
const RATE: f64 = 0.5;
/// States of more numbers are left out: their Jacobian would take minutes.
const LARGEST: usize = 1024;

/// `F(g)` on the tape, with what it is a function of.
#[derive(Clone, Copy, Debug)]
struct Equation {
    slope: Var,
    dot: Var,
}

/// A cell that also notes the equation it solves.
#[derive(Debug)]
struct Noting {
    cell: Arc<dyn Cell>,
    found: Arc<Mutex<Option<Equation>>>,
}

impl Cell for Noting {
    fn name(&self) -> &'static str {
        self.cell.name()
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        input: Input,
        hidden: usize,
        operator: &dyn RecurrentOperator,
    ) -> retrograd_cells::Result<Box<dyn BoundCell>> {
        let cell = self.cell.declare(ctx, input, hidden, operator)?;
        let dtype = ctx.dtype(false);
        let tape = ctx.tape();
        let mut state = Vec::new();
        for part in cell.state().iter().filter(|part| part.name != UNCONVERGED) {
            let dtype = if part.complex { dtype.complex().unwrap_or(dtype) } else { dtype };
            state.push(tape.input(&format!("h.{}", part.name), dtype, Shape::rows([part.width]))?);
        }
        let x = match input {
            Input::Dense(c) => tape.input("x", dtype, Shape::rows([c]))?,
            Input::Symbols(_) => tape.input("x", DType::I32, Shape::rows([]))?,
        };
        let g = tape.input("g", dtype, Shape::rows([hidden]))?;
        let g_dot = tape.input("g_dot", dtype, Shape::rows([hidden]))?;
        if let Some(slope) = cell.inner(tape, &state, x, g)?
            && let Some(dot) = jvp(tape, &[slope], &[(g, g_dot)])?[0]
        {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            *found = Some(Equation { slope, dot });
        }
        Ok(cell)
    }
}

/// At the last step of the first row: eigenvalues of `∂F/∂g` at the equilibrium `F(g) = 0`, and `‖g_k − g*‖` over damped
/// steps toward it, with the rate at which it shrinks.
pub(super) fn measure(subject: &Subject, _: &Options) -> Result<Measured> {
    let layer = subject.model.layers[0].clone();
    let hidden = layer.hidden;
    let found: Arc<Mutex<Option<Equation>>> = Arc::default();
    let noting = Noting { cell: layer.cell.clone(), found: found.clone() };
    let mut spec = subject.model.clone();
    spec.layers[0] = Layer { cell: Arc::new(noting), ..layer };
    let mut tape = Tape::new();
    let mut store = ParamStore::new(subject.config.seed, spec.dtype)?;
    BoundModel::declare(&mut Declare::new(&mut tape, &mut store), &spec)?;
    let found = *found.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Equation { slope, dot }) = found else {
        return Ok(Measured::nothing("the cell solves no equation"));
    };
    if hidden > LARGEST {
        return Ok(Measured::nothing(format!("{hidden} units, more than {LARGEST}")));
    }
    if spec.embedding.is_some() {
        return Ok(Measured::nothing("the first layer reads an embedding"));
    }
    let mut values = at_the_last_step(subject, &tape, 1)?;
    let options = RunOptions::default;
    let mut step = Program::new(&tape, &[slope], options())?;
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut path = vec![vec![0.0; hidden]];
    for k in 0..STEPS {
        values.insert("g", row(spec.dtype, &path[k], 1)?);
        let slope = step.run(&[&subject.params, &values])?.remove(0);
        let next: Vec<f64> = path[k].iter().enumerate().map(|(i, g)| g + RATE * slope.get(i).re).collect();
        if next.iter().any(|x| !x.is_finite() || x.abs() > 1e12) {
            return Ok(Measured::nothing("inner steps run away: there is no equilibrium they lead to"));
        }
        path.push(next);
    }
    let equilibrium = path[STEPS].clone();
    values.insert("g", row(spec.dtype, &equilibrium, 1)?);
    let residual = step.run(&[&subject.params, &values])?.remove(0);
    let residual = norm(&(0..hidden).map(|i| residual.get(i).re).collect::<Vec<_>>());
    let away: Vec<f64> = path
        .iter()
        .map(|g| norm(&g.iter().zip(&equilibrium).map(|(a, b)| a - b).collect::<Vec<_>>()))
        .collect();
    // Beyond it rounding is all that is left to see.
    let floor = away[0].max(1.0) * if spec.dtype == DType::F64 { 1e-12 } else { 1e-5 };
    let seen: Vec<(f64, f64)> =
        away.iter().enumerate().take_while(|(_, d)| **d > floor).map(|(k, d)| (k as f64, *d)).collect();
    let rate = match (seen.first(), seen.last()) {
        (Some(a), Some(b)) if b.0 > a.0 => (b.1 / a.1).powf(1.0 / (b.0 - a.0)),
        _ => f64::NAN,
    };

    // One unit vector a row: the images are the columns of the Jacobian.
    let mut rows = at_the_last_step(subject, &tape, hidden)?;
    rows.insert("g", row(spec.dtype, &equilibrium, hidden)?);
    let mut unit = Tensor::zeros(spec.dtype, [hidden, hidden])?;
    unit.fill_with(|i| Complex64::new(f64::from(u8::from(i / hidden == i % hidden)), 0.0));
    rows.insert("g_dot", unit);
    let image = Program::new(&tape, &[dot], options())?.run(&[&subject.params, &rows])?.remove(0);
    let jacobian = Mat::<c64>::from_fn(hidden, hidden, |i, j| c64::new(image.get(j * hidden + i).re, 0.0));
    let eigenvalues =
        jacobian.eigenvalues().map_err(|e| Error::config("diagnose", format!("eigenvalues: {e:?}")))?;
    let eigenvalues: Vec<Complex64> = eigenvalues.into_iter().map(|z| Complex64::new(z.re, z.im)).collect();
    let rightmost = eigenvalues.iter().map(|z| z.re).fold(f64::NEG_INFINITY, f64::max);

    let mut measured = Measured::default();
    measured.number("residual", number(residual));
    measured.number("linear_rate", number(rate));
    measured.number("step_size", RATE);
    measured.number("largest_real_part", number(rightmost));
    measured.lines.push(format!(
        "‖F(g)‖ = {residual:.3e} after {STEPS} steps of size {RATE}, shrinking by {rate:.4} a step"
    ));
    let stable = if rightmost < 0.0 { "attracts" } else { "does not attract" };
    measured.lines.push(format!("largest real part of ∂F/∂g {rightmost:.4}: the equilibrium {stable}"));
    let mut table = Table::new(["real", "imaginary"]);
    eigenvalues.iter().for_each(|z| table.push([number(z.re), number(z.im)]));
    measured.tables.push(("equilibrium", table));
    let mut table = Table::new(["k", "distance"]);
    away.iter().enumerate().for_each(|(k, d)| table.push([k.into(), number(*d)]));
    measured.tables.push(("convergence", table));
    let title = format!("Jacobian at the equilibrium, {}", subject.config.network());
    measured
        .pictures
        .push(("equilibrium", scatter(&title, &[("eigenvalues of ∂F/∂g".into(), eigenvalues)], false)));
    measured.chart(
        "convergence",
        &Chart {
            title: format!("inner steps toward the equilibrium, {}", subject.config.network()),
            x_label: "k".into(),
            y_label: "‖g_k − g*‖".into(),
            log_x: false,
            log_y: true,
            series: vec![Series { name: format!("steps of size {RATE}"), points: seen }],
            baseline: None,
        },
    );
    Ok(measured)
}

/// The state before the last step of the first row and what it reads there, in `count` rows; `g_dot` is 0.
fn at_the_last_step(subject: &Subject, tape: &Tape, count: usize) -> Result<Params> {
    let recorded = subject.record()?;
    let (steps, rows) = (subject.steps(), subject.rows());
    let first_layer: Vec<_> = recorded.probes.iter().filter(|p| p.layer == 0).collect();
    let histories: Vec<Var> = first_layer.iter().map(|p| p.history).collect();
    let found =
        subject.program(&recorded, &histories)?.run(&[&subject.params, &subject.inputs(&recorded)?])?;
    let mut values = Params::new();
    for (probe, history) in first_layer.iter().zip(&found) {
        let width = history.len() / (steps * rows);
        let mut state = Tensor::zeros(history.dtype(), [count, width])?;
        if steps > 1 {
            state.fill_with(|i| history.get((steps - 2) * rows * width + i % width));
        }
        values.insert(format!("h.{}", probe.part), state);
    }
    let x = subject.x_at(steps - 1)?;
    let width = x.len() / rows;
    let dims: Vec<usize> = std::iter::once(count).chain(x.dims()[2..].iter().copied()).collect();
    let mut copies = Tensor::zeros(x.dtype(), dims)?;
    copies.fill_with(|i| x.get(i % width));
    values.insert("x", copies);
    for (name, _, ty) in tape.inputs().filter(|(name, ..)| *name == "g_dot") {
        values.insert(name, Tensor::zeros(ty.dtype, [count, ty.shape.width()])?);
    }
    Ok(values)
}

fn row(dtype: DType, g: &[f64], count: usize) -> Result<Tensor> {
    let mut tensor = Tensor::zeros(dtype, [count, g.len()])?;
    tensor.fill_with(|i| Complex64::new(g[i % g.len()], 0.0));
    Ok(tensor)
}
