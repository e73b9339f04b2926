//! TIMIT: which phone is spoken in each frame.
//!
//! Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus", LDC93S1, in its own layout
//! (`TRAIN/DR1/FCJF0/SI1027.WAV` in NIST SPHERE and `SI1027.PHN` beside it, in capitals or not). As in Jose, Cisse
//! and Fleuret (KRU), ICML 2018: without the two sentences that everybody reads (`SA`), 3 696 sentences for training
//! of which 184 validate, 1 344 for test; 26 features: logarithm of the energy and 12 cepstra of 26 mel filters,
//! frames of 25 ms every 10 ms, and their differences over time; the phone is that at the middle of the frame.
//!
//! What the paper does not state: the number of classes (61 phones fit its parameter counts), which 184 sentences validate
//! (drawn here with `data-seed`), and the scaling (each feature with mean 0 and variance 1 over the training
//! frames). Sentences are whole, padded to the longest of the batch, with mask and lengths. Reported: percentage of
//! frames. The baseline knows how frequent each phone is in the training sentences.

use std::path::{Path, PathBuf};

use retrograd_engine::{DType, Tensor};

use crate::audio::{Features, Window, differences};
use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::{OptionDoc, Options};
use crate::random::{Purpose, Random};
use crate::readers::sphere::{self, Phone};
use crate::stream::unigram_loss;
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const FOLDER: &str = "timit/";
const RATE: u32 = 16_000;
const FILTERS: usize = 26;
const CEPSTRA: usize = 13;
const WIDTH: usize = 2 * CEPSTRA;
/// The phones of the corpus, in alphabetical order.
const PHONES: [&str; 61] = [
    "aa", "ae", "ah", "ao", "aw", "ax", "ax-h", "axr", "ay", "b", "bcl", "ch", "d", "dcl", "dh", "dx", "eh",
    "el", "em", "en", "eng", "epi", "er", "ey", "f", "g", "gcl", "h#", "hh", "hv", "ih", "ix", "iy", "jh",
    "k", "kcl", "l", "m", "n", "ng", "nx", "ow", "oy", "p", "pau", "pcl", "q", "r", "s", "sh", "t", "tcl",
    "th", "uh", "uw", "ux", "v", "w", "y", "z", "zh",
];

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "timit",
    summary: "TIMIT: which of 61 phones is spoken in each frame",
    options: &[
        OptionDoc::new("held-out", "184", "training sentences that validate"),
        OptionDoc::new("data-seed", "0", "seed of which these are"),
        OptionDoc::new("train", "all", "use only so many training sentences"),
        OptionDoc::new("valid", "all", "use only so many validation sentences"),
        OptionDoc::new("test", "all", "use only so many test sentences"),
    ],
    needs: &[FOLDER],
    module: module_path!(),
    build,
};

/// A sentence: features `[frames, 26]` and the phone of each frame.
struct Sentence {
    x: Vec<f32>,
    phones: Vec<i32>,
}

struct Timit {
    spec: TaskSpec,
    examples: Examples,
    sentences: [Vec<Sentence>; 3],
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let held_out = s.integer("held-out", 1..=3695)?;
    let seed = s.seed("data-seed")?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];
    let folder = data_dir::find_folder(options.data(), FOLDER)?;

    let (mut train, test) = (recordings(&folder, "train")?, recordings(&folder, "test")?);
    if held_out >= train.len() {
        let what = format!("{held_out} of {} training sentences held out", train.len());
        return Err(Error::Request { task: ENTRY.name, what });
    }
    let order = Random::new(Purpose::Setup, seed, Split::Train, 0, 0).order(train.len());
    let valid = order[..held_out].iter().map(|&i| train[i as usize].clone()).collect();
    let mut kept = order[held_out..].to_vec();
    kept.sort_unstable();
    train = kept.iter().map(|&i| train[i as usize].clone()).collect();

    let features = Features::new(RATE, FILTERS, Window::Rectangular);
    let mut sentences: [Vec<Sentence>; 3] = Default::default();
    for (split, mut paths) in [train, valid, test].into_iter().enumerate() {
        paths.truncate(limits[split].unwrap_or(usize::MAX));
        sentences[split] = paths.iter().map(|path| sentence(path, &features)).collect::<Result<_>>()?;
    }
    standardize(&mut sentences);
    let phones = |i: usize| sentences[i].iter().flat_map(|s| &s.phones).copied().collect::<Vec<i32>>();
    let loss = Loss::SoftmaxCrossEntropy { classes: PHONES.len() };
    let spec =
        TaskSpec::new(ENTRY.name, Input::Dense { width: WIDTH }, loss, At::EveryStep, Metric::Accuracy)
            .with_baseline(
                unigram_loss(&phones(0), &phones(2), PHONES.len()),
                "knows how frequent each phone is",
            );
    let sizes = std::array::from_fn(|i| sentences[i].len());
    Ok(Box::new(Timit { spec, examples: Examples::new(ENTRY.name, sizes), sentences }))
}

/// The entries of a folder in alphabetical order, whatever their case.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let list = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))?;
    let mut entries = Vec::new();
    for entry in list {
        let entry = entry.map_err(|e| Error::io(folder, "list", e))?;
        entries.push((entry.file_name().to_string_lossy().to_lowercase(), entry.path()));
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The recordings below `train` or `test`: region, speaker, sentence. Errors: folders that are not there, no
/// recordings.
fn recordings(folder: &Path, part: &str) -> Result<Vec<PathBuf>> {
    let Some((_, part)) = entries(folder)?.into_iter().find(|(name, _)| name == part) else {
        return Err(Error::data(folder, format!("no folder {part} or {}", part.to_uppercase())));
    };
    let mut found = Vec::new();
    for (_, region) in entries(&part)?.into_iter().filter(|(_, path)| path.is_dir()) {
        for (_, speaker) in entries(&region)?.into_iter().filter(|(_, path)| path.is_dir()) {
            let wav = |name: &str| name.ends_with(".wav") && !name.starts_with("sa");
            found.extend(entries(&speaker)?.into_iter().filter(|(name, _)| wav(name)).map(|(_, path)| path));
        }
    }
    match found.is_empty() {
        true => Err(Error::data(part, "no recordings (region/speaker/sentence.wav)")),
        false => Ok(found),
    }
}

fn sentence(path: &Path, features: &Features) -> Result<Sentence> {
    let recording = sphere::read(path)?;
    if recording.rate != RATE {
        return Err(Error::data(path, format!("{} Hz, expected {RATE}", recording.rate)));
    }
    let labels = ["PHN", "phn"].map(|extension| path.with_extension(extension));
    let labels = labels.iter().find(|p| p.is_file()).unwrap_or(&labels[0]);
    let stretches = sphere::phones(labels)?;
    let cepstra = features.cepstra(&recording.samples, CEPSTRA);
    let slopes = differences(&cepstra);
    let x = cepstra.iter().zip(&slopes).flat_map(|(c, d)| c.iter().chain(d)).map(|x| *x as f32).collect();
    let number = |phone: &Phone| {
        PHONES.iter().position(|p| *p == phone.name).map(|i| i as i32).ok_or_else(|| {
            Error::data(labels, format!("phone {:?}, which is none of the corpus's 61", phone.name))
        })
    };
    let numbers: Vec<i32> = stretches.iter().map(number).collect::<Result<_>>()?;
    // Frames after the last stretch, or in a gap between two, belong to the stretch before.
    let phone = |frame: usize| {
        let after = stretches.partition_point(|p| p.from <= features.center(frame));
        numbers[after.saturating_sub(1)]
    };
    Ok(Sentence { x, phones: (0..cepstra.len()).map(phone).collect() })
}

/// Takes mean and deviation of each feature over the training frames out of all frames.
fn standardize(sentences: &mut [Vec<Sentence>; 3]) {
    let (mut sums, mut squares, mut count) = ([0.0; WIDTH], [0.0; WIDTH], 0.0);
    for frame in sentences[0].iter().flat_map(|s| s.x.chunks_exact(WIDTH)) {
        count += 1.0;
        for c in 0..WIDTH {
            sums[c] += f64::from(frame[c]);
            squares[c] += f64::from(frame[c]).powi(2);
        }
    }
    for frame in sentences.iter_mut().flatten().flat_map(|s| s.x.chunks_exact_mut(WIDTH)) {
        for c in 0..WIDTH {
            let mean = sums[c] / count;
            let variance = (squares[c] / count - mean * mean).max(0.0);
            let scale = if variance > 1e-12 { variance.sqrt().recip() } else { 0.0 };
            frame[c] = ((f64::from(frame[c]) - mean) * scale) as f32;
        }
    }
}

impl Task for Timit {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let picked = self.examples.pick(request)?;
        let rows: Vec<&Sentence> =
            picked.into_iter().map(|i| &self.sentences[request.split as usize][i]).collect();
        let n = rows.len();
        let steps = rows.iter().map(|r| r.phones.len()).max().unwrap_or(0);
        let mut x = Tensor::zeros(DType::F32, [steps, n, WIDTH])?;
        let mut target = Tensor::zeros(DType::I32, [steps, n])?;
        let mut mask = Tensor::zeros(DType::F32, [steps, n])?;
        let mut lengths = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys, ms) =
            (x.as_mut_slice::<f32>()?, target.as_mut_slice::<i32>()?, mask.as_mut_slice::<f32>()?);
        let ls = lengths.as_mut_slice::<i32>()?;
        for (row, sentence) in rows.iter().enumerate() {
            ls[row] = sentence.phones.len() as i32;
            for (t, (frame, phone)) in sentence.x.chunks_exact(WIDTH).zip(&sentence.phones).enumerate() {
                let at = t * n + row;
                (ys[at], ms[at]) = (*phone, 1.0);
                xs[at * WIDTH..][..WIDTH].copy_from_slice(frame);
            }
        }
        Ok(Batch { x, target, mask: Some(mask), lengths: Some(lengths) })
    }
}
