//! How each paper scales, splits and permutes MNIST, as far as its text or public code says.
//!
//! | recipe | pixels | train / validation | permutation |
//! |---|---|---|---|
//! | `kru` | /255 | all but the first 5 000 / those | `RandomState(92916).permutation(784)` |
//! | `fcurnn` | /255 | all but the first 5 000 / those | `RandomState(92916).permutation(784)` |
//! | `lrd` | /256 | first 50 000 / last 10 000 | `RandomState(1234)`, third draw |
//! | `nru` | /255 | 50 000 / 10 000 at random | `RandomState(50)`, second draw |
//! | `irnn` | standardized | first 80 % / last 20 % | `RandomState(42).permutation(784)` |
//! | `irnn-full` | standardized | all / last 20 % | `RandomState(42).permutation(784)` |
//! | `eurnn` | /255 | all but the first 5 000 / those | Python 3's `random.shuffle`, seed 2017 |
//! | `ornn` | /256 | 55 000 / 5 000, overlapping | our own |
//!
//! - `kru`: scaling, split and permutation are not stated beyond 55 000 / 5 000 / 10 000 and "random"; these
//!   are those of `fcurnn`, with which that paper compares.
//! - `lrd`: its code reads a file split 50 000 / 10 000 / 10 000 that holds pixels over 256, and draws the
//!   permutation after shuffling the lists of training and validation examples.
//! - `nru`: `RandomState(50).permutation(60000)` cut at 50 000, then `permutation(784)` of the same
//!   generator. 785 steps: the class is read at one more input, of zero.
//! - `irnn`: mean 0 and variance 1 over all training pixels; 20 % held out for tuning. The seed is stated,
//!   the generator is not.
//! - `irnn-full`: the full training set, as for that paper's reported numbers, so validation images are
//!   **also trained on**.
//! - `ornn`: training and validation images come from two **independent** permutations, so they overlap.
//!   Neither these nor the pixels' were published: they are drawn here with a seed of our own.
//!
//! A step `t` reads pixel `permutation[t]`. There is no standard permutation: results under different ones
//! differ. Sizes are those of the 60 000 images; a smaller file is split in the same proportions.

use crate::mt19937::Mt19937;
use crate::random::{Purpose, Random};
use crate::task::Split;

/// Names, in the order of the table above.
pub(crate) const NAMES: &[&str] = &["kru", "fcurnn", "lrd", "nru", "irnn", "irnn-full", "eurnn", "ornn"];

/// What a recipe makes of the images.
pub(crate) struct Recipe {
    /// Value of each grey level.
    pub(crate) levels: [f32; 256],
    /// Images to train on.
    pub(crate) train: Vec<u32>,
    /// Images to validate on.
    pub(crate) valid: Vec<u32>,
    /// Pixel that each step reads.
    pub(crate) permutation: Vec<u32>,
    /// Whether the class is read one step after the last pixel, at an input of zero.
    pub(crate) trailing_zero: bool,
}

/// The recipe of a name of [`NAMES`] for training images of `pixels` pixels each.
pub(crate) fn recipe(name: &str, images: &[u8], pixels: usize) -> Recipe {
    let count = images.len().checked_div(pixels).unwrap_or(0);
    let divided = |by: f32| std::array::from_fn(|level| level as f32 / by);
    let all = |range: std::ops::Range<usize>| range.map(|i| i as u32).collect::<Vec<u32>>();
    // 5 000, 10 000 and 12 000 of 60 000.
    let (twelfth, sixth, fifth) = (count / 12, count / 6, count / 5);
    let head = (all(twelfth..count), all(0..twelfth));
    let (levels, (train, valid), permutation) = match name {
        "lrd" => {
            let (train, valid) = (all(0..count - sixth), all(count - sixth..count));
            let mut mt = Mt19937::numpy(1234);
            mt.numpy_permutation(train.len());
            mt.numpy_permutation(valid.len());
            (divided(256.0), (train, valid), mt.numpy_permutation(pixels))
        }
        "nru" => {
            let mut mt = Mt19937::numpy(50);
            let mut train = mt.numpy_permutation(count);
            let valid = train.split_off(count - sixth);
            (divided(255.0), (train, valid), mt.numpy_permutation(pixels))
        }
        "irnn" | "irnn-full" => {
            let end = if name == "irnn" { count - fifth } else { count };
            let split = (all(0..end), all(count - fifth..count));
            (standardized(images), split, Mt19937::numpy(42).numpy_permutation(pixels))
        }
        "eurnn" => {
            let mut permutation = all(0..pixels);
            Mt19937::python(2017).python_shuffle(&mut permutation);
            (divided(255.0), head, permutation)
        }
        "ornn" => {
            let draw = |index| Random::new(Purpose::Setup, 0, Split::Train, 0, index).order(count);
            let (mut train, mut valid) = (draw(0), draw(1));
            train.truncate(count - twelfth);
            valid.truncate(twelfth);
            let permutation = Random::new(Purpose::Setup, 0, Split::Train, 0, 2).order(pixels);
            (divided(256.0), (train, valid), permutation)
        }
        _ => (divided(255.0), head, Mt19937::numpy(92916).numpy_permutation(pixels)),
    };
    Recipe { levels, train, valid, permutation, trailing_zero: name == "nru" }
}

/// Grey levels with the mean and standard deviation of all pixels taken out.
pub(crate) fn standardized(images: &[u8]) -> [f32; 256] {
    let mut counts = [0u64; 256];
    images.iter().for_each(|&level| counts[usize::from(level)] += 1);
    let total = images.len().max(1) as f64;
    let moment = |power: i32| {
        counts.iter().enumerate().map(|(l, &n)| n as f64 * (l as f64).powi(power)).sum::<f64>() / total
    };
    let mean = moment(1);
    let deviation = (moment(2) - mean * mean).max(0.0).sqrt();
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 1.0 };
    std::array::from_fn(|level| ((level as f64 - mean) * scale) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_splits_60_000() {
        let images: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
        let table = [
            ("kru", 55_000, 5_000, 0),
            ("fcurnn", 55_000, 5_000, 0),
            ("lrd", 50_000, 10_000, 0),
            ("nru", 50_000, 10_000, 0),
            ("irnn", 48_000, 12_000, 0),
            ("irnn-full", 60_000, 12_000, 12_000),
            ("eurnn", 55_000, 5_000, 0),
        ];
        for (name, train, valid, overlap) in table {
            let r = recipe(name, &images, 1);
            assert_eq!((r.train.len(), r.valid.len()), (train, valid), "{name}");
            let trained: std::collections::HashSet<u32> = r.train.iter().copied().collect();
            assert_eq!(trained.len(), train, "{name}");
            assert_eq!(r.valid.iter().filter(|i| trained.contains(i)).count(), overlap, "{name}");
            assert!(r.train.iter().chain(&r.valid).all(|&i| i < 60_000));
        }
        let r = recipe("ornn", &images, 1);
        let trained: std::collections::HashSet<u32> = r.train.iter().copied().collect();
        assert_eq!((r.train.len(), r.valid.len()), (55_000, 5_000));
        // Eleven twelfths of the 5 000 are expected among the training images; five standard deviations.
        let overlap = r.valid.iter().filter(|i| trained.contains(i)).count() as f64;
        assert!((overlap - 5000.0 * 11.0 / 12.0).abs() < 5.0 * 19.6, "{overlap}");
    }

    #[test]
    fn standardized_levels() {
        let levels = standardized(&[0, 0, 255, 255]);
        assert_eq!((levels[0], levels[255]), (-1.0, 1.0));
        assert!(standardized(&[7; 4]).iter().all(|l| l.is_finite()));
    }

    /// First pixels of the permutations after the draws before them; see `mt19937.rs` for the scripts.
    #[test]
    fn permutations() {
        let images = vec![0u8; 60_000 * 784];
        for (name, first) in [
            ("kru", [319, 576, 323, 107, 355, 716]),
            ("fcurnn", [319, 576, 323, 107, 355, 716]),
            ("lrd", [538, 505, 546, 510, 734, 548]),
            ("nru", [46, 466, 537, 44, 515, 589]),
            ("irnn", [598, 590, 209, 637, 174, 213]),
            ("eurnn", [231, 488, 235, 357, 342, 200]),
        ] {
            assert_eq!(recipe(name, &images, 784).permutation[..6], first, "{name}");
        }
    }
}
