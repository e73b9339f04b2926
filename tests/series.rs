//! Training on a file of numbers: read piece by piece or in memory, the network is the same to the last bit.
#![allow(clippy::unwrap_used)]

use retrograd::Params;
use retrograd::datasets::Split;
use retrograd::train::{TrainConfig, Trainer};

/// 3000 steps of two channels, bare.
fn recording(folder: &std::path::Path) -> String {
    let step = |t: u32| [(t as f32 * 0.3).sin(), (t as f32 * 0.618_034).fract() - 0.5];
    let bytes: Vec<u8> = (0..3000).flat_map(step).flat_map(f32::to_le_bytes).collect();
    let path = folder.join("signal");
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().into()
}

struct Outcome {
    params: Params,
    valid: f64,
    planned: usize,
    measured: usize,
}

fn train(file: &str, cell: &str, settings: &[&str], budget: Option<usize>) -> retrograd::Result<Outcome> {
    let mut config = TrainConfig::new("series", cell, None)?;
    config.set_all([&format!("file={file}"), "channels=2", "hidden=6", "steps=3"])?;
    config.set_all(settings)?;
    config.budget = budget;
    config.threads = Some(2);
    let mut trainer = Trainer::new(config)?;
    let planned = trainer.planned_bytes()?;
    while trainer.ended().is_none() {
        trainer.step()?;
    }
    let measured = trainer.peak().measured_bytes;
    let valid = trainer.evaluate(Split::Valid, None)?.metric;
    Ok(Outcome { params: trainer.params().clone(), valid, planned, measured })
}

#[test]
fn pieces_and_whole_batches_train_the_same_network() -> retrograd::Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = recording(folder.path());
    for (cell, settings) in [
        ("lstm", &["batch=1"][..]),
        ("gru", &["batch=3", "eval_batch=2", "layers=2", "dropout=0.2"]),
        ("kru", &["batch=2", "precision=f64", "hidden=8", "horizon=40"]),
        ("rnn", &["batch=2", "stash=bf16"]),
    ] {
        let whole = train(&file, cell, &[settings, &["window=1_000_000"]].concat(), None)?;
        for budget in [None, Some(500 << 10), Some(10 << 20)] {
            let pieces = train(&file, cell, settings, budget)?;
            let what = format!("{cell} {settings:?} in {budget:?}");
            for (name, tensor) in whole.params.iter() {
                assert!(pieces.params.get(name).unwrap().bit_eq(tensor), "{what}: {name} has other bits");
            }
            assert_eq!(pieces.valid.to_bits(), whole.valid.to_bits(), "{what}");
            assert!(budget.is_none_or(|b| pieces.planned <= b), "{what}: planned {}", pieces.planned);
            let (planned, measured) = (pieces.planned as f64, pieces.measured as f64);
            // Planned for are two pieces, of which a sequence that fits in one has only that; and an arena that is at most
            // 1/64 too large is kept from one piece to the next.
            let share = measured / planned;
            assert!(
                (0.8..=1.0 + 1.0 / 64.0).contains(&share),
                "{what}: planned {planned}, measured {measured}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_needs_whole_batches_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = recording(folder.path());
    for (settings, budget, want) in [
        (
            &["optimizer=kfac"][..],
            None,
            "kfac looks at whole batches, and those of series are read piece by piece",
        ),
        (&[], Some(1000), "a budget of 1000 B is too small"),
        (&["batch=2000"], None, "series: no batch of split valid"),
        (&["channels=7"], None, "24000 bytes of numbers, expected a multiple of 28"),
    ] {
        let all = [settings, &["eval_batch=2000"]].concat();
        let settings = if want.contains("split valid") { &all } else { settings };
        let got = train(&file, "lstm", settings, budget).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(got.contains(want), "{got:?} does not say {want:?}");
    }
}
