//! Single spoken words: Speech Commands with 30 or 12 classes.
//!
//! Warden, "Speech Commands", 2017 (version 0.01): recordings of one second at 16 kHz in a folder for each of 30
//! words; the lists `validation_list.txt` and `testing_list.txt` name the recordings of these splits, all others are
//! for training. As in Kusupati et al. (FastGRNN), NeurIPS 2018 and Kag, Zhang and Saligrama (iRNN), ICLR 2020: 32
//! logarithmic mel filter energies of frames of 25 ms every 10 ms (Hamming window), 99 steps, each feature with mean
//! 0 and variance 1 over the training recordings.
//!
//! - `google-30`: the class is the word; 51 088 for training, 6 835 for test.
//! - `google-12`: ten words, "unknown" (the other twenty words) and "background" (silence): 22 246 and 3 081. Both
//!   totals are those of the tutorial that came with the data, which adds `⌈n/10⌉` recordings of either kind to
//!   the `n` of the ten words; it draws them with a generator of its own, here they are drawn with ours: unknown words
//!   at random among those of the split, background as seconds of the files in `_background_noise_` at random volume.
//!
//! Recordings shorter than a second are followed by zeros, longer ones cut.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::audio::{Features, Window};
use crate::data_dir;
use crate::error::{Error, Result};
use crate::options::{OptionDoc, Options};
use crate::random::{Purpose, Random};
use crate::readers::{self, wav};
use crate::task::{Split, Task};
use crate::tasks::TaskEntry;
use crate::windows::{Block, Shape, Windows};

const FOLDER: &str = "speech_commands/";
const NOISE: &str = "_background_noise_";
const RATE: u32 = 16_000;
const FILTERS: usize = 32;
/// The ten words of `google-12` come first.
const WORDS: [&str; 30] = [
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "zero", "one", "two", "three",
    "four", "five", "six", "seven", "eight", "nine", "bed", "bird", "cat", "dog", "happy", "house", "marvin",
    "sheila", "tree", "wow",
];
const TEN: usize = 10;

const OPTIONS: &[OptionDoc] = &[
    OptionDoc::new("train", "all", "read only so many training recordings"),
    OptionDoc::new("valid", "all", "read only so many validation recordings"),
    OptionDoc::new("test", "all", "read only so many test recordings"),
    OptionDoc::new("data-seed", "0", "seed of what is drawn: the limits above, unknown words, background"),
];

pub(crate) const THIRTY: TaskEntry = TaskEntry {
    name: "google-30",
    summary: "Speech Commands: which of 30 words is spoken (99 steps)",
    options: OPTIONS,
    needs: &[FOLDER],
    module: module_path!(),
    build: |options| build(&THIRTY, false, options),
};

pub(crate) const TWELVE: TaskEntry = TaskEntry {
    name: "google-12",
    summary: "Speech Commands: ten words, unknown words, background",
    options: OPTIONS,
    needs: &[FOLDER],
    module: module_path!(),
    build: |options| build(&TWELVE, true, options),
};

/// What a window is made of.
#[derive(Clone)]
enum Source {
    /// A recording.
    Word(PathBuf),
    /// A second of background: file, where it begins and how loud it is as parts of one.
    Background(usize, f64, f64),
}

type Listed = Vec<(Source, u8)>;

fn build(entry: &'static TaskEntry, twelve: bool, options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(entry.name, entry.options)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];
    let seed = s.seed("data-seed")?;
    let folder = data_dir::find_folder(options.data(), FOLDER)?;
    let noise = if twelve { background(&folder)? } else { Vec::new() };

    let mut words = splits(&folder)?;
    for (split, list) in Split::ALL.into_iter().zip(&mut words) {
        let mut random = Random::new(Purpose::Setup, seed, split, 0, 0);
        if twelve {
            *list = merged(std::mem::take(list), noise.len(), &mut random);
        }
        if let Some(limit) = limits[split as usize].filter(|&l| l < list.len()) {
            let order = random.order(list.len());
            *list = order[..limit].iter().map(|&i| list[i as usize].clone()).collect();
        }
    }
    let [train, valid, test] = words;
    let counts = (train.len() as u32, valid.len() as u32);
    let features = Features::new(RATE, FILTERS, Window::Hamming);
    let steps = features.frames(RATE as usize);
    let read = |list: Listed| extract(&list, &noise, &features, steps);
    let blocks = [read(train.into_iter().chain(valid).collect())?, read(test)?];
    let picked = [(0..counts.0).collect(), (counts.0..counts.0 + counts.1).collect()];
    let classes = if twelve { TEN + 2 } else { WORDS.len() };
    let shape = Shape { steps, width: FILTERS, classes, baseline_doc: "finds all classes equally likely" };
    Ok(Box::new(Windows::new(entry.name, &s, shape, blocks, picked)?))
}

/// The recordings of each split with the numbers of their words, in alphabetical order. Errors: lists or folders that
/// are not there, a list that names a recording that is not there.
fn splits(folder: &Path) -> Result<[Listed; 3]> {
    let list = |file: &str| {
        let path = folder.join(file);
        let text = readers::read_text(&path, 1 << 26)?;
        let names: HashSet<String> =
            text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect();
        Ok::<_, Error>((path, names))
    };
    let lists = [list("validation_list.txt")?, list("testing_list.txt")?];
    let mut found = [0, 0];
    let mut splits: [Listed; 3] = Default::default();
    for (class, word) in WORDS.iter().enumerate() {
        for path in wav_files(&folder.join(word))? {
            let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let at = lists.iter().position(|(_, names)| names.contains(&format!("{word}/{file}")));
            if let Some(i) = at {
                found[i] += 1;
            }
            splits[at.map_or(0, |i| i + 1)].push((Source::Word(path), class as u8));
        }
    }
    for ((path, names), found) in lists.iter().zip(found) {
        if names.len() != found {
            return Err(Error::data(
                path,
                format!("names {} recordings, {found} of them are there", names.len()),
            ));
        }
    }
    Ok(splits)
}

/// The `.wav` files of a folder in alphabetical order.
fn wav_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list", e))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()).map_err(|e| Error::io(folder, "list", e)))
        .collect::<Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav")));
    files.sort_unstable();
    Ok(files)
}

/// The files of background noise. Errors: none there, another rate, less than a second.
fn background(folder: &Path) -> Result<Vec<wav::Recording>> {
    let folder = folder.join(NOISE);
    let mut files = Vec::new();
    for path in wav_files(&folder)? {
        let recording = read_recording(&path)?;
        if recording.samples.len() < RATE as usize {
            let got = recording.samples.len();
            return Err(Error::data(path, format!("{got} samples, expected at least {RATE}")));
        }
        files.push(recording);
    }
    match files.is_empty() {
        true => Err(Error::data(folder, "no .wav files")),
        false => Ok(files),
    }
}

fn read_recording(path: &Path) -> Result<wav::Recording> {
    let recording = wav::read(path)?;
    match recording.rate == RATE {
        true => Ok(recording),
        false => Err(Error::data(path, format!("{} Hz, expected {RATE}", recording.rate))),
    }
}

/// The ten words, as many unknown words and seconds of background as a tenth of them each, rounded up.
fn merged(list: Listed, noise: usize, random: &mut Random) -> Listed {
    let (mut known, others): (Listed, Listed) = list.into_iter().partition(|(_, c)| usize::from(*c) < TEN);
    let more = known.len().div_ceil(TEN);
    let order = random.order(others.len());
    known.extend(order.iter().take(more).map(|&i| (others[i as usize].0.clone(), TEN as u8)));
    for _ in 0..more {
        let file = random.below(noise as u32) as usize;
        let second = Source::Background(file, random.unit().into(), random.unit().into());
        known.push((second, TEN as u8 + 1));
    }
    known
}

/// The features of all windows of a list, on all cores.
fn extract(list: &Listed, noise: &[wav::Recording], features: &Features, steps: usize) -> Result<Block> {
    let window = |source: &Source| -> Result<Vec<f32>> {
        let mut samples = match source {
            Source::Word(path) => read_recording(path)?.samples,
            Source::Background(file, start, volume) => {
                let whole = &noise[*file].samples;
                let first = (start * (whole.len() - RATE as usize + 1) as f64) as usize;
                whole[first..][..RATE as usize].iter().map(|&x| (f64::from(x) * volume) as i16).collect()
            }
        };
        samples.resize(RATE as usize, 0);
        Ok(features.log_mel(&samples).into_iter().flatten().map(|x| x as f32).collect())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = list.len().div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<f32>>> = std::thread::scope(|scope| {
        let work = |part: &[(Source, u8)]| {
            let mut x = Vec::with_capacity(part.len() * steps * FILTERS);
            part.iter().try_for_each(|(source, _)| window(source).map(|w| x.extend(w))).map(|()| x)
        };
        let handles: Vec<_> = list.chunks(part).map(|part| scope.spawn(move || work(part))).collect();
        let panicked = || Err(Error::data(FOLDER, "bug: a thread that extracts features panicked"));
        handles.into_iter().map(|h| h.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut block = Block { x: Vec::new(), classes: list.iter().map(|(_, class)| *class).collect() };
    for part in parts {
        block.x.extend(part?);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published totals: 18 538 and 2 567 recordings of the ten words in version 0.01.
    #[test]
    fn totals_of_twelve_classes() {
        for (ten, total) in [(18_538, 22_246), (2_567, 3_081)] {
            let list: Listed = (0..ten + 40_000u32)
                .map(|i| {
                    (Source::Word(PathBuf::new()), if i < ten { (i % 10) as u8 } else { 10 + (i % 20) as u8 })
                })
                .collect();
            let merged = merged(list, 6, &mut Random::new(Purpose::Setup, 0, Split::Train, 0, 0));
            assert_eq!(merged.len(), total);
            let of = |class: u8| merged.iter().filter(|(_, c)| *c == class).count();
            assert_eq!(of(10), (total - ten as usize) / 2);
            assert_eq!(of(11), (total - ten as usize) / 2);
        }
    }
}
