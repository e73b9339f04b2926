//! The table of tasks. To add one: a file in `tasks/`, its `mod` line and its line in [`TASKS`].

mod adding;
mod cifar;
mod copy;
mod denoise;
mod dsa;
mod har;
mod mnist;
mod music;
mod ptbchar;
mod ptbword;
mod series;
mod speech;
mod timit;
mod yelp;

use crate::error::{Error, Result, nearest};
use crate::options::{OptionDoc, Options};
use crate::task::Task;

/// One task of the table.
#[derive(Clone, Copy, Debug)]
pub struct TaskEntry {
    /// Name on the command line.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Options it takes.
    pub options: &'static [OptionDoc],
    /// What it reads, as paths inside the data folder: files, or whole folders with a `/` at the end.
    pub needs: &'static [&'static str],
    /// Path of the module that defines it.
    pub module: &'static str,
    /// Makes the task. Errors: unknown or unfit options, missing or damaged files.
    pub build: fn(&Options) -> Result<Box<dyn Task>>,
}

/// Every task.
pub const TASKS: &[TaskEntry] = &[
    adding::ENTRY,
    copy::ENTRY,
    denoise::ENTRY,
    mnist::PIXEL,
    mnist::PERMUTED,
    mnist::ROWS,
    mnist::NOISY,
    cifar::PIXEL,
    cifar::ROWS,
    cifar::NOISY,
    har::SIX,
    har::TWO,
    har::HAPT,
    dsa::ENTRY,
    speech::THIRTY,
    speech::TWELVE,
    timit::ENTRY,
    yelp::ENTRY,
    ptbchar::ENTRY,
    ptbword::ENTRY,
    music::JSB,
    music::PIANO_MIDI,
    music::NOTTINGHAM,
    music::MUSEDATA,
    series::ENTRY,
];

/// The task of a name. Errors: no such name, with the nearest one.
pub fn find(name: &str) -> Result<&'static TaskEntry> {
    TASKS.iter().find(|entry| entry.name == name).ok_or_else(|| Error::UnknownTask {
        name: name.into(),
        nearest: nearest(name, TASKS.iter().map(|entry| entry.name)),
    })
}

/// Makes the task of a name. Errors: no such name, unknown or unfit options, missing or damaged files.
pub fn task(name: &str, options: &Options) -> Result<Box<dyn Task>> {
    (find(name)?.build)(options)
}
