//! Yelp-5: how many stars a review has.
//!
//! Yelp academic data set (`yelp_academic_dataset_review.json`), as in Kusupati et al. (FastGRNN), NeurIPS 2018 and
//! Kag, Zhang and Saligrama (iRNN), ICLR 2020: the first million reviews, half for training and half for test, each
//! clipped or padded to 300 words of a vocabulary of 20 000.
//!
//! What is not stated, and how it is here: the first half trains; words are runs of letters, digits and apostrophes in
//! lower case; the vocabulary is the most frequent words of the training half, numbered by falling frequency from 2,
//! after 0 for padding and 1 for all other words; padding comes first (`pad=front`), since the class is read after the
//! last step. The last tenth of the training half validates; `split=full` trains on it too.

use std::collections::HashMap;
use std::path::Path;

use retrograd_engine::{DType, Tensor};

use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::{OptionDoc, Options};
use crate::readers::reviews;
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const FOLDER: &str = "yelp/";
const FILES: [&str; 2] = ["yelp_academic_dataset_review.json", "yelp_academic_dataset_review.json.gz"];
const CLASSES: usize = 5;
const PADDING: i32 = 0;
const UNKNOWN: i32 = 1;
/// Number of the most frequent word.
const FIRST_WORD: i32 = 2;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "yelp-5",
    summary: "Yelp reviews: one to five stars from 300 words",
    options: &[
        OptionDoc::new("reviews", "1000000", "read so many reviews; half trains, half tests"),
        OptionDoc::new("vocabulary", "20000", "words, with that for padding and that for all others"),
        OptionDoc::new("T", "300", "words of a review"),
        OptionDoc::new("pad", "front", "where short reviews are padded: front or back"),
        OptionDoc::new("split", "holdout", "holdout: the last tenth validates; full: it is also trained on"),
        OptionDoc::new("train", "all", "use only so many training reviews"),
        OptionDoc::new("valid", "all", "use only so many validation reviews"),
        OptionDoc::new("test", "all", "use only so many test reviews"),
    ],
    needs: &[FOLDER],
    module: module_path!(),
    build,
};

struct Yelp {
    spec: TaskSpec,
    examples: Examples,
    /// First review of each split.
    first: [usize; 3],
    /// Words of each review, at most `steps`.
    reviews: Vec<Box<[i32]>>,
    classes: Vec<u8>,
    steps: usize,
    front: bool,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let most = s.integer("reviews", 4..=100_000_000)?;
    let vocabulary = s.integer("vocabulary", 3..=10_000_000)?;
    let steps = s.integer("T", 1..=100_000)?;
    let front = s.choice("pad", &["front", "back"])? == "front";
    let full = s.choice("split", &["holdout", "full"])? == "full";
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];
    let folder = data_dir::find_folder(options.data(), FOLDER)?;
    let path = FILES.map(|f| folder.join(f));
    let path = path.iter().find(|p| p.is_file()).unwrap_or(&path[0]);

    // How many there are decides which half a review is in, so they are counted before words are.
    let count = reviews::for_each(path, most, |_, _| Ok(()))?;
    if count < 4 {
        return Err(Error::data(path, format!("{count} reviews, expected 4 or more")));
    }
    let half = count / 2;
    let numbers = most_frequent(path, half, vocabulary - FIRST_WORD as usize)?;
    let (mut texts, mut classes) = (Vec::new(), Vec::new());
    reviews::for_each(path, count, |review, class| {
        texts.push(review.words().take(steps).map(|w| numbers.get(&w).copied().unwrap_or(UNKNOWN)).collect());
        classes.push(class);
        Ok(())
    })?;

    let held_out = (half / 10).max(1);
    let full_sizes = [if full { half } else { half - held_out }, held_out, count - half];
    let sizes = std::array::from_fn(|i| limits[i].map_or(full_sizes[i], |l| l.min(full_sizes[i])));
    let loss = Loss::SoftmaxCrossEntropy { classes: CLASSES };
    let spec = TaskSpec::new(ENTRY.name, Input::Index { vocabulary }, loss, At::Last, Metric::Accuracy)
        .with_baseline((CLASSES as f64).ln(), "finds all numbers of stars equally likely")
        .with_steps(steps);
    let first = [0, half - held_out, half];
    Ok(Box::new(Yelp {
        spec,
        examples: Examples::new(ENTRY.name, sizes),
        first,
        reviews: texts,
        classes,
        steps,
        front,
    }))
}

/// Numbers of the most frequent words of the first `half` reviews, equals in alphabetical order.
fn most_frequent(path: &Path, half: usize, most: usize) -> Result<HashMap<String, i32>> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    reviews::for_each(path, half, |review, _| {
        review.words().for_each(|word| *counts.entry(word).or_default() += 1);
        Ok(())
    })?;
    let mut order: Vec<(String, usize)> = counts.into_iter().collect();
    order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    order.truncate(most);
    Ok(order.into_iter().zip(FIRST_WORD..).map(|((word, _), number)| (word, number)).collect())
}

impl Task for Yelp {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.examples.pick(request)?;
        let n = rows.len();
        let mut x = Tensor::zeros(DType::I32, [self.steps, n])?;
        let mut target = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys) = (x.as_mut_slice::<i32>()?, target.as_mut_slice::<i32>()?);
        xs.fill(PADDING);
        for (row, &example) in rows.iter().enumerate() {
            let i = self.first[request.split as usize] + example;
            ys[row] = i32::from(self.classes[i]);
            let words = &self.reviews[i];
            let start = if self.front { self.steps - words.len() } else { 0 };
            for (t, &word) in words.iter().enumerate() {
                xs[(start + t) * n + row] = word;
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}
