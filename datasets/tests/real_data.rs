//! The real files, where they are there: counts, first values and frequencies as their publishers state them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use retrograd_datasets::readers::{cifar, idx, music, npy, text};
use retrograd_datasets::{At, Input, Options, Request, Split, TASKS, Task, task};
use support::{Check, real};

#[test]
fn mnist() -> Check {
    let (Some(images), Some(labels)) =
        (real("mnist/train-images-idx3-ubyte.gz"), real("mnist/train-labels-idx1-ubyte.gz"))
    else {
        return Ok(());
    };
    let (x, y) = idx::read_labelled(&images, &labels, 10)?;
    assert_eq!(x.dims, [60_000, 28, 28]);
    assert_eq!(y.data[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(x.data.len() + 16, 47_040_016);

    let standardized = task("rowmnist", &Options::new().with("recipe", "irnn-full"))?;
    // The known mean 0.1307 and deviation 0.3081 of the training pixels over 255: background is -0.4242.
    let batch =
        standardized.batch(&Request { split: Split::Test, batch_size: 1, epoch: 0, index: 0, seed: 0 })?;
    assert!((batch.x.get(0).re + 0.1307 / 0.3081).abs() < 2e-4, "{}", batch.x.get(0).re);
    assert_eq!(batch.target.as_slice::<i32>()?, [7]);
    for (recipe, train, valid) in [("kru", 55_000, 5_000), ("nru", 50_000, 10_000)] {
        let permuted = task("psmnist", &Options::new().with("recipe", recipe))?;
        let examples = Split::ALL.map(|split| permuted.examples(split));
        assert_eq!(examples, [train, valid, 10_000]);
    }
    Ok(())
}

/// Number of scored positions of a split.
fn scored(task: &dyn Task, split: Split, batch_size: usize) -> Result<f64, retrograd_datasets::Error> {
    (0..task.batches(split, batch_size))
        .map(|index| {
            Ok(task.batch(&Request { split, batch_size, epoch: 0, index, seed: 0 })?.count(At::EveryStep))
        })
        .sum()
}

#[test]
fn ptb_words() -> Check {
    let mut vocabulary = None;
    for (file, lines, tokens) in [
        ("ptb/ptb.train.txt", 42_068, 929_589),
        ("ptb/ptb.valid.txt", 3_370, 73_760),
        ("ptb/ptb.test.txt", 3_761, 82_430),
    ] {
        let Some(path) = real(file) else { return Ok(()) };
        let content = text::read(&path)?;
        let words = text::words(&path, &content)?;
        assert_eq!(words.iter().filter(|w| **w == text::END).count(), lines);
        assert_eq!(words.len(), tokens);
        let vocabulary = vocabulary.get_or_insert_with(|| text::Vocabulary::by_frequency(&words));
        assert_eq!(vocabulary.len(), 10_000);
        // Every word occurs in the training text.
        assert!(words.iter().all(|w| vocabulary.number(w).is_some()));
        // The most frequent words, in order.
        assert_eq!([0, 1, 2].map(|i| vocabulary.symbol(i)), [Some("the"), Some("<unk>"), Some("<eos>")]);
    }
    let words = task("ptbword", &Options::new())?;
    assert_eq!(scored(&*words, Split::Test, 32)?, 82_430.0);
    Ok(())
}

#[test]
fn ptb_characters() -> Check {
    let mut alphabet = None;
    for (file, count, distinct, sentences) in [
        ("ptb/ptb.char.train.txt", 5_017_482, 50, 42_068),
        ("ptb/ptb.char.valid.txt", 393_042, 50, 3_370),
        ("ptb/ptb.char.test.txt", 442_423, 48, 3_761),
    ] {
        let Some(path) = real(file) else { return Ok(()) };
        let content = text::read(&path)?;
        let symbols = text::characters(&path, &content, false)?;
        assert_eq!(symbols.len(), count);
        assert_eq!(symbols.iter().filter(|s| **s == "\n").count(), sentences);
        assert_eq!(text::Vocabulary::alphabetical(&symbols).len(), distinct);
        let alphabet = alphabet.get_or_insert_with(|| text::Vocabulary::alphabetical(&symbols));
        assert_eq!(alphabet.encode(&path, &symbols)?.len(), count);
    }
    let stream = task("ptbchar", &Options::new())?;
    assert_eq!(stream.spec().input, Input::Index { vocabulary: 50 });
    assert_eq!(stream.batches(Split::Train, 50), 5_017_482usize.div_ceil(50).div_ceil(30));
    assert_eq!(scored(&*stream, Split::Test, 50)?, 442_423.0);
    let sentences = task("ptbchar", &Options::new().with("mode", "sentence"))?;
    assert_eq!(Split::ALL.map(|s| sentences.examples(s)), [42_068, 3_370, 3_761]);
    assert_eq!(scored(&*sentences, Split::Test, 32)?, 442_423.0);
    Ok(())
}

#[test]
fn polyphonic_music() -> Check {
    let table = [
        ("jsb", "music/jsb_chorales.json", [229, 76, 77], [13_807, 4_602, 4_725], (43, 96)),
        ("piano-midi", "music/piano_midi.json", [87, 12, 25], [75_911, 8_540, 19_036], (21, 108)),
        ("nottingham", "music/nottingham.json", [694, 173, 170], [176_561, 45_513, 44_463], (31, 93)),
        ("musedata", "music/musedata.json", [524, 135, 124], [245_202, 82_755, 64_339], (21, 105)),
    ];
    for (name, file, sequences, steps, (low, high)) in table {
        let Some(path) = real(file) else { return Ok(()) };
        let rolls = music::read(&path)?;
        // The canonical form is the form of the file.
        assert!(music::to_text(&path, &rolls)? == std::fs::read_to_string(&path)?, "{name}");
        let splits = [rolls.train, rolls.valid, rolls.test];
        assert_eq!([0, 1, 2].map(|i| splits[i].len()), sequences, "{name}");
        assert_eq!([0, 1, 2].map(|i| splits[i].iter().map(Vec::len).sum::<usize>()), steps, "{name}");
        let notes: Vec<usize> = splits.iter().flatten().flatten().flat_map(|f| f.columns()).collect();
        let range = (notes.iter().min().map(|n| n + 21), notes.iter().max().map(|n| n + 21));
        assert_eq!(range, (Some(low), Some(high)), "{name}");

        let task = task(name, &Options::new())?;
        let predicted = (steps[2] - sequences[2]) as f64;
        assert_eq!(scored(&*task, Split::Test, 10)?, predicted, "{name}");
    }
    Ok(())
}

/// A read-out that knows only note frequencies is the row "note 1-gram" of table 1 of Boulanger-Lewandowski et al.,
/// ICML 2012, who predict the first frame too.
#[test]
fn music_baselines_are_the_published_ones() -> Check {
    for (name, nll) in [("piano-midi", 11.05), ("nottingham", 10.25), ("musedata", 11.51), ("jsb", 11.06)] {
        if TASKS.iter().filter(|t| t.name == name).any(|t| t.needs.iter().any(|f| real(f).is_none())) {
            continue;
        }
        let task = task(name, &Options::new().with("first", "zero"))?;
        let baseline = task.spec().baseline.unwrap_or(f64::NAN);
        assert!((baseline - nll).abs() <= 0.005, "{name}: {baseline} vs {nll}");
    }
    Ok(())
}

#[test]
fn jsb_first_chord() -> Check {
    if real("music/jsb_chorales.json").is_none() {
        return Ok(());
    }
    let jsb = task("jsb", &Options::new().with("train", 1))?;
    let batch = jsb.batch(&Request { split: Split::Train, batch_size: 1, epoch: 0, index: 0, seed: 0 })?;
    let sounding =
        |t: usize| (0..88).filter(|c| batch.x.get(t * 88 + c).re == 1.0).map(|c| c + 21).collect::<Vec<_>>();
    assert_eq!(sounding(0), [60, 72, 79, 88]);
    assert_eq!(sounding(1), [72, 79, 88]);
    let next: Vec<f64> = (0..88).map(|c| batch.target.get(c).re).collect();
    assert_eq!(next, (0..88).map(|c| batch.x.get(88 + c).re).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn ptb_alphabets_of_the_papers() -> Check {
    if real("ptb/ptb.char.train.txt").is_none() {
        return Ok(());
    }
    // What the papers state: KRU 50, LRD-GRU 51, LRD-LSTM 50 rows, oRNN 49.
    for (recipe, symbols) in
        [("own", 50), ("kru", 50), ("lrd-gru", 51), ("lrd-lstm", 50), ("ornn", 49), ("nru", 50)]
    {
        let task = task("ptbchar", &Options::new().with("recipe", recipe))?;
        assert_eq!(task.spec().input, Input::Index { vocabulary: symbols }, "{recipe}");
        assert_eq!(task.spec().stateful, recipe != "lrd-gru");
    }
    let joined = task("ptbchar", &Options::new().with("unk", "symbol"))?;
    assert_eq!(joined.spec().input, Input::Index { vocabulary: 49 });
    let sentences = task("ptbword", &Options::new().with("mode", "sentence"))?;
    assert_eq!(Split::ALL.map(|s| sentences.examples(s)), [42_068, 3_370, 3_761]);
    Ok(())
}

#[test]
fn cifar_part() -> Check {
    let files = ["data_batch_1.bin.gz", "data_batch_5_last1000.bin.gz", "test_batch_first1000.bin.gz"];
    let [Some(train), Some(_), Some(test)] = files.map(|f| real(&format!("cifar10/{f}"))) else {
        return Ok(());
    };
    assert_eq!(cifar::read(&train)?.labels[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(cifar::read(&test)?.labels[..10], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]);
    let part = task("noisycifar", &Options::new().with("set", "part"))?;
    assert_eq!(Split::ALL.map(|s| part.examples(s)), [10_000, 1_000, 1_000]);
    Ok(())
}

#[test]
fn hapt_windows() -> Check {
    let Some(path) = real("har/x_train.npy.gz") else { return Ok(()) };
    let x = npy::read::<f32>(&path)?;
    assert_eq!(x.dims, [7767, 128, 6]);
    let first = [1.0208334, -0.125, 0.10416667, -0.0009162979, 0.0018325958, 0.0027488936];
    assert_eq!(x.data[..6], first);
    // The last four of 21 training people validate.
    for (classes, total, test) in [("12", 7_767, 3_162), ("6", 7_415, 2_996), ("2", 7_415, 2_996)] {
        let hapt = task("hapt", &Options::new().with("classes", classes))?;
        let [train, valid, tested] = Split::ALL.map(|s| hapt.examples(s));
        assert_eq!((train + valid, tested), (total, test));
        // A fifth of the people; their recordings differ in length.
        assert!((0.15..0.25).contains(&(valid as f64 / total as f64)), "{train} {valid}");
        let full = task("hapt", &Options::new().with("classes", classes).with("split", "full"))?;
        assert_eq!(full.examples(Split::Train), total);
    }
    Ok(())
}
