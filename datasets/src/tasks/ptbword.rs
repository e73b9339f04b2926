//! Penn Treebank, word by word.
//!
//! Marcus, Santorini and Marcinkiewicz 1993, in Mikolov's preprocessing: 10 000 words with `<eos>` at the end
//! of each line and `<unk>` for rare words, numbered by falling frequency in the training text. Parallel
//! streams with carried state; windows of 300 words in Kag, Zhang and Saligrama (iRNN), ICLR 2020, 35 in most
//! language models. Reported as perplexity, the exponential of the mean loss. The baseline knows how frequent
//! each word is. `mode=sentence`: one sentence a sequence, the state starting afresh.

use crate::data_dir;
use crate::error::Result;
use crate::options::{OptionDoc, Options};
use crate::readers::text::{self, Vocabulary};
use crate::stream::{Cut, Sentences, Streams, unigram_loss};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

pub(crate) const ENTRY: TaskEntry = TaskEntry {
    name: "ptbword",
    summary: "Penn Treebank, next word of 10,000",
    options: &[
        OptionDoc::new("mode", "stream", "stream: carried state; sentence: one sentence a sequence"),
        OptionDoc::new("bptt", "300", "steps of a batch: 300 (iRNN), 35 (most language models)"),
        OptionDoc::new("max-length", "500", "clip training sentences to so many words in sentence mode"),
        OptionDoc::new("train", "all", "use only so many training words"),
        OptionDoc::new("valid", "all", "use only so many validation words"),
        OptionDoc::new("test", "all", "use only so many test words"),
    ],
    needs: &["ptb/ptb.train.txt", "ptb/ptb.valid.txt", "ptb/ptb.test.txt"],
    module: module_path!(),
    build,
};

struct Words {
    spec: TaskSpec,
    cut: Cut,
}

fn build(options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(ENTRY.name, ENTRY.options)?;
    let stream = s.choice("mode", &["stream", "sentence"])? == "stream";
    let window = s.integer("bptt", 1..=100_000_000)?;
    let longest = s.integer("max-length", 1..=100_000_000)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];

    let mut vocabulary: Option<Vocabulary> = None;
    let mut texts: [Vec<i32>; 3] = Default::default();
    for (split, file) in ENTRY.needs.iter().enumerate() {
        let path = data_dir::find(options.data(), file)?;
        let content = text::read(&path)?;
        let words = text::words(&path, &content)?;
        let vocabulary = vocabulary.get_or_insert_with(|| Vocabulary::by_frequency(&words));
        let kept = limits[split].map_or(words.len(), |limit| limit.min(words.len()));
        texts[split] = vocabulary.encode(&path, &words[..kept])?;
    }
    let size = vocabulary.as_ref().map_or(0, Vocabulary::len);
    // Every line ends with it, so it is there.
    let start = vocabulary.and_then(|v| v.number(text::END)).unwrap_or(0);

    let (input, loss) = (Input::Index { vocabulary: size }, Loss::SoftmaxCrossEntropy { classes: size });
    let mut spec = TaskSpec::new(ENTRY.name, input, loss, At::EveryStep, Metric::Perplexity)
        .with_baseline(unigram_loss(&texts[0], &texts[2], size), "knows how frequent each word is");
    let cut = if stream {
        spec = spec.with_carried_state();
        Cut::Streams(Streams { task: ENTRY.name, texts, window, start })
    } else {
        Cut::Sentences(Sentences::new(ENTRY.name, texts, start, longest))
    };
    Ok(Box::new(Words { spec, cut }))
}

impl Task for Words {
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
