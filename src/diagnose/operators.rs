//! The recurrent matrices: singular values, eigenvalues, distance from unitarity, over checkpoints.

use std::sync::{Arc, Mutex, PoisonError};

use faer::{Mat, c64};
use num_complex::Complex64;
use retrograd_cells::model::BoundModel;
use retrograd_cells::{BoundOperator, Declare, Layer, ParamStore, Recurrence, RecurrentOperator};
use retrograd_engine::{Params, Program, RunOptions, Shape, Tape, Tensor, Var};

use super::pictures::scatter;
use super::subject::Subject;
use super::{Measured, Options, Table, number};
use crate::run::{Chart, Error, Result, Series};

/// Matrices of more rows are left out: their spectrum would take minutes.
const LARGEST: usize = 1024;

/// The image of every unit vector under a recurrent matrix, found while a model declares it.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    image: Var,
    n: usize,
}

/// An operator that also notes its matrices.
#[derive(Debug)]
struct Noting {
    operator: Arc<dyn RecurrentOperator>,
    found: Arc<Mutex<Vec<Found>>>,
}

impl RecurrentOperator for Noting {
    fn name(&self) -> &'static str {
        self.operator.name()
    }

    fn declare(
        &self,
        ctx: &mut Declare<'_>,
        recurrence: Recurrence<'_>,
    ) -> retrograd_cells::Result<Box<dyn BoundOperator>> {
        let operator = self.operator.declare(ctx, recurrence)?;
        let n = recurrence.n;
        let unit = input_name(n, recurrence.complex);
        let dtype = ctx.dtype(recurrence.complex);
        // Several layers of one size share their unit vectors.
        let known = ctx.tape().inputs().find(|(name, ..)| *name == unit).map(|(_, v, _)| v);
        let unit = match known {
            Some(v) => v,
            None => ctx.tape().input(&unit, dtype, Shape::rows([n]))?,
        };
        for (gate, name) in recurrence.gates.iter().enumerate() {
            let name = ctx.full_name(&recurrence.gate_name(name));
            let image = operator.apply(ctx.tape(), unit, gate)?;
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(Found { name, image, n });
        }
        Ok(operator)
    }
}

fn input_name(n: usize, complex: bool) -> String {
    format!("unit.{n}.{}", if complex { "complex" } else { "real" })
}

/// What is said of one matrix.
struct Spectrum {
    largest: f64,
    smallest: f64,
    radius: f64,
    distance: f64,
    eigenvalues: Vec<Complex64>,
}

/// `σ_max`, `σ_min`, `σ_max/σ_min`, `max |λ|` and `‖W* W − 1‖_F` of every recurrent matrix, at every checkpoint.
pub(super) fn measure(subject: &Subject, _: &Options) -> Result<Measured> {
    let found: Arc<Mutex<Vec<Found>>> = Arc::default();
    let mut spec = subject.model.clone();
    let noting = |layer: &Layer| {
        let operator = Noting { operator: layer.operator.clone(), found: found.clone() };
        Layer { operator: Arc::new(operator), ..layer.clone() }
    };
    spec.layers = spec.layers.iter().map(noting).collect();
    let mut tape = Tape::new();
    let mut store = ParamStore::new(subject.config.seed, spec.dtype)?;
    BoundModel::declare(&mut Declare::new(&mut tape, &mut store), &spec)?;
    let mut found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let all = found.len();
    found.retain(|f| f.n <= LARGEST);
    if found.is_empty() {
        return Ok(Measured::nothing(match all {
            0 => "the cell has no recurrent matrix".to_string(),
            _ => format!("recurrent matrices of more than {LARGEST} rows"),
        }));
    }

    let mut measured = Measured::default();
    let mut table =
        Table::new(["step", "matrix", "largest", "smallest", "condition", "radius", "unitarity_distance"]);
    let mut eigenvalues = Table::new(["step", "matrix", "real", "imaginary"]);
    let mut curves: Vec<[Vec<(f64, f64)>; 3]> = vec![Default::default(); found.len()];
    let mut last = Vec::new();
    for (step, params) in subject.checkpoints()? {
        last.clear();
        for ((f, image), curves) in found.iter().zip(images(&tape, &found, &params)?).zip(&mut curves) {
            let s =
                spectrum(&image, f.n).map_err(|e| Error::config("diagnose", format!("{}: {e}", f.name)))?;
            let condition = s.largest / s.smallest;
            let name = || serde_json::Value::from(f.name.clone());
            table.push([
                step.into(),
                name(),
                number(s.largest),
                number(s.smallest),
                number(condition),
                number(s.radius),
                number(s.distance),
            ]);
            for z in &s.eigenvalues {
                eigenvalues.push([step.into(), name(), number(z.re), number(z.im)]);
            }
            for (curve, value) in curves.iter_mut().zip([s.largest, s.smallest, s.distance]) {
                curve.push((step as f64, value));
            }
            last.push((f.name.clone(), condition, s));
        }
    }
    let mut points = Vec::new();
    for (name, condition, s) in last {
        measured.number(&format!("{name}.condition"), number(condition));
        measured.number(&format!("{name}.unitarity_distance"), number(s.distance));
        measured.number(&format!("{name}.radius"), number(s.radius));
        measured.lines.push(format!(
            "{name}: singular values {:.4} to {:.4}, condition {condition:.4}, max |λ| {:.4}, ‖W*W − 1‖ {:.3e}",
            s.smallest, s.largest, s.radius, s.distance
        ));
        points.push((name, s.eigenvalues));
    }
    let series = |of: usize, what: &str| -> Vec<Series> {
        let named = found.iter().zip(&curves);
        named.map(|(f, c)| Series { name: format!("{what} {}", f.name), points: c[of].clone() }).collect()
    };
    let chart = |title: &str, y_label: &str, series: Vec<Series>| Chart {
        title: format!("{title}, {}", subject.config.network()),
        x_label: "update".into(),
        y_label: y_label.into(),
        log_x: false,
        log_y: true,
        series,
        baseline: None,
    };
    let ends = [series(0, "largest"), series(1, "smallest")].concat();
    measured.chart("operators", &chart("singular values of recurrent matrices", "singular value", ends));
    let distances = series(2, "");
    measured.chart("unitarity", &chart("distance from unitarity", "‖W*W − 1‖", distances));
    measured.pictures.push((
        "eigenvalues",
        scatter(&format!("eigenvalues of recurrent matrices, {}", subject.config.network()), &points, true),
    ));
    measured.tables.push(("operators", table));
    measured.tables.push(("eigenvalues", eigenvalues));
    if all > found.len() {
        measured.lines.push(format!("{} matrices of more than {LARGEST} rows left out", all - found.len()));
    }
    Ok(measured)
}

/// The image of the unit vectors under each matrix: its transpose.
fn images(tape: &Tape, found: &[Found], params: &Params) -> Result<Vec<Tensor>> {
    let mut images = Vec::new();
    for f in found {
        let mut program = Program::new(tape, &[f.image], RunOptions::default())?;
        let mut inputs = Params::new();
        for (name, _, ty) in tape.inputs() {
            let n = ty.shape.width();
            let mut unit = Tensor::zeros(ty.dtype, [n, n])?;
            unit.fill_with(|i| Complex64::new(f64::from(u8::from(i / n == i % n)), 0.0));
            if n == f.n {
                inputs.insert(name, unit);
            }
        }
        images.extend(program.run(&[params, &inputs])?);
    }
    Ok(images)
}

fn spectrum(image: &Tensor, n: usize) -> std::result::Result<Spectrum, String> {
    if !image.is_finite() {
        return Err("a matrix that is not finite".into());
    }
    let entry = |i: usize, j: usize| image.get(j * n + i);
    let w = Mat::<c64>::from_fn(n, n, |i, j| c64::new(entry(i, j).re, entry(i, j).im));
    let singular = w.singular_values().map_err(|e| format!("singular values: {e:?}"))?;
    let eigenvalues: Vec<Complex64> = w
        .eigenvalues()
        .map_err(|e| format!("eigenvalues: {e:?}"))?
        .into_iter()
        .map(|z| Complex64::new(z.re, z.im))
        .collect();
    let product = w.adjoint() * &w;
    let mut distance = 0.0;
    for i in 0..n {
        for j in 0..n {
            let z = product[(i, j)];
            let z = Complex64::new(z.re - f64::from(u8::from(i == j)), z.im);
            distance += z.norm_sqr();
        }
    }
    let bounds = singular.iter().fold((0.0f64, f64::INFINITY), |(high, low), s| (high.max(*s), low.min(*s)));
    Ok(Spectrum {
        largest: bounds.0,
        smallest: bounds.1,
        radius: eigenvalues.iter().map(|z| z.norm()).fold(0.0, f64::max),
        distance: distance.sqrt(),
        eigenvalues,
    })
}
