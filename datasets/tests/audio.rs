//! Features of speech against those of `python_speech_features`; the script beside the fixture made it.
#![allow(clippy::unwrap_used, clippy::panic)]

use retrograd_datasets::audio::{Features, Window, differences};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    signal: Vec<i16>,
    log_mel: Vec<Vec<f64>>,
    cepstra: Vec<Vec<f64>>,
    differences: Vec<Vec<f64>>,
}

#[track_caller]
fn assert_same(got: &[Vec<f64>], want: &[Vec<f64>]) {
    let sizes = |f: &[Vec<f64>]| f.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(got), sizes(want));
    for (t, (got, want)) in got.iter().zip(want).enumerate() {
        for (c, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= 1e-9 * w.abs().max(1.0), "frame {t}, feature {c}: {g} vs {w}");
        }
    }
}

#[test]
fn features_are_those_of_the_reference() {
    let f: Fixture = serde_json::from_str(include_str!("fixtures/audio.json")).unwrap();
    let mel = Features::new(16_000, 32, Window::Hamming);
    assert_same(&mel.log_mel(&f.signal), &f.log_mel);
    let cepstra = Features::new(16_000, 26, Window::Rectangular).cepstra(&f.signal, 13);
    assert_same(&cepstra, &f.cepstra);
    assert_same(&differences(&cepstra), &f.differences);
}

#[test]
fn lengths() {
    let features = Features::new(16_000, 32, Window::Hamming);
    for (samples, frames) in [(0, 1), (1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (16_000, 99)] {
        assert_eq!(features.frames(samples), frames);
        let silent = features.log_mel(&vec![0; samples]);
        assert_eq!(silent.len(), frames);
        // Silence is 2^-52 before the logarithm.
        assert!(silent.iter().flatten().all(|x| *x == f64::EPSILON.ln()));
    }
    assert_eq!((features.center(0), features.center(2)), (200, 520));
    assert!(differences(&[]).is_empty());
    // Any rate and number of filters, however odd.
    for (rate, filters) in [(1, 1), (100, 5), (8_000, 300), (48_000, 26), (u32::MAX, 3)] {
        let features = Features::new(rate, filters, Window::Hamming);
        let all = features.log_mel(&[1000, -1000, 500]);
        assert!(
            all.iter().all(|f| f.len() == filters && f.iter().all(|x| x.is_finite())),
            "{rate} {filters}"
        );
    }
}
