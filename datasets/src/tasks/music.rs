//! Polyphonic music: the notes of the next time step from those before.
//!
//! Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences",
//! ICML 2012 (data and splits); protocol of Chung et al., "Empirical Evaluation of Gated Recurrent Neural
//! Networks on Sequence Modeling", 2014, also that of Jose, Cisse and Fleuret, ICML 2018.
//!
//! `x [T,N,88]` holds 1 where a note sounds; step `t` predicts step `t + 1` with 88 independent sigmoids.
//! Sequences are whole, padded to the longest of the batch, with mask and lengths. Reported: negative
//! log-likelihood summed over the 88 notes and averaged over **all** predicted frames of a split (not first
//! over each sequence). `first=zero` puts a silent frame in front, so that the first frame is predicted as
//! well, as in the first of these papers. The baseline knows how frequent each note is in the training
//! sequences; with `first=zero` it is the published "note 1-gram".

use retrograd_engine::{DType, Tensor};

use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::{OptionDoc, Options};
use crate::readers::music::{self, Frame, NOTES};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const OPTIONS: &[OptionDoc] = &[
    OptionDoc::new(
        "first",
        "skip",
        "first frame of a sequence: skip (only read), or zero (predicted from silence)",
    ),
    OptionDoc::new("chunk", "all", "cut training sequences into pieces of so many predicted frames"),
    OptionDoc::new("train", "all", "use only so many training sequences"),
    OptionDoc::new("valid", "all", "use only so many validation sequences"),
    OptionDoc::new("test", "all", "use only so many test sequences"),
];

macro_rules! entry {
    ($name:literal, $file:literal, $summary:literal) => {{
        fn build(options: &Options) -> Result<Box<dyn Task>> {
            build_as($name, $file, options)
        }
        TaskEntry {
            name: $name,
            summary: $summary,
            options: OPTIONS,
            needs: &[$file],
            module: module_path!(),
            build,
        }
    }};
}

pub(crate) const JSB: TaskEntry =
    entry!("jsb", "music/jsb_chorales.json", "JSB Chorales: next chord of Bach's chorales");
pub(crate) const PIANO_MIDI: TaskEntry =
    entry!("piano-midi", "music/piano_midi.json", "Piano-midi.de: next notes of classical piano music");
pub(crate) const NOTTINGHAM: TaskEntry =
    entry!("nottingham", "music/nottingham.json", "Nottingham: next notes of folk tunes with chords");
pub(crate) const MUSEDATA: TaskEntry =
    entry!("musedata", "music/musedata.json", "MuseData: next notes of orchestral and piano music");

struct Music {
    spec: TaskSpec,
    examples: Examples,
    /// Frames of each sequence; a sequence of `F` frames predicts `F - 1`.
    sequences: [Vec<Vec<Frame>>; 3],
}

fn build_as(name: &'static str, file: &'static str, options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(name, OPTIONS)?;
    let silent_start = s.choice("first", &["skip", "zero"])? == "zero";
    let chunk = s.limit("chunk")?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];

    let path = data_dir::find(options.data(), file)?;
    let rolls = music::read(&path)?;
    let mut sequences = [rolls.train, rolls.valid, rolls.test];
    for (split, limit) in limits.into_iter().enumerate() {
        let sequences = &mut sequences[split];
        sequences.truncate(limit.unwrap_or(usize::MAX));
        if silent_start {
            sequences.iter_mut().for_each(|s| s.insert(0, Frame::default()));
        }
        if let (0, Some(chunk)) = (split, chunk) {
            *sequences = sequences.iter().flat_map(|s| pieces(s, chunk)).collect();
        }
        sequences.retain(|s| s.len() > 1);
        if sequences.is_empty() {
            return Err(Error::data(
                &path,
                format!("no {} sequence has a frame to predict", Split::ALL[split]),
            ));
        }
    }
    let loss = Loss::BinaryCrossEntropy { width: NOTES };
    let spec = TaskSpec::new(name, Input::Dense { width: NOTES }, loss, At::EveryStep, Metric::FrameNll)
        .with_baseline(note_loss(&sequences[0], &sequences[2]), "knows how frequent each note is");
    let sizes = std::array::from_fn(|split| sequences[split].len());
    Ok(Box::new(Music { spec, examples: Examples::new(name, sizes), sequences }))
}

/// Pieces that predict at most `chunk` frames each and together what the whole predicts: neighbors share a
/// frame.
fn pieces(sequence: &[Frame], chunk: usize) -> impl Iterator<Item = Vec<Frame>> {
    let predicted = sequence.len().saturating_sub(1);
    (0..predicted).step_by(chunk).map(move |i| sequence[i..=predicted.min(i.saturating_add(chunk))].to_vec())
}

/// Mean loss of a predicted frame under the note frequencies of other sequences (one half added to each
/// count).
fn note_loss(train: &[Vec<Frame>], test: &[Vec<Frame>]) -> f64 {
    let count = |sequences: &[Vec<Frame>]| {
        let (mut counts, mut frames) = ([0.0; NOTES], 0.0);
        for frame in sequences.iter().flat_map(|s| &s[1..]) {
            frames += 1.0;
            frame.columns().for_each(|c| counts[c] += 1.0);
        }
        (counts, frames)
    };
    let ((trained, n), (tested, m)) = (count(train), count(test));
    let note = |c: usize| {
        let p: f64 = (trained[c] + 0.5) / (n + 1.0);
        -(tested[c] * p.ln() + (m - tested[c]) * (-p).ln_1p())
    };
    (0..NOTES).map(note).sum::<f64>() / m
}

impl Task for Music {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let picked = self.examples.pick(request)?;
        let rows: Vec<&[Frame]> =
            picked.into_iter().map(|i| &self.sequences[request.split as usize][i][..]).collect();
        let n = rows.len();
        let steps = rows.iter().map(|r| r.len() - 1).max().unwrap_or(0);
        let mut x = Tensor::zeros(DType::F32, [steps, n, NOTES])?;
        let mut target = Tensor::zeros(DType::F32, [steps, n, NOTES])?;
        let mut mask = Tensor::zeros(DType::F32, [steps, n])?;
        let mut lengths = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys, ms) =
            (x.as_mut_slice::<f32>()?, target.as_mut_slice::<f32>()?, mask.as_mut_slice::<f32>()?);
        let ls = lengths.as_mut_slice::<i32>()?;
        for (row, frames) in rows.iter().enumerate() {
            ls[row] = frames.len() as i32 - 1;
            for (t, pair) in frames.windows(2).enumerate() {
                let at = t * n + row;
                ms[at] = 1.0;
                pair[0].columns().for_each(|c| xs[at * NOTES + c] = 1.0);
                pair[1].columns().for_each(|c| ys[at * NOTES + c] = 1.0);
            }
        }
        Ok(Batch { x, target, mask: Some(mask), lengths: Some(lengths) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(texts: &str) -> Vec<Frame> {
        serde_json::from_str(texts).unwrap_or_default()
    }

    #[test]
    fn pieces_predict_what_the_whole_predicts() {
        let whole = sequence("[[21],[22],[23],[24],[25],[26]]");
        assert_eq!(whole.len(), 6);
        for chunk in 1..8 {
            let predicted: Vec<Frame> = pieces(&whole, chunk).flat_map(|p| p[1..].to_vec()).collect();
            assert_eq!(predicted, whole[1..], "{chunk}");
            assert!(pieces(&whole, chunk).all(|p| p.len() <= chunk + 1));
        }
        assert_eq!(pieces(&[], 3).count(), 0);
    }

    #[test]
    fn baseline() {
        let train = [sequence("[[],[21],[21],[]]")];
        let test = [sequence("[[],[21],[]]")];
        // Note 21: p = 2.5/4, once on and once off; 87 others: p = 0.5/4, off twice. Over two frames.
        let want = (-(0.625f64).ln() - 0.375f64.ln() - 87.0 * 2.0 * 0.875f64.ln()) / 2.0;
        assert!((note_loss(&train, &test) - want).abs() < 1e-12);
    }
}
