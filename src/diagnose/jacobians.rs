//! How far the last state depends on earlier ones.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use retrograd_engine::{DType, Params, Shape, Tensor, Var, vjp};

use super::subject::{Subject, real_width};
use super::{Measured, Options, Table, number};
use crate::run::{Chart, Result, Series};

/// Frobenius norms `‖∂h_T/∂h_t‖` of the whole state over `t`, the root of their mean square over rows; and the ratio of
/// the paper, `‖∂h_T/∂h_{T−1}‖ / ‖∂h_T/∂h_1‖`.
///
/// `‖J‖² = E ‖Jᵀ v‖²` over vectors `v` of independent signs (Hutchinson 1990); a state of no more numbers than samples is
/// measured exactly, a unit vector at a time.
pub(super) fn measure(subject: &Subject, options: &Options) -> Result<Measured> {
    let (steps, rows) = (subject.steps(), subject.rows());
    if steps < 3 {
        return Ok(Measured::nothing(format!("sequences of {steps} steps, at least 3")));
    }
    let mut recorded = subject.record()?;
    let probes: Vec<Var> = recorded.probes.iter().map(|p| p.var).collect();
    let mut seeds = Vec::new();
    let mut shapes = Vec::new();
    for slot in recorded.states.clone() {
        let name = slot.input.replace("state", "seed");
        let seed = recorded.tape.input(&name, slot.dtype, Shape::rows([slot.width]))?;
        seeds.push((slot.last, seed));
        shapes.push((name, slot.dtype, slot.width));
    }
    let bars: Vec<Var> = vjp(&mut recorded.tape, &seeds, &probes)?.into_iter().flatten().collect();
    let mut program = subject.program(&recorded, &bars)?;
    let inputs = subject.inputs(&recorded)?;

    let width: usize = shapes.iter().map(|(_, dtype, width)| real_width(*dtype, *width)).sum();
    let exact = width <= options.samples;
    let count = if exact { width } else { options.samples };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut squares = vec![0.0; steps];
    for sample in 0..count {
        let mut component = 0;
        let mut next = || {
            component += 1;
            match exact {
                true => f64::from(u8::from((component - 1) % width == sample)),
                false => f64::from(rng.next_u32() >> 31) * 2.0 - 1.0,
            }
        };
        let directions = directions(&shapes, rows, &mut next, exact)?;
        for bar in program.run(&[&subject.params, &inputs, &directions])? {
            let step = bar.len() / steps;
            for (t, square) in squares.iter_mut().enumerate() {
                *square += (t * step..(t + 1) * step).map(|i| bar.get(i).norm_sqr()).sum::<f64>();
            }
        }
    }
    let samples = if exact { 1 } else { count };
    let norms: Vec<f64> = squares.iter().map(|s| (s / (samples * rows) as f64).sqrt()).collect();

    let ratio = norms[steps - 2] / norms[0];
    let mut measured = Measured::default();
    measured.number("ratio", number(ratio));
    measured.number("exact", exact);
    measured.number("samples", count);
    let how = if exact { "exact".into() } else { format!("from {count} random directions") };
    measured.lines.push(format!("‖∂h_T/∂h_(T−1)‖ / ‖∂h_T/∂h_1‖ = {ratio:.4e} ({how})"));
    let mut table = Table::new(["t", "norm"]);
    norms.iter().enumerate().for_each(|(t, n)| table.push([(t + 1).into(), number(*n)]));
    measured.tables.push(("jacobians", table));
    let points = norms.iter().enumerate().map(|(t, n)| ((t + 1) as f64, *n)).collect();
    measured.chart(
        "jacobians",
        &Chart {
            title: format!("the last state by earlier ones, {}", subject.config.network()),
            x_label: "t".into(),
            y_label: "‖∂h_T/∂h_t‖".into(),
            log_x: false,
            log_y: true,
            series: vec![Series { name: "Frobenius norm".into(), points }],
            baseline: None,
        },
    );
    Ok(measured)
}

/// One direction for every row: the same unit vector, or signs of their own.
fn directions(
    shapes: &[(String, DType, usize)],
    rows: usize,
    next: &mut dyn FnMut() -> f64,
    same: bool,
) -> Result<Params> {
    let mut directions = Params::new();
    for (name, dtype, width) in shapes {
        let mut row = Vec::new();
        let mut tensor = Tensor::zeros(*dtype, [rows, *width])?;
        let mut pair = || {
            let re = next();
            num_complex::Complex64::new(re, if dtype.is_complex() { next() } else { 0.0 })
        };
        if same {
            row = (0..*width).map(|_| pair()).collect();
        }
        tensor.fill_with(|i| if same { row[i % width] } else { pair() });
        directions.insert(name.clone(), tensor);
    }
    Ok(directions)
}
