//! A long text as parallel streams, or as sentences.

use retrograd_engine::{DType, Tensor};

use crate::error::Result;
use crate::examples::{Examples, check};
use crate::task::{Batch, Request, Split};

/// Three texts cut for truncated back-propagation with carried state.
///
/// A text of `L` symbols becomes `N` rows of `⌈L/N⌉`, read in windows of `window` steps. Position `i` of the
/// text predicts symbol `i` from symbol `i - 1` (the first from `start`), so every symbol is predicted
/// exactly once; what is missing at the end of the last rows is padded and masked.
pub(crate) struct Streams {
    pub(crate) task: &'static str,
    pub(crate) texts: [Vec<i32>; 3],
    pub(crate) window: usize,
    pub(crate) start: i32,
}

impl Streams {
    pub(crate) fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.texts[split as usize].len().div_ceil(batch_size.max(1)).div_ceil(self.window)
    }

    pub(crate) fn batch(&self, request: &Request) -> Result<Batch> {
        check(self.task, request, self.batches(request.split, request.batch_size))?;
        let text = &self.texts[request.split as usize];
        let n = request.batch_size;
        let row_length = text.len().div_ceil(n);
        let first = request.index * self.window;
        let steps = self.window.min(row_length - first);
        let mut x = Tensor::zeros(DType::I32, [steps, n])?;
        let mut target = Tensor::zeros(DType::I32, [steps, n])?;
        let mut mask = Tensor::zeros(DType::F32, [steps, n])?;
        let (xs, ys, ms) =
            (x.as_mut_slice::<i32>()?, target.as_mut_slice::<i32>()?, mask.as_mut_slice::<f32>()?);
        let mut scored = 0;
        for t in 0..steps {
            for row in 0..n {
                let (at, i) = (t * n + row, row * row_length + first + t);
                if let Some(&symbol) = text.get(i) {
                    xs[at] = if i == 0 { self.start } else { text[i - 1] };
                    ys[at] = symbol;
                    ms[at] = 1.0;
                    scored += 1;
                }
            }
        }
        Ok(Batch { x, target, mask: (scored < steps * n).then_some(mask), lengths: None })
    }
}

/// Three texts cut into sentences that end with `end`; the state starts afresh for each. Symbol `i` of a
/// sentence is predicted from symbol `i - 1`, the first one from `end`.
pub(crate) struct Sentences {
    texts: [Vec<i32>; 3],
    /// Start and end of each sentence in its text.
    spans: [Vec<(usize, usize)>; 3],
    examples: Examples,
    end: i32,
}

impl Sentences {
    /// Sentences of more than `longest` symbols are clipped, in the training text only.
    pub(crate) fn new(task: &'static str, texts: [Vec<i32>; 3], end: i32, longest: usize) -> Sentences {
        let spans: [Vec<(usize, usize)>; 3] = std::array::from_fn(|split| {
            let mut start = 0;
            texts[split]
                .split_inclusive(|&s| s == end)
                .map(|sentence| {
                    let kept = if split == 0 { sentence.len().min(longest) } else { sentence.len() };
                    let span = (start, start + kept);
                    start += sentence.len();
                    span
                })
                .collect()
        });
        let sizes = std::array::from_fn(|split| spans[split].len());
        Sentences { texts, spans, examples: Examples::new(task, sizes), end }
    }

    pub(crate) fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    pub(crate) fn batch(&self, request: &Request) -> Result<Batch> {
        let text = &self.texts[request.split as usize];
        let picked = self.examples.pick(request)?;
        let rows: Vec<&[i32]> = picked
            .into_iter()
            .map(|i| {
                let (from, to) = self.spans[request.split as usize][i];
                &text[from..to]
            })
            .collect();
        let n = rows.len();
        let steps = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        let mut x = Tensor::zeros(DType::I32, [steps, n])?;
        let mut target = Tensor::zeros(DType::I32, [steps, n])?;
        let mut mask = Tensor::zeros(DType::F32, [steps, n])?;
        let mut lengths = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys, ms) =
            (x.as_mut_slice::<i32>()?, target.as_mut_slice::<i32>()?, mask.as_mut_slice::<f32>()?);
        let ls = lengths.as_mut_slice::<i32>()?;
        for (row, symbols) in rows.iter().enumerate() {
            ls[row] = symbols.len() as i32;
            let mut last = self.end;
            for (t, &symbol) in symbols.iter().enumerate() {
                let at = t * n + row;
                (xs[at], ys[at], ms[at]) = (last, symbol, 1.0);
                last = symbol;
            }
        }
        Ok(Batch { x, target, mask: Some(mask), lengths: Some(lengths) })
    }
}

/// A text cut either way.
pub(crate) enum Cut {
    Streams(Streams),
    Sentences(Sentences),
}

impl Cut {
    pub(crate) fn batches(&self, split: Split, batch_size: usize) -> usize {
        match self {
            Cut::Streams(s) => s.batches(split, batch_size),
            Cut::Sentences(s) => s.batches(split, batch_size),
        }
    }

    pub(crate) fn batch(&self, request: &Request) -> Result<Batch> {
        match self {
            Cut::Streams(s) => s.batch(request),
            Cut::Sentences(s) => s.batch(request),
        }
    }

    /// Number of sequences of a split; a stream is one.
    pub(crate) fn examples(&self, split: Split) -> usize {
        match self {
            Cut::Streams(_) => 1,
            Cut::Sentences(s) => s.batches(split, 1),
        }
    }
}

/// Mean `-ln p` of a text under the symbol frequencies of another (one added to each count).
pub(crate) fn unigram_loss(train: &[i32], test: &[i32], vocabulary: usize) -> f64 {
    let mut counts = vec![1u64; vocabulary];
    train.iter().for_each(|&s| counts[s as usize] += 1);
    let total = (train.len() + vocabulary) as f64;
    test.iter().map(|&s| -(counts[s as usize] as f64 / total).ln()).sum::<f64>() / test.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(batch_size: usize, index: usize) -> Request {
        Request { split: Split::Valid, batch_size, epoch: 0, index, seed: 0 }
    }

    #[test]
    fn every_symbol_is_predicted_once_from_the_one_before() -> Result<()> {
        for length in [1, 5, 23, 24, 25] {
            let text: Vec<i32> = (0..length).collect();
            for (n, window) in [(1, 4), (3, 4), (5, 100), (7, 1), (30, 2)] {
                let texts = [vec![], text.clone(), vec![]];
                let streams = Streams { task: "test", texts, window, start: 99 };
                let mut seen = vec![];
                let mut last_of_row: Vec<Option<i32>> = vec![None; n];
                for index in 0..streams.batches(Split::Valid, n) {
                    let batch = streams.batch(&request(n, index))?;
                    assert_eq!(batch.rows(), n);
                    let (xs, ys) = (batch.x.as_slice::<i32>()?, batch.target.as_slice::<i32>()?);
                    for at in 0..xs.len() {
                        if batch.mask.as_ref().is_none_or(|m| m.get(at).re == 1.0) {
                            assert_eq!(xs[at], if ys[at] == 0 { 99 } else { ys[at] - 1 });
                            // The state carried over belongs to the symbol before.
                            assert!(last_of_row[at % n].is_none_or(|l| l == xs[at]));
                            last_of_row[at % n] = Some(ys[at]);
                            seen.push(ys[at]);
                        }
                    }
                }
                seen.sort_unstable();
                assert_eq!(seen, text);
            }
        }
        Ok(())
    }

    #[test]
    fn sentences_are_whole_and_padded() -> Result<()> {
        let text = vec![5, 6, 0, 7, 0, 8, 8, 8, 0];
        let s = Sentences::new("test", [text.clone(), text, vec![]], 0, 3);
        let batch = s.batch(&request(3, 0))?;
        assert_eq!(batch.lengths.as_ref().map(|l| l.as_slice::<i32>()).transpose()?, Some(&[3, 2, 4][..]));
        assert_eq!(batch.target.as_slice::<i32>()?, [5, 7, 8, 6, 0, 8, 0, 0, 8, 0, 0, 0]);
        assert_eq!(batch.x.as_slice::<i32>()?, [0, 0, 0, 5, 7, 8, 6, 0, 8, 0, 0, 8]);
        assert_eq!(batch.count(crate::task::At::EveryStep), 9.0);
        let train = s.batch(&Request { split: Split::Train, ..request(3, 0) })?;
        assert_eq!(train.count(crate::task::At::EveryStep), 8.0);
        Ok(())
    }

    #[test]
    fn unigram() {
        // Counts 3 + 1 and 1 + 1 of 6.
        let loss = unigram_loss(&[0, 0, 0, 1], &[0, 1], 2);
        assert!((loss + ((4.0f64 / 6.0).ln() + (2.0f64 / 6.0).ln()) / 2.0).abs() < 1e-12);
    }
}
