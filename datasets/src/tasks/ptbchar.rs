//! Penn Treebank, character by character.
//!
//! Marcus, Santorini and Marcinkiewicz 1993, in Mikolov's preprocessing with 10 000 words, spelled out: 50
//! symbols; the blank is a symbol, a line feed ends a sentence. `unk=spelled` (the files) writes a rare word
//! as the five symbols `<unk>`; `unk=symbol` makes them one.
//!
//! No two papers cut this text alike. A `recipe` names one of their ways; options that are set go before it:
//!
//! | recipe | `unk` | `end` | `symbols` | `mode` | `bptt` |
//! |---|---|---|---|---|---|
//! | `own` | spelled | symbol | 50 | stream | 30 |
//! | `kru` | symbol | symbol | 49, with one never used 50 | stream | 30 |
//! | `lrd-gru` | spelled | symbol | 50, with one never used 51 | sentence | - |
//! | `lrd-lstm` | spelled | symbol | 50 | stream | 35 |
//! | `ornn` | spelled | blank | 49 | stream | 30 |
//! | `nru` | spelled | symbol | 50 | stream | 150 |
//!
//! The numbers of symbols are those the papers state (KRU: `<unk>` is one symbol; LRD-GRU: 51, as for a dictionary with
//! an entry for unknown symbols; LRD-LSTM: 50 rows of a look-up table; oRNN: 49, `<unk>` spelled, for which the end of a
//! sentence is no symbol of its own - it reads as a blank here). The window of `ornn` is ours.
//!
//! `mode=stream`: parallel streams with carried state and truncated back-propagation (30 steps in Jose, Cisse
//! and Fleuret, ICML 2018; 150 in Chandar et al., AAAI 2019). `mode=sentence`: one sentence a sequence, the
//! state starting afresh (low-rank passthrough networks). Every symbol is predicted exactly once either way.
//! Reported in bits per character: mean loss over ln 2.

use crate::data_dir;
use crate::error::{Error, Result};
use crate::options::{OptionDoc, Options};
use crate::readers::text::{self, Vocabulary};
use crate::stream::{Cut, Sentences, Streams, unigram_loss};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "ptbchar",
    summary: "Penn Treebank, next character",
    options: &[
        OptionDoc::new("recipe", "own", "what is not set below: own, kru, lrd-gru, lrd-lstm, ornn or nru"),
        OptionDoc::new("mode", "recipe", "stream: carried state; sentence: one sentence a sequence"),
        OptionDoc::new("bptt", "recipe", "steps of a batch in stream mode (own: 30)"),
        OptionDoc::new("unk", "recipe", "rare words: spelled (five symbols) or symbol (one)"),
        OptionDoc::new("end", "recipe", "end of a sentence: symbol, or blank (like that between words)"),
        OptionDoc::new(
            "symbols",
            "recipe",
            "at least so many symbols; those that do not occur are never used",
        ),
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

const BLANK: &str = "_";

/// How a paper cuts the text.
struct Recipe {
    name: &'static str,
    mode: &'static str,
    bptt: &'static str,
    unk: &'static str,
    end: &'static str,
    symbols: &'static str,
}

const fn recipe(name: &'static str, values: [&'static str; 5]) -> Recipe {
    let [unk, end, symbols, mode, bptt] = values;
    Recipe { name, mode, bptt, unk, end, symbols }
}

const RECIPES: [Recipe; 6] = [
    recipe("own", ["spelled", "symbol", "1", "stream", "30"]),
    recipe("kru", ["symbol", "symbol", "50", "stream", "30"]),
    recipe("lrd-gru", ["spelled", "symbol", "51", "sentence", "30"]),
    recipe("lrd-lstm", ["spelled", "symbol", "50", "stream", "35"]),
    recipe("ornn", ["spelled", "blank", "49", "stream", "30"]),
    recipe("nru", ["spelled", "symbol", "50", "stream", "150"]),
];

struct Characters {
    spec: TaskSpec,
    cut: Cut,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let name = s.choice("recipe", &["own", "kru", "lrd-gru", "lrd-lstm", "ornn", "nru"])?;
    let recipe = RECIPES.iter().find(|r| r.name == name).unwrap_or(&RECIPES[0]);
    let stream = s.or("mode", "recipe", recipe.mode).choice("mode", &["stream", "sentence"])? == "stream";
    let window = s.or("bptt", "recipe", recipe.bptt).integer("bptt", 1..=100_000_000)?;
    let join_unknown = s.or("unk", "recipe", recipe.unk).choice("unk", &["spelled", "symbol"])? == "symbol";
    let end = s.or("end", "recipe", recipe.end).choice("end", &["symbol", "blank"])?;
    let least = s.or("symbols", "recipe", recipe.symbols).integer("symbols", 1..=1000)?;
    if end == "blank" && !stream {
        let expected = "symbol, since mode=sentence is cut there".into();
        return Err(Error::BadOption { task: ENTRY.name, key: "end", value: end.into(), expected });
    }
    let longest = s.integer("max-length", 1..=100_000_000)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];

    let mut vocabulary: Option<Vocabulary> = None;
    let mut texts: [Vec<i32>; 3] = Default::default();
    for (split, file) in ENTRY.needs.iter().enumerate() {
        let path = data_dir::find(options.data(), file)?;
        let content = text::read(&path)?;
        let mut symbols = text::characters(&path, &content, join_unknown)?;
        if end == "blank" {
            symbols.iter_mut().filter(|s| **s == LINE_FEED).for_each(|s| *s = BLANK);
        }
        // The alphabet is that of the whole training text, whatever part of it is used.
        let vocabulary = vocabulary.get_or_insert_with(|| Vocabulary::alphabetical(&symbols));
        let kept = limits[split].map_or(symbols.len(), |limit| limit.min(symbols.len()));
        texts[split] = vocabulary.encode(&path, &symbols[..kept])?;
    }
    let alphabet = vocabulary.as_ref().map_or(0, Vocabulary::len).max(least);
    let end = if end == "blank" { BLANK } else { LINE_FEED };
    let Some(end) = vocabulary.and_then(|v| v.number(end)) else {
        return Err(Error::data(ENTRY.needs[0], format!("the symbol {end:?} does not occur")));
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
        self.cut.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        self.cut.batch(request)
    }

    fn examples(&self, split: Split) -> usize {
        self.cut.examples(split)
    }
}
