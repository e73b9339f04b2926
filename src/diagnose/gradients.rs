//! The norm of the gradient of the loss by every state.

use retrograd_engine::{Var, grad};

use super::subject::Subject;
use super::{Measured, Options, Table, number};
use crate::run::{Chart, Result, Series};

/// `‖∂L/∂h_t‖` of each layer over `t`: `L` is the loss of a row, the norm is over all parts of the layer's state, the
/// mean is over rows.
pub(super) fn measure(subject: &Subject, _: &Options) -> Result<Measured> {
    let mut recorded = subject.record()?;
    let probes: Vec<Var> = recorded.probes.iter().map(|p| p.var).collect();
    let bars = grad(&mut recorded.tape, recorded.loss_sum, &probes)?;
    let inputs = subject.inputs(&recorded)?;
    let found = subject.program(&recorded, &bars)?.run(&[&subject.params, &inputs])?;

    let (steps, rows) = (subject.steps(), subject.rows());
    let layers = recorded.probes.iter().map(|p| p.layer + 1).max().unwrap_or(0);
    let mut norms = vec![vec![0.0; steps]; layers];
    for layer in 0..layers {
        let mut squares = vec![0.0; steps * rows];
        for (_, bar) in recorded.probes.iter().zip(&found).filter(|(p, _)| p.layer == layer) {
            let width = bar.len() / (steps * rows);
            for (at, square) in squares.iter_mut().enumerate() {
                *square += (0..width).map(|c| bar.get(at * width + c).norm_sqr()).sum::<f64>();
            }
        }
        for (t, norm) in norms[layer].iter_mut().enumerate() {
            *norm = squares[t * rows..][..rows].iter().map(|s| s.sqrt()).sum::<f64>() / rows as f64;
        }
    }
    let mut measured = Measured::default();
    let mut table = Table::new(["layer", "t", "norm"]);
    let mut series = Vec::new();
    for (layer, norms) in norms.iter().enumerate() {
        for (t, norm) in norms.iter().enumerate() {
            table.push([layer.into(), (t + 1).into(), number(*norm)]);
        }
        let points = norms.iter().enumerate().map(|(t, n)| ((t + 1) as f64, *n)).collect();
        series.push(Series { name: format!("layer {layer}"), points });
        let (first, last) = (norms[0], norms[steps - 1]);
        measured.number(&format!("layer{layer}.first"), number(first));
        measured.number(&format!("layer{layer}.last"), number(last));
        measured.lines.push(format!("layer {layer}: {first:.3e} at the first step, {last:.3e} at the last"));
    }
    measured.chart(
        "gradients",
        &Chart {
            title: format!("gradient of the loss by the state, {}", subject.config.network()),
            x_label: "t".into(),
            y_label: "‖∂L/∂h_t‖".into(),
            log_x: false,
            log_y: true,
            series,
            baseline: None,
        },
    );
    measured.tables.push(("gradients", table));
    Ok(measured)
}
