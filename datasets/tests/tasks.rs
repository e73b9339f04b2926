//! What every task of the table promises, on generated or small data.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use retrograd_datasets::{At, Batch, Error, Input, Loss, Options, Request, Split, TASKS, Task};
use retrograd_engine::{DType, Tensor};
use support::{Check, small_data};

/// Options that make a task small, and a second set that takes its other ways.
fn options(name: &str, data: &std::path::Path) -> Vec<Options> {
    let base = Options::new().with_data(data);
    let small = base.clone().with("T", 12).with("train", 23).with("valid", 7).with("test", 9);
    match name {
        "copy" => vec![
            small.clone(),
            small.clone().with("variant", "variable-length").with("online", true),
            small.with("variant", "variable-lag").with("coding", "lrd"),
        ],
        "adding" => vec![small.clone(), small.with("online", true).with("marks", "anywhere")],
        "denoise" => vec![small.clone(), small.with("coding", "goru")],
        "noisymnist" => vec![base.clone().with("T", 40), base.with("T", 28).with("recipe", "nru")],
        "mnist" | "psmnist" | "rowmnist" => {
            ["kru", "fcurnn", "lrd", "nru", "irnn", "irnn-full", "eurnn", "ornn"]
                .map(|recipe| base.clone().with("recipe", recipe))
                .to_vec()
        }
        "ptbchar" => vec![
            base.clone().with("bptt", 4),
            base.clone().with("mode", "sentence"),
            base.clone().with("unk", "symbol").with("mode", "sentence").with("train", 20),
            base.clone().with("recipe", "kru").with("bptt", 5),
            base.clone().with("recipe", "lrd-gru"),
            base.clone().with("recipe", "lrd-lstm"),
            base.clone().with("recipe", "ornn"),
            base.with("recipe", "nru"),
        ],
        "ptbword" => {
            vec![base.clone(), base.clone().with("bptt", 2).with("train", 7), base.with("mode", "sentence")]
        }
        "cifar" | "rowcifar" => {
            vec![base.clone(), base.clone().with("set", "part"), base.with("split", "full")]
        }
        "noisycifar" => vec![base.clone().with("T", 40), base.with("T", 32).with("set", "part")],
        "har" | "har-2" => vec![base.clone(), base.with("split", "full").with("train", 8)],
        "hapt" => ["12", "6", "2"].map(|classes| base.clone().with("classes", classes)).to_vec(),
        "dsa-19" => {
            let few = base.with("people", 2).with("segments", 10);
            vec![few.clone(), few.with("half", "segments").with("split", "full").with("test", 40)]
        }
        "google-30" | "google-12" => vec![base.clone(), base.with("train", 9).with("valid", 2)],
        "timit" => vec![base.clone().with("held-out", 1), base.with("held-out", 3).with("data-seed", 4)],
        "yelp-5" => vec![
            base.clone().with("T", 4).with("vocabulary", 6),
            base.with("T", 9).with("pad", "back").with("split", "full"),
        ],
        "jsb" | "piano-midi" | "nottingham" | "musedata" => {
            vec![base.clone(), base.clone().with("first", "zero"), base.with("chunk", 1).with("train", 2)]
        }
        "series" => vec![
            base.clone().with("file", "series.npy"),
            base.with("file", "series.raw").with("channels", 2).with("window", 4).with("scale", "none"),
        ],
        other => panic!("no small options for {other}"),
    }
}

fn every_task(mut check: impl FnMut(&str, &dyn Task) -> Check) -> Check {
    let data = small_data();
    for entry in TASKS {
        for options in options(entry.name, data.path()) {
            let task = (entry.build)(&options)?;
            check(&format!("{} {:?}", entry.name, options.settings().collect::<Vec<_>>()), &*task)?;
        }
    }
    Ok(())
}

fn epoch(
    task: &dyn Task,
    split: Split,
    batch_size: usize,
    epoch: u64,
    seed: u64,
) -> Result<Vec<Batch>, Error> {
    (0..task.batches(split, batch_size))
        .map(|index| task.batch(&Request { split, batch_size, epoch, index, seed }))
        .collect()
}

fn range_is(tensor: &Tensor, below: usize) -> bool {
    tensor.as_slice::<i32>().is_ok_and(|v| v.iter().all(|i| (0..below as i32).contains(i)))
}

#[test]
fn batches_fit_the_specification() -> Check {
    every_task(|name, task| {
        let spec = task.spec();
        for split in Split::ALL {
            for batch in epoch(task, split, 4, 0, 1)? {
                let (t, n) = (batch.steps(), batch.rows());
                assert!((1..=4).contains(&n) && t >= 1, "{name}");
                assert!(spec.steps.is_none_or(|s| s == t), "{name}: {t} steps");
                match spec.input {
                    Input::Dense { width } => {
                        assert_eq!(
                            (batch.x.dtype(), batch.x.dims()),
                            (DType::F32, &[t, n, width][..]),
                            "{name}"
                        );
                        assert!(batch.x.is_finite(), "{name}");
                    }
                    Input::Index { vocabulary } => {
                        assert_eq!(batch.x.dims(), [t, n], "{name}");
                        assert!(range_is(&batch.x, vocabulary), "{name}");
                    }
                }
                let mut dims = if spec.at == At::Last { vec![n] } else { vec![t, n] };
                if let Loss::SoftmaxCrossEntropy { classes } = spec.loss {
                    assert!(range_is(&batch.target, classes), "{name}");
                } else {
                    dims.push(spec.loss.width());
                    assert_eq!(batch.target.dtype(), DType::F32, "{name}");
                }
                assert_eq!(batch.target.dims(), dims, "{name}");
                if let Some(mask) = &batch.mask {
                    assert_eq!(mask.dims(), [t, n], "{name}");
                    if let Some(lengths) = &batch.lengths {
                        let lengths = lengths.as_slice::<i32>()?;
                        assert_eq!(lengths.iter().max(), Some(&(t as i32)), "{name}");
                        for (i, weight) in mask.as_slice::<f32>()?.iter().enumerate() {
                            assert_eq!(*weight == 1.0, (i / n) < lengths[i % n] as usize, "{name}");
                        }
                    }
                }
            }
        }
        assert!(spec.baseline.is_some_and(|b| b.is_finite() && b > 0.0), "{name}");
        assert!(!spec.baseline_doc.is_empty(), "{name}");
        Ok(())
    })
}

#[test]
fn batches_are_pure_functions_of_the_request() -> Check {
    let data = small_data();
    for entry in TASKS {
        for options in options(entry.name, data.path()) {
            let (one, two) = ((entry.build)(&options)?, (entry.build)(&options)?);
            for split in Split::ALL {
                let forward = epoch(&*one, split, 3, 2, 5)?;
                // Another instance, backwards, with other requests in between, from another thread.
                let backward: Vec<Batch> = std::thread::scope(|s| {
                    s.spawn(|| {
                        (0..two.batches(split, 3))
                            .rev()
                            .map(|index| {
                                let request = Request { split, batch_size: 3, epoch: 2, index, seed: 5 };
                                two.batch(&Request { epoch: 1, seed: 9, ..request })?;
                                two.batch(&request)
                            })
                            .collect::<Result<_, _>>()
                    })
                    .join()
                    .unwrap()
                })?;
                for (a, b) in forward.iter().zip(backward.iter().rev()) {
                    assert!(a.x.bit_eq(&b.x) && a.target.bit_eq(&b.target), "{} {split}", entry.name);
                    assert_eq!((&a.mask, &a.lengths), (&b.mask, &b.lengths), "{} {split}", entry.name);
                }
            }
        }
    }
    Ok(())
}

/// The rows of batches as counted bytes: input, target and length of each.
fn rows(batches: &[Batch]) -> BTreeMap<Vec<u8>, usize> {
    let mut rows = BTreeMap::new();
    for batch in batches {
        let n = batch.rows();
        for row in 0..n {
            let mut key = vec![];
            let length = match &batch.lengths {
                Some(lengths) => lengths.get(row).re as usize,
                None => batch.steps(),
            };
            for tensor in [&batch.x, &batch.target] {
                let cell = tensor.bytes() / tensor.len();
                let width = tensor.dims().get(2).map_or(1, |w| *w) * cell;
                let steps =
                    if tensor.dims()[0] == batch.steps() && tensor.dims().len() > 1 { length } else { 1 };
                for t in 0..steps {
                    key.extend(&tensor.as_bytes()[(t * n + row) * width..][..width]);
                }
            }
            *rows.entry(key).or_default() += 1;
        }
    }
    rows
}

#[test]
fn an_epoch_holds_every_example_once_in_an_order_of_its_own() -> Check {
    every_task(|name, task| {
        if task.spec().stateful {
            return Ok(());
        }
        for split in Split::ALL {
            let count = |batches: &[Batch]| batches.iter().map(Batch::rows).sum::<usize>();
            let whole = epoch(task, split, 1000, 0, 1)?;
            assert_eq!(whole.len(), 1, "{name}");
            assert_eq!(count(&whole), task.examples(split), "{name}");
            for size in [1, 4, 5] {
                let cut = epoch(task, split, size, 0, 1)?;
                assert_eq!(rows(&cut), rows(&whole), "{name} {split} by {size}");
            }
            let other = epoch(task, split, 1000, 3, 1)?;
            let same_order = other[0].target == whole[0].target && other[0].x == whole[0].x;
            // Two training sequences may come in the same order again.
            assert!(split == Split::Train || same_order, "{name} {split}");
            assert!(split != Split::Train || task.examples(split) < 4 || !same_order, "{name}");
            let fresh = name.contains("online") || (name.starts_with("noisy") && name.contains("40"));
            if !fresh || split != Split::Train {
                assert_eq!(rows(&other), rows(&whole), "{name} {split}");
            } else {
                assert_ne!(rows(&other), rows(&whole), "{name} {split}");
            }
        }
        Ok(())
    })
}

#[test]
fn impossible_requests_are_errors() -> Check {
    every_task(|name, task| {
        for split in Split::ALL {
            let request = Request { split, batch_size: 2, epoch: 0, index: task.batches(split, 2), seed: 0 };
            assert!(matches!(task.batch(&request), Err(Error::Request { .. })), "{name}");
            let request = Request { batch_size: 0, index: 0, ..request };
            assert!(matches!(task.batch(&request), Err(Error::Request { .. })), "{name}");
        }
        Ok(())
    })
}

#[test]
fn missing_data_and_unknown_options_are_errors() -> Check {
    let empty = tempfile::tempdir()?;
    for entry in TASKS {
        let options = Options::new().with_data(empty.path());
        match (entry.build)(&options) {
            Ok(_) => assert!(entry.needs.is_empty(), "{}", entry.name),
            // Its file is the user's.
            Err(Error::BadOption { key, .. }) => assert_eq!((entry.name, key), ("series", "file")),
            Err(Error::Missing { file, looked, advice }) => {
                assert!(entry.needs.contains(&file.as_str()), "{}", entry.name);
                assert_eq!(looked, [empty.path()]);
                assert!(advice.contains("retrograd data"));
            }
            Err(other) => panic!("{}: {other}", entry.name),
        }
        let (wrong, right) = if entry.name == "series" { ("vaild", "valid") } else { ("tarin", "train") };
        match (entry.build)(&options.with(wrong, 3)).err() {
            Some(Error::UnknownOption { nearest, .. }) => assert_eq!(nearest, Some(right), "{}", entry.name),
            other => panic!("{}: {other:?}", entry.name),
        }
    }
    Ok(())
}

/// Values by hand on the small recording: step `t` is `t` and `(7 t) mod 11`.
#[test]
fn a_recording_is_cut_into_rows_and_read_in_pieces() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path()).with("file", "series.npy");
    let plain = retrograd_datasets::task("series", &base.clone().with("scale", "none"))?;
    // 96 steps for training, 12 and 12 behind them: 95 successors, 31 in each of 3 rows.
    let request = Request { split: Split::Train, batch_size: 3, epoch: 0, index: 0, seed: 0 };
    let batch = plain.batch(&request)?;
    assert_eq!((batch.x.dims(), plain.batches(Split::Train, 3)), (&[31, 3, 2][..], 1));
    for (t, row) in [(0, 0), (30, 0), (0, 2), (30, 2)] {
        let (at, step) = ((t * 3 + row) * 2, (31 * row + t) as f64);
        assert_eq!([batch.x.get(at).re, batch.x.get(at + 1).re], [step, 7.0 * step % 11.0], "{t} {row}");
        assert_eq!(batch.target.get(at).re, step + 1.0, "{t} {row}");
    }
    let test = plain.batch(&Request { split: Split::Test, batch_size: 1, ..request })?;
    assert_eq!((test.steps(), test.x.get(0).re, test.target.get(20).re), (11, 108.0, 119.0));
    // The mean square of predicting the mean, by its definition.
    let t = |f: &dyn Fn(f64) -> f64| (0..96).map(|t| f(f64::from(t))).sum::<f64>() / 96.0;
    let variance = |f: &dyn Fn(f64) -> f64| t(&|x| f(x) * f(x)) - t(f) * t(f);
    let expected = variance(&|t| t) + variance(&|t| 7.0 * t % 11.0);
    assert!((plain.spec().baseline.unwrap() / expected - 1.0).abs() < 1e-12);

    // Pieces one behind the other are the batch; so are windows.
    let scaled = retrograd_datasets::task("series", &base.clone())?;
    let whole = scaled.batch(&request)?;
    assert!((scaled.spec().baseline.unwrap() - 2.0).abs() < 1e-6);
    let pieces = scaled.as_pieces().unwrap();
    assert_eq!(pieces.size(&request)?, (31, 3));
    let windows = retrograd_datasets::task("series", &base.clone().with("window", 7))?;
    assert!(windows.as_pieces().is_none() && windows.batches(Split::Train, 3) == 5);
    let (mut x, mut target) = (Vec::new(), Vec::new());
    for index in 0..5 {
        let (piece, window) =
            (pieces.piece(&request, 7 * index, 7)?, windows.batch(&Request { index, ..request })?);
        assert!(piece.x.bit_eq(&window.x) && piece.target.bit_eq(&window.target), "{index}");
        x.extend_from_slice(piece.x.as_slice::<f32>()?);
        target.extend_from_slice(piece.target.as_slice::<f32>()?);
    }
    assert_eq!((&x[..], &target[..]), (whole.x.as_slice::<f32>()?, whole.target.as_slice::<f32>()?));
    assert!(matches!(pieces.piece(&request, 31, 1), Err(Error::Request { .. })));
    // Bare numbers are the same numbers.
    let bare = base.with("file", "series.raw").with("channels", 2);
    assert!(retrograd_datasets::task("series", &bare)?.batch(&request)?.x.bit_eq(&whole.x));
    Ok(())
}

#[test]
fn recordings_that_are_none() -> Check {
    let folder = tempfile::tempdir()?;
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let good = bytes(&[1.0, 2.0, 3.0, 4.0]);
    for (content, options, want) in [
        (good.clone(), ("channels", "3"), "16 bytes of numbers, expected a multiple of 12"),
        (support::npy("<f4", &[2, 3], &good), ("test", "0"), "16 bytes of numbers, expected 24"),
        (
            support::npy("<f4", &[1 << 40, 1 << 40], &good),
            ("test", "0"),
            "16 bytes of numbers, expected 18446",
        ),
        (support::npy("<c8", &[2], &good), ("test", "0"), "elements <c8, expected one of <f4, <f8, <i2, |u1"),
        (support::npy("<f4", &[1, 2, 2], &good), ("test", "0"), "sizes [1, 2, 2], expected [T] or [T,C]"),
        (support::npy("<f4", &[4, 0], &[]), ("test", "0"), "steps of 0 numbers"),
        (bytes(&[1.0, f32::NAN, 2.0]), ("test", "0"), "step 1, channel 0: NaN"),
        (bytes(&[1.0]), ("test", "0"), "1 steps for training, expected at least 2"),
        (Vec::new(), ("test", "0"), "0 steps for training"),
        (good.clone(), ("test", "95"), "option `test` is `95`, expected at most 89, as valid is 10"),
        (good, ("window", "0"), "option `window` is `0`"),
    ] {
        support::put(folder.path(), "x", content);
        let built = Options::new().with_data(folder.path()).with("file", "x").with(options.0, options.1);
        let got = retrograd_datasets::task("series", &built).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
    let missing = Options::new().with_data(folder.path()).with("file", "y");
    assert!(matches!(retrograd_datasets::task("series", &missing), Err(Error::Missing { .. })));
    Ok(())
}

/// Values by hand on the small images: pixel `p` of image `i` is `(7 i + p) mod 256`.
#[test]
fn mnist_values_and_orders() -> Check {
    let data = small_data();
    let level = |i: usize, p: usize| ((7 * i + p) % 256) as f32;
    let test = Request { split: Split::Test, batch_size: 5, epoch: 0, index: 0, seed: 0 };
    let build = |name, key: &str, value: &str| {
        retrograd_datasets::task(name, &Options::new().with_data(data.path()).with(key, value))
    };
    let cell =
        |b: &Batch, t: usize, n: usize, c: usize| b.x.get((t * b.rows() + n) * b.x.dims()[2] + c).re as f32;

    let pixels = build("mnist", "recipe", "kru")?.batch(&test)?;
    assert_eq!(cell(&pixels, 100, 3, 0), level(3, 100) / 255.0);
    let rows = build("rowmnist", "recipe", "lrd")?.batch(&test)?;
    assert_eq!(cell(&rows, 2, 4, 5), level(4, 61) / 256.0);
    // numpy.random.RandomState(92916).permutation(784)[:2] is [319, 576].
    let permuted = build("psmnist", "recipe", "fcurnn")?.batch(&test)?;
    assert_eq!(cell(&permuted, 0, 1, 0), level(1, 319) / 255.0);
    assert_eq!(cell(&permuted, 1, 1, 0), level(1, 576) / 255.0);
    let longer = build("psmnist", "recipe", "nru")?.batch(&test)?;
    assert_eq!(longer.steps(), 785);
    assert!((0..5).all(|n| cell(&longer, 784, n, 0) == 0.0));
    assert_eq!(longer.target.as_slice::<i32>()?, [0, 1, 2, 3, 4]);
    let noisy = build("noisymnist", "T", "60")?.batch(&test)?;
    let noise: Vec<f64> = (28 * 5 * 28..noisy.x.len()).map(|i| noisy.x.get(i).re).collect();
    let mean = noise.iter().sum::<f64>() / noise.len() as f64;
    let square = noise.iter().map(|x| x * x).sum::<f64>() / noise.len() as f64;
    // 4 480 draws; five standard errors.
    assert!(mean.abs() < 0.075 && (square - 1.0).abs() < 0.106, "{mean} {square}");
    Ok(())
}

#[test]
fn text_symbols() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path());
    let request = Request { split: Split::Test, batch_size: 1, epoch: 0, index: 0, seed: 0 };

    // Words by falling frequency: <eos> 3, cat 3, the 3, sat 2, <unk>, a, dog, on.
    let words = retrograd_datasets::task("ptbword", &base)?;
    assert_eq!(words.spec().input, Input::Index { vocabulary: 8 });
    let batch = words.batch(&request)?;
    assert_eq!(batch.target.as_slice::<i32>()?, [7, 2, 6, 0]);
    assert_eq!(batch.x.as_slice::<i32>()?, [0, 7, 2, 6]);

    // Symbols in ASCII order: \n < > _ a c d e g h k n o s t u.
    let spelled = retrograd_datasets::task("ptbchar", &base)?;
    assert_eq!(spelled.spec().input, Input::Index { vocabulary: 16 });
    assert_eq!(spelled.batch(&request)?.target.as_slice::<i32>()?, [12, 11, 3, 14, 9, 7, 3, 6, 12, 8, 0]);
    // Without < > k u, with <unk>: one symbol for five.
    let joined = retrograd_datasets::task("ptbchar", &base.clone().with("unk", "symbol"))?;
    assert_eq!(joined.spec().input, Input::Index { vocabulary: 13 });
    // Without the line feed: the end of a sentence reads as a blank.
    let lines = retrograd_datasets::task("ptbchar", &base.clone().with("end", "blank"))?;
    assert_eq!(lines.spec().input, Input::Index { vocabulary: 15 });
    assert_eq!(lines.batch(&request)?.target.as_slice::<i32>()?, [11, 10, 2, 13, 8, 6, 2, 5, 11, 7, 2]);
    let both = base.with("end", "blank").with("mode", "sentence");
    assert!(matches!(retrograd_datasets::task("ptbchar", &both), Err(Error::BadOption { key: "end", .. })));
    Ok(())
}

#[test]
fn sensor_windows() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path());
    let request = |split| Request { split, batch_size: 20, epoch: 0, index: 0, seed: 0 };
    // Five training people, of whom the fifth validates.
    let six = retrograd_datasets::task("har", &base)?;
    assert_eq!(Split::ALL.map(|s| six.examples(s)), [8, 2, 4]);
    assert_eq!(six.batch(&request(Split::Test))?.target.as_slice::<i32>()?, [0, 1, 2, 3]);
    let full = retrograd_datasets::task("har", &base.clone().with("split", "full"))?;
    assert_eq!(Split::ALL.map(|s| full.examples(s)), [10, 2, 4]);
    // Labels 1 2 3 4: odd, even, odd, even.
    let two = retrograd_datasets::task("har-2", &base)?;
    assert_eq!(two.batch(&request(Split::Test))?.target.as_slice::<i32>()?, [1, 0, 1, 0]);
    // Signal c of window i at step t is c + i + t/100: over windows 0 to 9 the mean is c + 4.5 + 0.635.
    let batch = full.batch(&request(Split::Test))?;
    let at = |t: usize, n: usize, c: usize| batch.x.get((t * 4 + n) * 9 + c).re;
    let variance = 99.0 / 12.0 + (128f64 * 128.0 - 1.0) / 12.0 / 1e4;
    for (t, n, c) in [(0, 0, 0), (127, 3, 8), (50, 2, 4)] {
        let want = (n as f64 + t as f64 / 100.0 - 4.5 - 0.635) / variance.sqrt();
        assert!((at(t, n, c) - want).abs() < 1e-5, "{} vs {want}", at(t, n, c));
    }
    // Transitions are left out of six classes: labels 7 to 12.
    let hapt = retrograd_datasets::task("hapt", &base)?;
    assert_eq!(hapt.batch(&request(Split::Test))?.target.as_slice::<i32>()?, [0, 1, 2, 3, 4, 5, 0]);
    Ok(())
}

#[test]
fn images_as_rows_and_pixels() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path()).with("set", "part");
    let request = Request { split: Split::Test, batch_size: 3, epoch: 0, index: 0, seed: 0 };
    let pixels = retrograd_datasets::task("cifar", &base)?.batch(&request)?;
    let rows = retrograd_datasets::task("rowcifar", &base)?.batch(&request)?;
    assert_eq!((pixels.x.dims(), rows.x.dims()), (&[1024, 3, 3][..], &[32, 3, 96][..]));
    for (row, column, image, color) in [(0, 0, 0, 0), (3, 7, 1, 2), (31, 31, 2, 1)] {
        let one = pixels.x.get(((row * 32 + column) * 3 + image) * 3 + color);
        assert_eq!(one, rows.x.get((row * 3 + image) * 96 + column * 3 + color));
    }
    let full = retrograd_datasets::task("cifar", &base.clone().with("set", "full"))?;
    assert_eq!(Split::ALL.map(|s| full.examples(s)), [20, 5, 6]);
    // A file of the full set that is not there is named.
    std::fs::remove_file(data.path().join("cifar10/data_batch_3.bin"))?;
    let missing = retrograd_datasets::task("cifar", &base.with("set", "full")).err().unwrap().to_string();
    assert!(missing.contains("data_batch_3.bin") && missing.contains("set=part"), "{missing}");
    Ok(())
}

#[test]
fn speech_splits_and_classes() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path());
    let request = |batch_size| Request { split: Split::Test, batch_size, epoch: 0, index: 0, seed: 0 };
    let thirty = retrograd_datasets::task("google-30", &base)?;
    assert_eq!(Split::ALL.map(|s| thirty.examples(s)), [60, 30, 30]);
    let batch = thirty.batch(&request(30))?;
    assert_eq!(batch.x.dims(), [99, 30, 32]);
    assert_eq!(batch.target.as_slice::<i32>()?, (0..30).collect::<Vec<i32>>());
    // Ten words, one unknown, one background; twenty words make two of each.
    let twelve = retrograd_datasets::task("google-12", &base)?;
    assert_eq!(Split::ALL.map(|s| twelve.examples(s)), [24, 12, 12]);
    assert_eq!(twelve.batch(&request(12))?.target.as_slice::<i32>()?, (0..12).collect::<Vec<i32>>());
    // A list that names what is not there.
    support::put(data.path(), "speech_commands/testing_list.txt", "yes/none.wav\n");
    let message = retrograd_datasets::task("google-30", &base).err().unwrap().to_string();
    assert!(message.contains("testing_list.txt") && message.contains("names 1 recordings, 0"), "{message}");
    Ok(())
}

#[test]
fn phones_of_frames_and_words_of_reviews() -> Check {
    let data = small_data();
    let base = Options::new().with_data(data.path());
    let request = |batch_size| Request { split: Split::Test, batch_size, epoch: 0, index: 0, seed: 0 };
    let timit = retrograd_datasets::task("timit", &base.clone().with("held-out", 2))?;
    // Without the `SA` sentences, in order of their names: SI1027, SX127, SX37.
    assert_eq!(Split::ALL.map(|s| timit.examples(s)), [4, 2, 3]);
    let batch = timit.batch(&request(1))?;
    // 2000 samples are 11 frames with middles 200, 360, ...; h# is 27, sh 49, ix 31 of the alphabet.
    assert_eq!(batch.target.as_slice::<i32>()?, [27, 27, 27, 27, 49, 49, 31, 31, 31, 31, 31]);
    assert_eq!(batch.x.dims(), [11, 1, 26]);

    // Twenty reviews: the words in the ten first are good 20, food, i'd, été 10, go, again 20 times.
    let yelp = retrograd_datasets::task("yelp-5", &base.with("T", 6).with("vocabulary", 6))?;
    assert_eq!(Split::ALL.map(|s| yelp.examples(s)), [9, 1, 10]);
    let batch = yelp.batch(&request(2))?;
    let steps: Vec<i32> = batch.x.as_slice::<i32>()?.iter().copied().step_by(2).collect();
    // again 2, go 3, good 4, and of three words that are equally frequent the first in the alphabet: food 5.
    assert_eq!(steps, [0, 4, 4, 5, 1, 1]);
    let steps: Vec<i32> = batch.x.as_slice::<i32>()?.iter().copied().skip(1).step_by(2).collect();
    assert_eq!(steps, [4, 4, 5, 1, 3, 2]);
    assert_eq!(batch.target.as_slice::<i32>()?, [0, 1]);
    Ok(())
}
