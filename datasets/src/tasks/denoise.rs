//! Denoising: ten symbols scattered in noise, to be repeated in order after a marker.
//!
//! Jing et al., "Gated Orthogonal Recurrent Units: On Learning to Forget", Neural Computation 2019; used by
//! Chandar et al., "Towards Non-saturating Recurrent Units for Modelling Long-term Dependencies" (NRU), AAAI
//! 2019.
//!
//! Coding `nru`: `T` steps of noise (0) with ten symbols (1..=8) at distinct uniform places, a marker (9),
//! ten steps of noise while the ten symbols are answered; `T + 11` steps, nine classes.
//!
//! Coding `goru` is that of the public code of the former, which differs from its text: nine symbols (1..=9),
//! ten places drawn **with replacement** among `T + 9` (where two meet the later symbol stands, and the
//! target keeps both), and a marker 10 one-hot-encoded in ten places, that is, an input of **zeros**; `T +
//! 20` steps, ten classes, dense input.

use retrograd_engine::{DType, Tensor};

use crate::error::Result;
use crate::examples::{Generated, generated_options};
use crate::options::{OptionDoc, Options};
use crate::random::Random;
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const SYMBOLS: usize = 10;
const WIDTH: usize = 10;
const MARKER: i32 = 9;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "denoise",
    summary: "denoising: ten symbols among T steps of noise, repeated in order",
    options: generated_options![
        OptionDoc::new("T", "100", "length of the noise"),
        OptionDoc::new(
            "coding",
            "nru",
            "nru: as the text says; goru: as the public code of the GORU paper does it"
        ),
    ],
    needs: &[],
    module: module_path!(),
    build,
};

struct Denoise {
    spec: TaskSpec,
    generated: Generated,
    goru: bool,
    /// Steps in which symbols may stand; the marker follows.
    noise: usize,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let length = s.integer("T", SYMBOLS..=100_000_000)?;
    let goru = s.choice("coding", &["nru", "goru"])? == "goru";
    let (noise, alphabet) = if goru { (length + SYMBOLS - 1, 9) } else { (length, 8) };
    let steps = noise + 1 + SYMBOLS;
    let input = if goru { Input::Dense { width: WIDTH } } else { Input::Index { vocabulary: WIDTH } };
    let loss = Loss::SoftmaxCrossEntropy { classes: alphabet + 1 };
    let baseline = SYMBOLS as f64 * (alphabet as f64).ln() / steps as f64;
    let spec = TaskSpec::new(ENTRY.name, input, loss, At::EveryStep, Metric::CrossEntropy)
        .with_baseline(baseline, "knows where the answer is but not its symbols")
        .with_steps(steps);
    Ok(Box::new(Denoise { spec, generated: Generated::new(ENTRY.name, &s)?, goru, noise }))
}

impl Denoise {
    /// Ascending places of the symbols.
    fn places(&self, random: &mut Random) -> [usize; SYMBOLS] {
        let mut places = [0; SYMBOLS];
        for i in 0..SYMBOLS {
            places[i] = if self.goru {
                random.below(self.noise as u32) as usize
            } else {
                // Floyd's sampling: a uniform set of distinct places with ten draws.
                let last = self.noise - SYMBOLS + i;
                let place = random.below(last as u32 + 1) as usize;
                if places[..i].contains(&place) { last } else { place }
            };
        }
        places.sort_unstable();
        places
    }
}

impl Task for Denoise {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.generated.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.generated.rows(request)?;
        let (n, steps) = (rows.len(), self.noise + 1 + SYMBOLS);
        let mut symbols = Tensor::zeros(DType::I32, [steps, n])?;
        let mut target = Tensor::zeros(DType::I32, [steps, n])?;
        let (xs, ys) = (symbols.as_mut_slice::<i32>()?, target.as_mut_slice::<i32>()?);
        for (row, mut random) in rows.into_iter().enumerate() {
            let places = self.places(&mut random);
            for (i, place) in places.into_iter().enumerate() {
                let symbol = 1 + random.below(if self.goru { 9 } else { 8 }) as i32;
                xs[place * n + row] = symbol;
                ys[(self.noise + 1 + i) * n + row] = symbol;
            }
            if !self.goru {
                xs[self.noise * n + row] = MARKER;
            }
        }
        let x = if self.goru { self.one_hot(xs, n)? } else { symbols };
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}

impl Denoise {
    /// One-hot inputs, zeros at the step of the marker.
    fn one_hot(&self, symbols: &[i32], n: usize) -> Result<Tensor> {
        let mut x = Tensor::zeros(DType::F32, [symbols.len() / n.max(1), n, WIDTH])?;
        let marker = self.noise * n..(self.noise + 1) * n;
        for (i, (row, &symbol)) in x.as_mut_slice::<f32>()?.chunks_exact_mut(WIDTH).zip(symbols).enumerate() {
            if !marker.contains(&i) {
                row[symbol as usize] = 1.0;
            }
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request { split: Split::Valid, batch_size: 200, epoch: 0, index: 0, seed: 0 };

    #[test]
    fn as_the_text_says() -> Result<()> {
        let task = build(&Options::new().with("T", 30))?;
        let batch = task.batch(&REQUEST)?;
        assert_eq!(batch.x.dims(), [41, 200]);
        let (x, y) = (batch.x.as_slice::<i32>()?, batch.target.as_slice::<i32>()?);
        let mut used = [0; 30];
        for row in 0..200 {
            let symbols: Vec<i32> = (0..30).map(|t| x[t * 200 + row]).filter(|s| *s != 0).collect();
            (0..30).for_each(|t| used[t] += usize::from(x[t * 200 + row] != 0));
            assert_eq!(symbols, (31..41).map(|t| y[t * 200 + row]).collect::<Vec<_>>());
            assert!(symbols.len() == SYMBOLS && symbols.iter().all(|s| (1..=8).contains(s)));
            assert_eq!(x[30 * 200 + row], MARKER);
            assert!((0..31).all(|t| y[t * 200 + row] == 0) && (31..41).all(|t| x[t * 200 + row] == 0));
        }
        // Each place is used in a third of the rows; five standard deviations.
        assert!(used.iter().all(|&u| (u as f64 - 200.0 / 3.0).abs() < 5.0 * 6.7), "{used:?}");
        let baseline = task.spec().baseline.unwrap_or(f64::NAN);
        assert!((baseline - 10.0 * 8f64.ln() / 41.0).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn as_the_public_code_does() -> Result<()> {
        let task = build(&Options::new().with("T", 30).with("coding", "goru"))?;
        let batch = task.batch(&REQUEST)?;
        assert_eq!(batch.x.dims(), [50, 200, 10]);
        let (x, y) = (batch.x.as_slice::<f32>()?, batch.target.as_slice::<i32>()?);
        let mut dropped = 0;
        for row in 0..200 {
            let step = |t: usize| &x[(t * 200 + row) * 10..][..10];
            let symbols: Vec<usize> = (0..39).filter_map(|t| (1..10).find(|&k| step(t)[k] == 1.0)).collect();
            dropped += SYMBOLS - symbols.len();
            assert!(step(39).iter().all(|v| *v == 0.0));
            assert!((40..50).all(|t| step(t)[0] == 1.0 && (1..=9).contains(&y[t * 200 + row])));
        }
        assert!(dropped > 0);
        // Value printed by that code: 10 ln 9 / (T + 20).
        let baseline = task.spec().baseline.unwrap_or(f64::NAN);
        assert!((baseline - 10.0 * 9f64.ln() / 50.0).abs() < 1e-12);
        Ok(())
    }
}
