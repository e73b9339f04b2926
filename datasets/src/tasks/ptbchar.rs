//! Penn Treebank, character by character.
//!
//! Marcus, Santorini and Marcinkiewicz 1993, in Mikolov's preprocessing with 10 000 words, spelled out: 50
//! symbols; the blank is a symbol, a line feed ends a sentence. `unk=spelled` (the files) writes a rare word
//! as the five symbols `<unk>`; `unk=symbol` makes them one.
//!
//! `mode=stream`: parallel streams with carried state and truncated back-propagation (30 steps in Jose, Cisse
//! and Fleuret, ICML 2018; 150 in Chandar et al., AAAI 2019). `mode=sentence`: one sentence a sequence, the
//! state starting afresh (low-rank passthrough networks). Every symbol is predicted exactly once either way.
//! Reported in bits per character: mean loss over ln 2.

use crate::data_dir;
use crate::error::{Error, Result};
use crate::options::{OptionDoc, Options};
use crate::readers::text::{self, Vocabulary};
use crate::stream::{Sentences, Streams, unigram_loss};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "ptbchar",
    summary: "Penn Treebank, next character",
    options: &[
        OptionDoc::new("mode", "stream", "stream: carried state; sentence: one sentence a sequence"),
        OptionDoc::new("bptt", "30", "steps of a batch in stream mode"),
        OptionDoc::new("unk", "spelled", "rare words: spelled (five symbols) or symbol (one)"),
        OptionDoc::new("max-length", "500", "clip training sentences to so many symbols in sentence mode"),
        OptionDoc::new("train", "all", "use only so many training symbols"),
        OptionDoc::new("valid", "all", "use only so many validation symbols"),
        OptionDoc::new("test", "all", "use only so many test symbols"),
    ],
    needs: &["ptb/ptb.char.train.txt", "ptb/ptb.char.valid.txt", "ptb/ptb.char.test.txt"],
    module: module_path!(),
    build,
};

const LINE_FEED: &str = "\n";

enum Cut {
    Streams(Streams),
    Sentences(Sentences),
}

struct Characters {
    spec: TaskSpec,
    cut: Cut,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let stream = s.choice("mode", &["stream", "sentence"])? == "stream";
    let window = s.integer("bptt", 1..=100_000_000)?;
    let join_unknown = s.choice("unk", &["spelled", "symbol"])? == "symbol";
    let longest = s.integer("max-length", 1..=100_000_000)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];

    let mut vocabulary: Option<Vocabulary> = None;
    let mut texts: [Vec<i32>; 3] = Default::default();
    for (split, file) in ENTRY.needs.iter().enumerate() {
        let path = data_dir::find(options.data(), file)?;
        let content = text::read(&path)?;
        let symbols = text::characters(&path, &content, join_unknown)?;
        // The alphabet is that of the whole training text, whatever part of it is used.
        let vocabulary = vocabulary.get_or_insert_with(|| Vocabulary::alphabetical(&symbols));
        let kept = limits[split].map_or(symbols.len(), |limit| limit.min(symbols.len()));
        texts[split] = vocabulary.encode(&path, &symbols[..kept])?;
    }
    let alphabet = vocabulary.as_ref().map_or(0, Vocabulary::len);
    let Some(end) = vocabulary.and_then(|v| v.number(LINE_FEED)) else {
        return Err(Error::data(ENTRY.needs[0], "no line feed ends a sentence"));
    };

    let loss = Loss::SoftmaxCrossEntropy { classes: alphabet };
    let input = Input::Index { vocabulary: alphabet };
    let mut spec = TaskSpec::new(ENTRY.name, input, loss, At::EveryStep, Metric::BitsPerCharacter)
        .with_baseline(unigram_loss(&texts[0], &texts[2], alphabet), "knows how frequent each symbol is");
    let cut = if stream {
        spec = spec.with_carried_state();
        Cut::Streams(Streams { task: ENTRY.name, texts, window, start: end })
    } else {
        Cut::Sentences(Sentences::new(ENTRY.name, texts, end, longest))
    };
    Ok(Box::new(Characters { spec, cut }))
}

impl Task for Characters {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        match &self.cut {
            Cut::Streams(s) => s.batches(split, batch_size),
            Cut::Sentences(s) => s.batches(split, batch_size),
        }
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        match &self.cut {
            Cut::Streams(s) => s.batch(request),
            Cut::Sentences(s) => s.batch(request),
        }
    }

    fn examples(&self, split: Split) -> usize {
        match &self.cut {
            Cut::Streams(_) => 1,
            Cut::Sentences(s) => s.batches(split, 1),
        }
    }
}
