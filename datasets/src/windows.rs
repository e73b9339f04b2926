//! Windows of one length with one class each: recordings of sensors and of single words.

use retrograd_engine::{DType, Tensor};

use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::Settings;
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};

/// Windows `[examples, T, C]` and their classes.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) x: Vec<f32>,
    pub(crate) classes: Vec<u8>,
}

/// A task on windows. Training and validation windows come from one block, test windows from another; features
/// have mean 0 and variance 1 over all steps of the training windows.
pub(crate) struct Windows {
    spec: TaskSpec,
    examples: Examples,
    /// Of training and validation, and of test.
    blocks: [Block; 2],
    /// Windows of each split in its block.
    picked: [Vec<u32>; 3],
    steps: usize,
    width: usize,
}

/// What windows look like.
pub(crate) struct Shape {
    pub(crate) steps: usize,
    pub(crate) width: usize,
    pub(crate) classes: usize,
    /// What the baseline knows.
    pub(crate) baseline_doc: &'static str,
}

impl Windows {
    /// The task of two blocks. `picked` says which windows of the first are for training and validation; options
    /// `train`, `valid` and `test` cut all three. Errors: a split without windows.
    pub(crate) fn new(
        name: &'static str,
        settings: &Settings<'_>,
        shape: Shape,
        mut blocks: [Block; 2],
        picked: [Vec<u32>; 2],
    ) -> Result<Windows> {
        let Shape { steps, width, classes, baseline_doc } = shape;
        let [train, valid] = picked;
        let test = (0..blocks[1].classes.len() as u32).collect();
        let mut picked = [train, valid, test];
        for (split, picked) in Split::ALL.into_iter().zip(&mut picked) {
            picked.truncate(settings.limit(split.name())?.unwrap_or(usize::MAX));
            if picked.is_empty() {
                let what = format!("no windows in the {split} split");
                return Err(Error::Request { task: name, what });
            }
        }
        standardize(&mut blocks, &picked[0], steps * width, width);
        let loss = Loss::SoftmaxCrossEntropy { classes };
        let spec = TaskSpec::new(name, Input::Dense { width }, loss, At::Last, Metric::Accuracy)
            .with_baseline((classes as f64).ln(), baseline_doc)
            .with_steps(steps);
        let examples = Examples::new(name, std::array::from_fn(|i| picked[i].len()));
        Ok(Windows { spec, examples, blocks, picked, steps, width })
    }
}

/// The first windows for training and the last fifth for validation; with `full` all for training, and the same fifth
/// for validation, so that validation windows are also trained on.
pub(crate) fn holdout(order: Vec<u32>, full: bool) -> [Vec<u32>; 2] {
    let end = order.len() - order.len() / 5;
    let valid = order[end..].to_vec();
    let mut train = order;
    if !full {
        train.truncate(end);
    }
    [train, valid]
}

/// Takes mean and standard deviation of each feature over the training windows out of all windows. A feature that
/// never changes becomes 0.
fn standardize(blocks: &mut [Block; 2], train: &[u32], window: usize, width: usize) {
    let (mut sums, mut squares) = (vec![0.0f64; width], vec![0.0f64; width]);
    // Moments about the first window's first step: no cancellation where a mean is large.
    let origin: Vec<f32> = blocks[0].x[train[0] as usize * window..][..width].to_vec();
    for &i in train {
        for step in blocks[0].x[i as usize * window..][..window].chunks_exact(width) {
            for c in 0..width {
                let x = f64::from(step[c]) - f64::from(origin[c]);
                sums[c] += x;
                squares[c] += x * x;
            }
        }
    }
    let count = (train.len() * window / width) as f64;
    let moments = |c: usize| {
        let mean = sums[c] / count;
        let variance = (squares[c] / count - mean * mean).max(0.0);
        let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
        (mean + f64::from(origin[c]), scale)
    };
    let moments: Vec<(f64, f64)> = (0..width).map(moments).collect();
    for step in blocks.iter_mut().flat_map(|b| b.x.chunks_exact_mut(width)) {
        for (x, (mean, scale)) in step.iter_mut().zip(&moments) {
            *x = ((f64::from(*x) - mean) * scale) as f32;
        }
    }
}

impl Task for Windows {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.examples.pick(request)?;
        let (n, width) = (rows.len(), self.width);
        let block = &self.blocks[usize::from(request.split == Split::Test)];
        let mut x = Tensor::zeros(DType::F32, [self.steps, n, width])?;
        let mut target = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys) = (x.as_mut_slice::<f32>()?, target.as_mut_slice::<i32>()?);
        for (row, &example) in rows.iter().enumerate() {
            let i = self.picked[request.split as usize][example] as usize;
            ys[row] = i32::from(block.classes[i]);
            let window = &block.x[i * self.steps * width..][..self.steps * width];
            for (t, step) in window.chunks_exact(width).enumerate() {
                xs[(t * n + row) * width..][..width].copy_from_slice(step);
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_the_training_windows_alone() {
        let x = vec![1e6, 5.0, 1e6 + 2.0, 5.0, 7.0, 9.0];
        let mut blocks =
            [Block { x, classes: vec![0; 3] }, Block { x: vec![1e6 + 1.0, 5.0], classes: vec![0] }];
        standardize(&mut blocks, &[0, 1], 2, 2);
        assert_eq!(blocks[0].x[..4], [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(blocks[1].x, [0.0, 0.0]);
    }

    #[test]
    fn the_last_fifth_is_held_out() {
        let order: Vec<u32> = (0..11).collect();
        assert_eq!(holdout(order.clone(), false), [(0..9).collect::<Vec<_>>(), vec![9, 10]]);
        assert_eq!(holdout(order.clone(), true), [order, vec![9, 10]]);
    }
}
