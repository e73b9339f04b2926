//! Daily and sports activities from five body-worn sensor units.
//!
//! Altun, Barshan and Tunçel, "Comparative study on classifying human activities with miniature inertial and magnetic
//! sensors", Pattern Recognition 2010 (UCI): 19 activities by 8 people, 60 segments of 5 s each at 25 Hz, that is 125
//! steps of 45 signals. As in Kusupati et al. (FastGRNN), NeurIPS 2018 and Kag, Zhang and Saligrama (iRNN), ICLR
//! 2020: 4 560 segments for training and 4 560 for test.
//!
//! Which half is which is not stated: `half=people` (ours) tests on the last four people, `half=segments` on the second
//! half of every recording. Signals have mean 0 and variance 1 each over the training segments. The last fifth of the
//! training segments **of every recording** validates; `split=full` trains on it too.

use crate::data_dir;
use crate::error::{Error, Result};
use crate::options::{OptionDoc, Options};
use crate::readers::table;
use crate::task::Task;
use crate::tasks::TaskEntry;
use crate::windows::{Block, Shape, Windows};

const FOLDER: &str = "dsa/";
const STEPS: usize = 125;
const SIGNALS: usize = 45;
const ACTIVITIES: usize = 19;
const PEOPLE: usize = 8;
const SEGMENTS: usize = 60;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "dsa-19",
    summary: "daily and sports activities from 45 signals (125 steps)",
    options: &[
        OptionDoc::new("half", "people", "test half: people (the last four) or segments (the second 30)"),
        OptionDoc::new(
            "split",
            "holdout",
            "holdout: every fifth part validates; full: it is also trained on",
        ),
        OptionDoc::new("people", "8", "read only so many people (an even number)"),
        OptionDoc::new("segments", "60", "read only so many segments of each recording (an even number)"),
        OptionDoc::new("train", "all", "use only so many training segments"),
        OptionDoc::new("valid", "all", "use only so many validation segments"),
        OptionDoc::new("test", "all", "use only so many test segments"),
    ],
    needs: &[FOLDER],
    module: module_path!(),
    build,
};

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let by_people = s.choice("half", &["people", "segments"])? == "people";
    let full = s.choice("split", &["holdout", "full"])? == "full";
    let people = s.integer("people", 2..=PEOPLE)?;
    let segments = s.integer("segments", 2..=SEGMENTS)?;
    let folder = data_dir::find_folder(options.data(), FOLDER)?;

    let mut blocks = [Block::default(), Block::default()];
    let mut picked = [Vec::new(), Vec::new()];
    for (activity, person, segment) in (1..=ACTIVITIES)
        .flat_map(|a| (1..=people).map(move |p| (a, p)))
        .flat_map(|(a, p)| (1..=segments).map(move |s| (a, p, s)))
    {
        let path = folder.join(format!("a{activity:02}/p{person}/s{segment:02}.txt"));
        let values = table::read(&path, SIGNALS)?;
        if values.len() != STEPS * SIGNALS {
            let got = values.len() / SIGNALS;
            return Err(Error::data(path, format!("{got} rows, expected {STEPS}")));
        }
        let (place, half, training) = match by_people {
            true => (person, people / 2, segments),
            false => (segment, segments / 2, segments / 2),
        };
        let block = &mut blocks[usize::from(place > half)];
        if place <= half {
            let held_out = segment > training - (training / 5).max(1);
            let i = block.classes.len() as u32;
            if full || !held_out {
                picked[0].push(i);
            }
            if held_out {
                picked[1].push(i);
            }
        }
        block.x.extend(values);
        block.classes.push(activity as u8 - 1);
    }
    let baseline_doc = "finds all activities equally likely";
    let shape = Shape { steps: STEPS, width: SIGNALS, classes: ACTIVITIES, baseline_doc };
    Ok(Box::new(Windows::new(ENTRY.name, &s, shape, blocks, picked)?))
}
