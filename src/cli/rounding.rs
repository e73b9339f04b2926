//! What keeping values in 16 bits does to a network: its gradients and its record beside the exact ones.

use retrograd::engine::Stash;
use retrograd::run::progress::format_bytes;
use retrograd::{Params, Program, Result, RunOptions, Tape, Tensor, Var};
use serde_json::{Value, json};

/// Gradients with a rounded stash against exact ones.
pub(crate) struct Rounding {
    stash: Stash,
    /// Norm of the difference of all gradients over the norm of the exact ones.
    pub(crate) error: f64,
    /// The parameter whose gradient is furthest off, relative to its own norm.
    pub(crate) worst: (String, f64),
    /// Bytes recorded for the adjoint if all of the sequence is: exactly, rounded.
    pub(crate) bytes: (usize, usize),
}

impl Rounding {
    /// Runs `loss` and its `gradients`, named, once with each stash.
    pub(crate) fn measure(
        tape: &Tape,
        loss: Var,
        gradients: &[(String, Var)],
        values: &[&Params],
        (steps, rows): (usize, usize),
        options: &RunOptions,
    ) -> Result<Rounding> {
        let outputs: Vec<Var> = std::iter::once(loss).chain(gradients.iter().map(|g| g.1)).collect();
        let run = |stash| -> Result<(usize, Vec<Tensor>)> {
            let options = RunOptions { stash, budget: None, ..options.clone() };
            let mut program = Program::new(tape, &outputs, options)?;
            let bytes = program.plan(steps, rows)?.recorded_bytes();
            Ok((bytes, program.run(values)?))
        };
        let (exact, rounded) = (run(Stash::Exact)?, run(options.stash)?);
        let (mut off, mut norm, mut worst) = (0.0, 0.0, (String::new(), 0.0));
        for ((name, _), (got, want)) in gradients.iter().zip(rounded.1[1..].iter().zip(&exact.1[1..])) {
            let sum = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(f).sum::<f64>();
            let difference = sum(&|i| (got.get(i) - want.get(i)).norm_sqr());
            let size = sum(&|i| want.get(i).norm_sqr());
            (off, norm) = (off + difference, norm + size);
            let own = relative(difference, size);
            // A difference that is no number is the worst.
            if worst.0.is_empty() || own > worst.1 || own.is_nan() {
                worst = (name.clone(), own);
            }
        }
        Ok(Rounding { stash: options.stash, error: relative(off, norm), worst, bytes: (exact.0, rounded.0) })
    }

    /// In words.
    pub(crate) fn text(&self) -> String {
        let Rounding { stash, error, worst, bytes } = self;
        format!(
            "{stash} stash: gradients are off by {error:.1e}, that of {} by {:.1e}; recorded {} instead of {}",
            worst.0,
            worst.1,
            format_bytes(bytes.1),
            format_bytes(bytes.0),
        )
    }

    /// The numbers.
    pub(crate) fn json(&self) -> Value {
        json!({
            "stash": self.stash.name(), "gradient_error": self.error,
            "worst": { "parameter": self.worst.0, "gradient_error": self.worst.1 },
            "recorded_bytes": self.bytes.1, "exact_recorded_bytes": self.bytes.0,
        })
    }
}

/// Norm over norm from their squares.
fn relative(difference: f64, size: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
}
