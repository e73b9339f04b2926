//! Copy memory: ten symbols, a long gap, then the same ten symbols from memory.
//!
//! Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, in the form of Arjovsky,
//! Shah and Bengio, "Unitary Evolution Recurrent Neural Networks", ICML 2016. Sequences have `T + 20` steps:
//!
//! ```text
//! step    0 .. ℓ-1   ℓ .. ℓ+lag-2   ℓ+lag-1     ℓ+lag .. 2ℓ+lag-1    .. T+19
//! input   symbols    blank          delimiter   blank                blank
//! target  blank      blank          blank       symbols              blank
//! ```
//!
//! | variant | ℓ | lag | source |
//! |---|---|---|---|
//! | `fixed` | 10 | T | Arjovsky et al. 2016; Jose, Cisse, Fleuret (KRU), ICML 2018 |
//! | `variable-length` | uniform on 1..=10 | T | Danihelka et al., ICML 2016 |
//! | `variable-lag` | 10 | uniform on 1..=T | Henaff et al., ICML 2016; Chandar et al. (NRU), AAAI 2019 |
//!
//! Every position counts in the loss. Coding `kru`: blank 0, symbols 1..=8, delimiter 9, read-out of 9
//! classes. Coding `lrd` (low-rank plus diagonal passthrough networks): symbols 0..=7, blank 8, delimiter 9,
//! 10 classes.

use retrograd_engine::{DType, Tensor};

use crate::error::Result;
use crate::examples::{Generated, generated_options};
use crate::options::{OptionDoc, Options};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const SYMBOLS: usize = 10;
const ALPHABET: u32 = 8;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "copy",
    summary: "copy memory: repeat ten symbols after a gap of T steps",
    options: generated_options![
        OptionDoc::new("T", "100", "gap; sequences have T + 20 steps"),
        OptionDoc::new(
            "variant",
            "fixed",
            "fixed, variable-length (1 to 10 symbols) or variable-lag (1 to T)"
        ),
        OptionDoc::new(
            "coding",
            "kru",
            "kru: blank 0, symbols 1-8, 9 classes; lrd: symbols 0-7, blank 8, 10 classes"
        ),
    ],
    needs: &[],
    module: module_path!(),
    build,
};

#[derive(Clone, Copy, PartialEq)]
enum Variant {
    Fixed,
    VariableLength,
    VariableLag,
}

struct Copy {
    spec: TaskSpec,
    generated: Generated,
    gap: usize,
    variant: Variant,
    blank: i32,
    first_symbol: i32,
}

const DELIMITER: i32 = 9;

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let gap = s.integer("T", 1..=100_000_000)?;
    let variant = match s.choice("variant", &["fixed", "variable-length", "variable-lag"])? {
        "variable-length" => Variant::VariableLength,
        "variable-lag" => Variant::VariableLag,
        _ => Variant::Fixed,
    };
    let (blank, first_symbol, classes) = match s.choice("coding", &["kru", "lrd"])? {
        "lrd" => (8, 0, 10),
        _ => (0, 1, 9),
    };
    let steps = gap + 2 * SYMBOLS;
    let symbols =
        if variant == Variant::VariableLength { (1.0 + SYMBOLS as f64) / 2.0 } else { SYMBOLS as f64 };
    let spec = TaskSpec::new(
        ENTRY.name,
        Input::Index { vocabulary: 10 },
        Loss::SoftmaxCrossEntropy { classes },
        At::EveryStep,
        Metric::CrossEntropy,
    )
    .with_baseline(
        symbols * f64::from(ALPHABET).ln() / steps as f64,
        "knows where the answer is but not its symbols",
    )
    .with_steps(steps);
    Ok(Box::new(Copy { spec, generated: Generated::new(ENTRY.name, &s)?, gap, variant, blank, first_symbol }))
}

impl Task for Copy {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.generated.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.generated.rows(request)?;
        let (n, steps) = (rows.len(), self.gap + 2 * SYMBOLS);
        let mut x = Tensor::zeros(DType::I32, [steps, n])?;
        let mut target = Tensor::zeros(DType::I32, [steps, n])?;
        let (xs, ys) = (x.as_mut_slice::<i32>()?, target.as_mut_slice::<i32>()?);
        xs.fill(self.blank);
        ys.fill(self.blank);
        for (row, mut random) in rows.into_iter().enumerate() {
            let length = match self.variant {
                Variant::VariableLength => 1 + random.below(SYMBOLS as u32) as usize,
                _ => SYMBOLS,
            };
            let lag = match self.variant {
                Variant::VariableLag => 1 + random.below(self.gap as u32) as usize,
                _ => self.gap,
            };
            for i in 0..length {
                let symbol = self.first_symbol + random.below(ALPHABET) as i32;
                xs[i * n + row] = symbol;
                ys[(length + lag + i) * n + row] = symbol;
            }
            xs[(length + lag - 1) * n + row] = DELIMITER;
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(tensor: &Tensor, row: usize) -> Result<Vec<i32>> {
        let n = tensor.dims()[1];
        Ok(tensor.as_slice::<i32>()?.iter().skip(row).step_by(n).copied().collect())
    }

    /// Baselines 10 ln 8 / (T + 20) as printed in the papers that use the task.
    #[test]
    fn baselines() -> Result<()> {
        let table = [
            (100, 0.17329),
            (200, 0.09452),
            (300, 0.06498),
            (500, 0.03999),
            (1000, 0.02039),
            (2000, 0.01029),
        ];
        for (gap, value) in table {
            let task = build(&Options::new().with("T", gap))?;
            let baseline = task.spec().baseline.unwrap_or(f64::NAN);
            assert!((baseline - value).abs() < 5e-6, "T={gap}: {baseline} vs {value}");
        }
        Ok(())
    }

    #[test]
    fn layout_of_each_variant() -> Result<()> {
        for variant in ["fixed", "variable-length", "variable-lag"] {
            for (coding, blank, symbols) in [("kru", 0, 1..=8), ("lrd", 8, 0..=7)] {
                let task =
                    build(&Options::new().with("T", 30).with("variant", variant).with("coding", coding))?;
                let request = Request { split: Split::Train, batch_size: 64, epoch: 0, index: 0, seed: 3 };
                let batch = task.batch(&request)?;
                assert_eq!(batch.x.dims(), [50, 64]);
                let mut seen = std::collections::BTreeSet::new();
                for row in 0..64 {
                    let (x, y) = (column(&batch.x, row)?, column(&batch.target, row)?);
                    let length = x.iter().take_while(|s| **s != blank && **s != DELIMITER).count();
                    let delimiter = x.iter().position(|s| *s == DELIMITER).unwrap_or(usize::MAX);
                    let lag = delimiter + 1 - length;
                    seen.insert((length, lag));
                    assert!(x[..length].iter().all(|s| symbols.contains(s)));
                    assert!(x[length..delimiter].iter().all(|s| *s == blank));
                    assert!(x[delimiter + 1..].iter().all(|s| *s == blank));
                    assert_eq!(y[delimiter + 1..delimiter + 1 + length], x[..length]);
                    assert_eq!(y.iter().filter(|s| **s != blank).count(), length);
                }
                match variant {
                    "fixed" => assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(10, 30)]),
                    "variable-length" => {
                        assert!(
                            seen.len() > 5 && seen.iter().all(|&(l, g)| (1..=10).contains(&l) && g == 30)
                        );
                    }
                    _ => assert!(
                        seen.len() > 10 && seen.iter().all(|&(l, g)| l == 10 && (1..=30).contains(&g))
                    ),
                }
            }
        }
        Ok(())
    }
}
