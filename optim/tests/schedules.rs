//! Schedules: values against their formulas, and the plateau's memory.

use retrograd_optim::{Clock, LrSchedule, LrState, ReduceOnPlateau, Result, Settings, schedule};

fn build(name: &str, texts: &[&str]) -> Result<Box<dyn LrSchedule>> {
    schedule(name, &Settings::parse(texts)?)
}

#[test]
fn values() -> Result<()> {
    let rows: &[(&str, &[&str], [u64; 2], f64)] = &[
        // name, settings, [step, epoch], factor by the formula in the schedule's doc
        ("constant", &[], [1000, 10], 1.0),
        ("decay", &["every=3", "gamma=0.5"], [99, 2], 1.0),
        ("decay", &["every=3", "gamma=0.5"], [99, 7], 0.25),
        ("decay", &["every=50", "unit=step"], [99, 7], 0.1),
        ("exponential", &["gamma=0.9"], [0, 2], 0.81),
        ("exponential", &["gamma=0.5", "unit=step"], [3, 0], 0.125),
        ("cosine", &["over=4"], [0, 0], 1.0),
        ("cosine", &["over=4"], [0, 2], 0.5),
        ("cosine", &["over=4", "floor=0.2"], [0, 1], 0.2 + 0.4 * (1.0 + std::f64::consts::FRAC_1_SQRT_2)),
        ("cosine", &["over=4", "floor=0.2"], [0, 9], 0.2),
        ("warmup", &["steps=10"], [0, 0], 0.1),
        ("warmup", &["steps=10", "start=0.5"], [4, 0], 0.75),
        ("warmup", &["steps=10"], [10, 0], 1.0),
        ("warmup", &["steps=10", "then=exponential", "then.gamma=0.5"], [4, 1], 0.25),
    ];
    for (name, texts, [step, epoch], expected) in rows {
        let factor = build(name, texts)?.factor(Clock { step: *step, epoch: *epoch }, &LrState::default());
        assert!((factor - expected).abs() < 1e-15, "{name} {texts:?}: {factor}, expected {expected}");
    }
    Ok(())
}

/// Metrics shown one after another and the factor after each; worked out by hand from PyTorch's rule.
#[test]
fn plateau() -> Result<()> {
    let rows: &[(&[&str], &[f64], &[f64])] = &[
        (&["patience=1", "gamma=0.5"], &[1.0, 1.0, 1.0, 1.0, 1.0], &[1.0, 1.0, 0.5, 0.5, 0.25]),
        (&["patience=0", "gamma=0.5"], &[2.0, 1.0, 1.1, 0.9, 0.95], &[1.0, 1.0, 0.5, 0.5, 0.25]),
        (&["patience=0", "gamma=0.5", "cooldown=1"], &[1.0, 1.0, 1.0, 1.0], &[1.0, 0.5, 0.5, 0.25]),
        (&["patience=0", "gamma=0.5", "floor=0.4"], &[1.0, 1.0, 1.0], &[1.0, 0.5, 0.4]),
        (&["patience=0", "gamma=0.5", "maximize=true"], &[1.0, 2.0, 1.5], &[1.0, 1.0, 0.5]),
        (&["patience=0", "gamma=0.5", "threshold=0.1"], &[1.0, 0.95, 0.8], &[1.0, 0.5, 0.5]),
        (&["patience=0", "gamma=0.5", "threshold=0.1"], &[-1.0, -1.05, -1.2], &[1.0, 0.5, 0.5]),
        (&["patience=0", "gamma=0.5"], &[f64::NAN, 1.0, f64::NAN], &[0.5, 0.5, 0.25]),
    ];
    for (texts, metrics, factors) in rows {
        let plateau = build("plateau", texts)?;
        let mut state = LrState::default();
        for (i, (&metric, &factor)) in metrics.iter().zip(*factors).enumerate() {
            let before = state.factor;
            let reduced = plateau.observe(metric, &mut state);
            assert_eq!(plateau.factor(Clock::default(), &state), factor, "{texts:?} {metrics:?} [{i}]");
            assert_eq!(reduced, factor < before);
            // Stored and read back in the middle it goes on alike.
            state = LrState::from_params(&state.to_params()?)?;
        }
    }
    Ok(())
}

#[test]
fn kru_on_penn_treebank_reduces_after_every_epoch_that_does_not_improve() {
    let (kru, mut state) = (ReduceOnPlateau::kru_ptb(), LrState::default());
    let reduced: Vec<_> = [1.9, 1.8, 1.8, 1.79999, 1.81].map(|bpc| kru.observe(bpc, &mut state)).to_vec();
    assert_eq!(reduced, [false, false, true, false, true]);
    assert_eq!(state.factor, 0.3 * 0.3);
}

#[test]
fn warm_up_passes_metrics_on() -> Result<()> {
    let warm = build("warmup", &["steps=2", "then=plateau", "then.patience=0"])?;
    let mut state = LrState::default();
    assert!(!warm.observe(1.0, &mut state));
    assert!(warm.observe(1.0, &mut state));
    assert_eq!(warm.factor(Clock { step: 5, epoch: 0 }, &state), 0.1);
    Ok(())
}
