//! Lyapunov exponents: how fast nearby states move apart along the data.

use retrograd_cells::{Mode, Model};
use retrograd_engine::{DType, Params, Shape, Tensor, Var, jvp};

use super::subject::{Subject, real_width};
use super::{Measured, Options, Table, number};
use crate::run::{Chart, Result, Series};

/// The largest exponents `λ_i = (1/T) Σ_t ln r_ii(t)` of the whole state (complex numbers as pairs of real ones) along the
/// first row of the batch, in nats a step.
///
/// Benettin, Galgani, Giorgilli, Strelcyn, 1980, "Lyapunov characteristic exponents for smooth dynamical systems",
/// Meccanica 15: tangent vectors go through the step's derivative and are made orthonormal again after every step.
pub(super) fn measure(subject: &Subject, options: &Options) -> Result<Measured> {
    let mut spec = subject.model.clone();
    (spec.stateful, spec.probes, spec.learn_h0) = (true, false, false);
    let mut recorded = Model::new(spec)?.record_for(Mode::Evaluate, subject.config.seed)?;
    let mut seeds = Vec::new();
    for slot in &recorded.states {
        let name = slot.input.replace("state", "tangent");
        let known = recorded.tape.inputs().find(|(n, ..)| *n == slot.input).map(|(_, v, _)| v);
        let Some(state) = known else { continue };
        seeds.push((state, recorded.tape.input(&name, slot.dtype, Shape::rows([slot.width]))?));
    }
    let last: Vec<Var> = recorded.states.iter().map(|slot| slot.last).collect();
    let Ok(dots) = jvp(&mut recorded.tape, &last, &seeds) else {
        return Ok(Measured::nothing("a part of the step has no forward derivative"));
    };
    let Some(dots) = dots.into_iter().collect::<Option<Vec<Var>>>() else {
        return Ok(Measured::nothing("the next state does not depend on the last one"));
    };
    let mut program = subject.program(&recorded, &[last.clone(), dots].concat())?;

    let parts: Vec<(DType, usize)> = recorded.states.iter().map(|s| (s.dtype, s.width)).collect();
    let width: usize = parts.iter().map(|(dtype, width)| real_width(*dtype, *width)).sum();
    let count = options.exponents.min(width).max(1);
    // Rows of a batch do not depend on each other: one tangent vector in each, at copies of one state.
    let mut state = Params::new();
    for slot in &recorded.states {
        let learned =
            slot.input.replace("state.", "layer").rsplit_once('.').map(|(l, p)| format!("{l}.{p}0"));
        let first = learned.and_then(|name| subject.params.get(&name));
        let mut tensor = Tensor::zeros(slot.dtype, [count, slot.width])?;
        if let Some(first) = first.filter(|f| f.len() == slot.width) {
            tensor.fill_with(|i| first.get(i % slot.width));
        }
        state.insert(slot.input.clone(), tensor);
    }
    let mut frame = vec![vec![0.0; width]; count];
    frame.iter_mut().enumerate().for_each(|(i, v)| v[i] = 1.0);
    let mut sums = vec![0.0; count];
    let mut running = vec![Vec::new(); count];
    let mut kept = 0;
    for t in 0..subject.steps() {
        let mut inputs = copies(&subject.x_at(t)?, count)?;
        for (slot, tangent) in recorded.states.iter().zip(tangents(&frame, &parts)?) {
            inputs.insert(slot.input.replace("state", "tangent"), tangent);
        }
        // The loss is not asked for, so its target is not either.
        let out = program.run(&[&subject.params, &state, &inputs])?;
        let (states, dots) = out.split_at(last.len());
        recorded.states.iter().zip(states).for_each(|(slot, s)| state.insert(slot.input.clone(), s.clone()));
        frame = rows(dots, count);
        let lengths = orthonormal(&mut frame);
        if lengths.iter().any(|r| !r.is_finite()) {
            return Ok(Measured::nothing(format!("a derivative that is not finite at step {}", t + 1)));
        }
        kept += 1;
        for (i, r) in lengths.into_iter().enumerate() {
            sums[i] += r.max(f64::MIN_POSITIVE).ln();
            running[i].push(((t + 1) as f64, sums[i] / kept as f64));
        }
    }
    let exponents: Vec<f64> = sums.iter().map(|s| s / kept.max(1) as f64).collect();
    let mut measured = Measured::default();
    measured.number("exponents", exponents.iter().map(|x| number(*x)).collect::<Vec<_>>());
    let list: Vec<String> = exponents.iter().map(|x| format!("{x:.4}")).collect();
    measured.lines.push(format!("{} nats a step over {kept} steps", list.join(", ")));
    let mut table = Table::new(["exponent", "t", "mean"]);
    for (i, points) in running.iter().enumerate() {
        points.iter().for_each(|(t, x)| table.push([(i + 1).into(), number(*t), number(*x)]));
    }
    measured.tables.push(("lyapunov", table));
    let named = running.into_iter().enumerate();
    measured.chart(
        "lyapunov",
        &Chart {
            title: format!("Lyapunov exponents, {}", subject.config.network()),
            x_label: "t".into(),
            y_label: "mean of ln r over steps".into(),
            log_x: false,
            log_y: false,
            series: named.map(|(i, points)| Series { name: format!("λ{}", i + 1), points }).collect(),
            baseline: Some(("neither grows nor shrinks".into(), 0.0)),
        },
    );
    Ok(measured)
}

/// The first row of a step, `count` times.
fn copies(x: &Tensor, count: usize) -> Result<Params> {
    let mut dims = x.dims().to_vec();
    let row = x.bytes() / dims[1].max(1);
    dims[1] = count;
    let mut many = Tensor::zeros(x.dtype(), dims)?;
    many.as_bytes_mut().chunks_exact_mut(row).for_each(|to| to.copy_from_slice(&x.as_bytes()[..row]));
    let mut inputs = Params::new();
    inputs.insert("x", many);
    Ok(inputs)
}

/// Vectors of all real numbers of the state as one tensor for each part.
fn tangents(frame: &[Vec<f64>], parts: &[(DType, usize)]) -> Result<Vec<Tensor>> {
    let mut start = 0;
    parts
        .iter()
        .map(|&(dtype, width)| {
            let mut tensor = Tensor::zeros(dtype, [frame.len(), width])?;
            tensor.fill_with(|i| {
                let (v, c) = (&frame[i / width][start..], i % width);
                match dtype.is_complex() {
                    true => num_complex::Complex64::new(v[2 * c], v[2 * c + 1]),
                    false => num_complex::Complex64::new(v[c], 0.0),
                }
            });
            start += real_width(dtype, width);
            Ok(tensor)
        })
        .collect()
}

/// The inverse of [`tangents`].
fn rows(parts: &[Tensor], count: usize) -> Vec<Vec<f64>> {
    let mut frame = vec![Vec::new(); count];
    for part in parts {
        let width = part.len() / count;
        for (i, v) in frame.iter_mut().enumerate() {
            for z in (i * width..(i + 1) * width).map(|k| part.get(k)) {
                v.push(z.re);
                if part.dtype().is_complex() {
                    v.push(z.im);
                }
            }
        }
    }
    frame
}

/// Gram and Schmidt, twice over for vectors that are nearly parallel; the lengths before.
fn orthonormal(frame: &mut [Vec<f64>]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let mut lengths = Vec::with_capacity(frame.len());
    for i in 0..frame.len() {
        let (before, rest) = frame.split_at_mut(i);
        let v = &mut rest[0];
        for _ in 0..2 {
            for u in before.iter() {
                let along = dot(u, v);
                v.iter_mut().zip(u).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = dot(v, v).sqrt();
        // A direction that is lost altogether stays lost: its exponent is minus infinity, as far as numbers go.
        let divisor = if length > 0.0 { length } else { 1.0 };
        v.iter_mut().for_each(|x| *x /= divisor);
        lengths.push(length);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::orthonormal;

    #[test]
    fn lengths_are_those_of_a_triangle() {
        let mut frame = vec![vec![3.0, 4.0, 0.0], vec![5.0, 0.0, 0.0], vec![0.0, 0.0, -2.0]];
        // The area that the first two span is 20.
        let lengths = orthonormal(&mut frame);
        for (got, want) in lengths.iter().zip([5.0, 4.0, 2.0]) {
            assert!((got - want).abs() < 1e-12, "{got} vs {want}");
        }
        for i in 0..3 {
            for j in 0..3 {
                let dot: f64 = frame[i].iter().zip(&frame[j]).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }
}
