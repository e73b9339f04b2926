//! Adding: the sum of the two numbers that are marked in a long sequence.
//!
//! Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, in the form of Arjovsky,
//! Shah and Bengio, ICML 2016: `x [T,2]`, the first channel uniform on [0, 1), the second 0 but for a 1 at
//! one uniform step of the first half and one of the second half. The target is the sum of the two marked
//! numbers, read after the last step. Always predicting 1 has a mean squared error of `2 · 1/12 = 1/6`.
//!
//! `marks=anywhere` marks two distinct steps of the whole sequence; `test-marks=anywhere` does so for
//! validation and test only, as the public code of the low-rank passthrough networks does.

use retrograd_engine::{DType, Tensor};

use crate::error::Result;
use crate::examples::{Generated, generated_options};
use crate::options::{OptionDoc, Options};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "adding",
    summary: "adding: the sum of two marked numbers among T",
    options: generated_options![
        OptionDoc::new("T", "100", "steps"),
        OptionDoc::new("marks", "halves", "halves: one mark in each half; anywhere: two distinct steps"),
        OptionDoc::new("test-marks", "same", "marks of validation and test: same, halves or anywhere"),
    ],
    needs: &[],
    module: module_path!(),
    build,
};

struct Adding {
    spec: TaskSpec,
    generated: Generated,
    steps: usize,
    halves: [bool; 3],
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let steps = s.integer("T", 2..=100_000_000)?;
    let halves = s.choice("marks", &["halves", "anywhere"])? == "halves";
    let test_halves = match s.choice("test-marks", &["same", "halves", "anywhere"])? {
        "same" => halves,
        word => word == "halves",
    };
    let spec = TaskSpec::new(
        ENTRY.name,
        Input::Dense { width: 2 },
        Loss::SquaredError { width: 1 },
        At::Last,
        Metric::MeanSquaredError,
    )
    .with_baseline(1.0 / 6.0, "always predicts 1")
    .with_steps(steps);
    let generated = Generated::new(ENTRY.name, &s)?;
    Ok(Box::new(Adding { spec, generated, steps, halves: [halves, test_halves, test_halves] }))
}

impl Task for Adding {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.generated.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.generated.rows(request)?;
        let (n, steps, half) = (rows.len(), self.steps, self.steps / 2);
        let mut x = Tensor::zeros(DType::F32, [steps, n, 2])?;
        let mut target = Tensor::zeros(DType::F32, [n, 1])?;
        let (xs, ys) = (x.as_mut_slice::<f32>()?, target.as_mut_slice::<f32>()?);
        for (row, mut random) in rows.into_iter().enumerate() {
            let (first, second) = if self.halves[request.split as usize] {
                (random.below(half as u32) as usize, half + random.below((steps - half) as u32) as usize)
            } else {
                let first = random.below(steps as u32) as usize;
                let other = random.below(steps as u32 - 1) as usize;
                (first, other + usize::from(other >= first))
            };
            for t in 0..steps {
                xs[(t * n + row) * 2] = random.unit();
            }
            for t in [first, second] {
                xs[(t * n + row) * 2 + 1] = 1.0;
                ys[row] += xs[(t * n + row) * 2];
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_baseline() -> Result<()> {
        for (marks, test_marks) in [("halves", "same"), ("anywhere", "same"), ("halves", "anywhere")] {
            let task =
                build(&Options::new().with("T", 21).with("marks", marks).with("test-marks", test_marks))?;
            for split in [Split::Train, Split::Test] {
                let halves = marks == "halves" && (split == Split::Train || test_marks == "same");
                let n = 5000;
                let batch = task.batch(&Request { split, batch_size: n, epoch: 0, index: 0, seed: 1 })?;
                let (x, y) = (batch.x.as_slice::<f32>()?, batch.target.as_slice::<f32>()?);
                let (mut error, mut same_half) = (0.0, 0);
                for row in 0..n {
                    let at = |t: usize, c: usize| x[(t * n + row) * 2 + c];
                    let marked: Vec<usize> = (0..21).filter(|&t| at(t, 1) == 1.0).collect();
                    assert_eq!(marked.len(), 2);
                    assert_eq!(y[row], at(marked[0], 0) + at(marked[1], 0));
                    same_half += usize::from((marked[0] < 10) == (marked[1] < 10));
                    error += f64::from((y[row] - 1.0).powi(2));
                }
                assert_eq!(same_half == 0, halves);
                // The variance of (sum - 1)² is 7/180, so this is four standard errors.
                let mse = error / n as f64;
                assert!((mse - 1.0 / 6.0).abs() < 4.0 * (7.0f64 / 180.0 / n as f64).sqrt(), "{mse}");
            }
        }
        Ok(())
    }
}
