//! Trajectories against PyTorch and against the published codes' own formulas (`fixtures/*.py` made the numbers).

use crate::common::{build, components, param};
use retrograd_engine::DType;
use retrograd_optim::Result;
use serde_json::Value;

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Runs every case; `data` holds the start and the gradients.
fn run(data: &Value, cases: &Value) -> Result<usize> {
    let halve_after = data["halve_after"].as_u64().unwrap() as usize;
    let mut failures = Vec::new();
    for case in cases.as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let settings: Vec<_> =
            case["settings"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        let dtype = DType::ALL.into_iter().find(|d| d.name() == text("dtype")).unwrap();
        // Rounding of 20 updates; the reference rounds in another order.
        let tolerance = if dtype.real() == DType::F32 { 4e-6 } else { 4e-15 };
        let optimizer = build(text("optimizer"), &settings)?;
        let mut params = param(dtype, &numbers(&data["init"][text("dtype")]))?;
        let mut state = optimizer.init(&params)?;
        let path = case["path"].as_array().unwrap();
        assert_eq!(path.len(), 20);
        // Largest number so far: what rounding is relative to, as later updates may cancel it.
        let mut scale = 1.0f64;
        for (step, expected) in path.iter().enumerate() {
            let grads = param(dtype, &numbers(&data["grads"][text("dtype")][step]))?;
            optimizer.update(&grads, &mut state, &mut params, if step < halve_after { 1.0 } else { 0.5 })?;
            let expected = numbers(expected);
            scale = expected.iter().fold(scale, |m, x| m.max(x.abs()));
            let got = components(&params)?;
            let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / scale;
            // NaN must fail too.
            if worst.is_nan() || worst > tolerance {
                failures.push(format!("{}, step {step}: off by {worst:e}", text("name")));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(cases.as_array().unwrap().len())
}

#[test]
fn as_pytorch() -> Result<()> {
    let data = fixture(include_str!("../fixtures/torch_trajectories.json"));
    assert_eq!(run(&data, &data["cases"])?, 19);
    Ok(())
}

#[test]
fn as_the_published_codes() -> Result<()> {
    let data = fixture(include_str!("../fixtures/torch_trajectories.json"));
    let forms = fixture(include_str!("../fixtures/published_forms.json"));
    assert_eq!(run(&data, &forms["cases"])?, 12);
    Ok(())
}
