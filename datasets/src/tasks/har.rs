//! Human activity from the sensors of a smartphone.
//!
//! Anguita et al., "A Public Domain Dataset for Human Activity Recognition Using Smartphones", ESANN 2013 (UCI
//! HAR): windows of 128 steps at 50 Hz of 9 signals (body acceleration, angular velocity, total acceleration, three
//! axes each), 7 352 for training and 2 947 for test by other people, 6 activities. `har-2` merges them into two
//! classes as Kusupati et al. (FastGRNN), NeurIPS 2018 and Kag, Zhang and Saligrama (iRNN), ICLR 2020 do: walking
//! upstairs, sitting, laying against walking, walking downstairs, standing - that is even against odd label numbers.
//!
//! `hapt`: Reyes-Ortiz et al., "Transition-Aware Human Activity Recognition Using Smartphones", Neurocomputing 2015:
//! the same people and the same split by person, raw signals of 6 channels (acceleration with gravity, angular
//! velocity) and 12 classes with the postural transitions. **Not the same set**: its numbers do not compare with
//! those of `har`.
//!
//! Signals have mean 0 and variance 1 each, over the training windows. Validation windows are those of the last fifth of
//! the training people, since neighboring windows overlap by half; `split=full` trains on them too, as for that
//! paper's reported numbers.

use std::path::Path;

use crate::data_dir;
use crate::error::{Error, Result};
use crate::options::{OptionDoc, Options, Settings};
use crate::readers::{npy, table};
use crate::task::Task;
use crate::tasks::TaskEntry;
use crate::windows::{Block, Shape, Windows};

const STEPS: usize = 128;
const FOLDER: &str = "UCI HAR Dataset/";
/// The nine signals of UCI HAR, in the order of the channels.
const SIGNALS: [&str; 9] = [
    "body_acc_x",
    "body_acc_y",
    "body_acc_z",
    "body_gyro_x",
    "body_gyro_y",
    "body_gyro_z",
    "total_acc_x",
    "total_acc_y",
    "total_acc_z",
];
const FILES: &[&str] = &[
    "har/x_train.npy.gz",
    "har/y_train.npy.gz",
    "har/subject_train.npy.gz",
    "har/x_test.npy.gz",
    "har/y_test.npy.gz",
];

const SPLIT: OptionDoc = OptionDoc::new(
    "split",
    "holdout",
    "holdout: the last fifth of the people validates; full: it is also trained on",
);
const TRAIN: OptionDoc = OptionDoc::new("train", "all", "use only so many training windows");
const VALID: OptionDoc = OptionDoc::new("valid", "all", "use only so many validation windows");
const TEST: OptionDoc = OptionDoc::new("test", "all", "use only so many test windows");

pub(crate) const SIX: TaskEntry = TaskEntry {
    name: "har",
    summary: "UCI HAR: activity from 9 smartphone signals (128 steps)",
    options: &[SPLIT, TRAIN, VALID, TEST],
    needs: &[FOLDER],
    module: module_path!(),
    build: |options| uci(&SIX, false, options),
};

pub(crate) const TWO: TaskEntry = TaskEntry {
    name: "har-2",
    summary: "UCI HAR with its six activities merged into two classes",
    options: &[SPLIT, TRAIN, VALID, TEST],
    needs: &[FOLDER],
    module: module_path!(),
    build: |options| uci(&TWO, true, options),
};

pub(crate) const HAPT: TaskEntry = TaskEntry {
    name: "hapt",
    summary: "activity from 6 raw smartphone signals (128 steps)",
    options: &[
        OptionDoc::new("classes", "6", "12: with transitions; 6: activities alone; 2: merged as in har-2"),
        SPLIT,
        TRAIN,
        VALID,
        TEST,
    ],
    needs: FILES,
    module: module_path!(),
    build: hapt,
};

/// Windows with label numbers from 1 and the number of a person, as files hold them.
struct Labelled {
    x: Vec<f32>,
    labels: Vec<u8>,
    people: Vec<u8>,
}

fn uci(entry: &TaskEntry, merge: bool, options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(entry.name, entry.options)?;
    let folder = data_dir::find_folder(options.data(), FOLDER)?;
    let read = |split: &str| {
        let at = |name: String| folder.join(split).join(name);
        let labels = table::read_integers(&at(format!("y_{split}.txt")), 1..=6)?;
        let people = table::read_integers(&at(format!("subject_{split}.txt")), 1..=255)?;
        same_count(&at(format!("subject_{split}.txt")), people.len(), labels.len())?;
        let mut x = vec![0.0; labels.len() * STEPS * SIGNALS.len()];
        for (c, signal) in SIGNALS.iter().enumerate() {
            let path = at(format!("Inertial Signals/{signal}_{split}.txt"));
            let values = table::read(&path, STEPS)?;
            same_count(&path, values.len() / STEPS, labels.len())?;
            x.iter_mut().skip(c).step_by(SIGNALS.len()).zip(values).for_each(|(to, from)| *to = from);
        }
        Ok::<_, Error>(Labelled { x, labels, people })
    };
    let classes = if merge { 2 } else { 6 };
    finish(entry.name, &s, SIGNALS.len(), classes, [read("train")?, read("test")?])
}

fn hapt(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(HAPT.name, HAPT.options)?;
    let classes = s.choice("classes", &["12", "6", "2"])?;
    let path = |file: &str| data_dir::find(options.data(), file);
    let read = |x: &str, y: &str, people: Option<&str>| {
        let (x_path, y_path) = (path(x)?, path(y)?);
        let (x, y) = (npy::read::<f32>(&x_path)?, npy::read::<u8>(&y_path)?);
        let people = match people {
            Some(file) => npy::read::<u8>(&path(file)?)?.data,
            None => vec![0; y.data.len()],
        };
        if x.dims.len() != 3 || x.dims[1..] != [STEPS, 6] {
            return Err(Error::data(x_path, format!("sizes {:?}, expected windows of {STEPS}x6", x.dims)));
        }
        if let Some(i) = x.data.iter().position(|v| !v.is_finite()) {
            return Err(Error::data(x_path, format!("element {i} is {}", x.data[i])));
        }
        if let Some(label) = y.data.iter().find(|l| !(1..=12).contains(*l)) {
            return Err(Error::data(y_path, format!("label {label}, expected 1 to 12")));
        }
        same_count(&x_path, x.dims[0], y.data.len())?;
        same_count(&y_path, people.len(), y.data.len())?;
        Ok(Labelled { x: x.data, labels: y.data, people })
    };
    let mut parts = [read(FILES[0], FILES[1], Some(FILES[2]))?, read(FILES[3], FILES[4], None)?];
    let classes = classes.parse().unwrap_or(12);
    if classes != 12 {
        parts = parts.map(without_transitions);
    }
    finish(HAPT.name, &s, 6, classes, parts)
}

fn same_count(path: &Path, got: usize, labels: usize) -> Result<()> {
    match got == labels {
        true => Ok(()),
        false => Err(Error::data(path, format!("{got} windows or people for {labels} labels"))),
    }
}

fn without_transitions(part: Labelled) -> Labelled {
    let window = part.x.len() / part.labels.len().max(1);
    let kept = || part.labels.iter().enumerate().filter(|(_, l)| **l <= 6).map(|(i, _)| i);
    Labelled {
        x: kept().flat_map(|i| &part.x[i * window..][..window]).copied().collect(),
        labels: kept().map(|i| part.labels[i]).collect(),
        people: kept().map(|i| part.people[i]).collect(),
    }
}

fn finish(
    name: &'static str,
    settings: &Settings<'_>,
    width: usize,
    classes: usize,
    parts: [Labelled; 2],
) -> Result<Box<dyn Task>> {
    let full = settings.choice("split", &["holdout", "full"])? == "full";
    let mut people = parts[0].people.clone();
    people.sort_unstable();
    people.dedup();
    let first_held_out =
        people.get(people.len().saturating_sub((people.len() / 5).max(1))).copied().unwrap_or(0);
    let held_out = |i: &u32| parts[0].people[*i as usize] >= first_held_out;
    let all = 0..parts[0].labels.len() as u32;
    let train = all.clone().filter(|i| full || !held_out(i)).collect();
    let picked = [train, all.filter(held_out).collect()];
    let class = |label: u8| if classes == 2 { label % 2 } else { label - 1 };
    let blocks = parts.map(|p| Block { classes: p.labels.iter().map(|l| class(*l)).collect(), x: p.x });
    let shape = Shape { steps: STEPS, width, classes, baseline_doc: "finds all activities equally likely" };
    Ok(Box::new(Windows::new(name, settings, shape, blocks, picked)?))
}
