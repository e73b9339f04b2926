//! Comparison with PyTorch on the fixtures checked in with the script that made them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use num_complex::Complex64;
use retrograd_engine::{DType, Params, Result, Tape, Tensor, Var, reference, vjp};
use serde_json::Value;

/// Records the operation on the inputs of a fixture.
pub(crate) type Build = fn(&mut Tape, &BTreeMap<String, Var>) -> Result<Var>;

fn tensor(json: &Value) -> std::result::Result<Tensor, Box<dyn Error>> {
    let dims: Vec<usize> = serde_json::from_value(json["dims"].clone())?;
    let data: Vec<f64> = serde_json::from_value(json["data"].clone())?;
    let complex = json["dtype"] == "C64";
    let dtype = match (complex, json["dtype"] == "I64") {
        (true, _) => DType::C64,
        (_, true) => DType::I32,
        _ => DType::F64,
    };
    let mut x = Tensor::zeros(dtype, dims)?;
    x.fill_with(|i| match complex {
        true => Complex64::new(data[2 * i], data[2 * i + 1]),
        false => Complex64::new(data[i], 0.0),
    });
    Ok(x)
}

fn tensors(json: &Value) -> std::result::Result<BTreeMap<String, Tensor>, Box<dyn Error>> {
    let map = json.as_object().ok_or("no object")?;
    map.iter().map(|(k, v)| Ok((k.clone(), tensor(v)?))).collect()
}

/// Every element within 1e-13 of the element, or of the largest one times `rounding`.
fn close(a: &Tensor, b: &Tensor, rounding: f64) -> bool {
    let largest = (0..b.len()).map(|i| b.get(i).norm()).fold(0.0, f64::max);
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && (0..b.len()).all(|i| (a.get(i) - b.get(i)).norm() <= 1e-13 * b.get(i).norm() + rounding * largest)
}

/// Holds values and gradients to PyTorch's. `rounding` is for sums that cancel, in units of the largest element.
pub(crate) fn hold(cases: &[(&str, Build)], rounding: f64) -> std::result::Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ops.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let fixtures = json["cases"].as_array().ok_or("no cases")?;
    let mut wrong = Vec::new();
    for (name, build) in cases {
        let fixture = fixtures.iter().find(|c| c["name"] == *name).ok_or(*name)?;
        let inputs = tensors(&fixture["inputs"])?;
        let (cotangents, grads) = (tensors(&fixture["cotangents"])?, tensors(&fixture["grads"])?);
        let mut tape = Tape::new();
        let mut values = Params::new();
        let mut vars = BTreeMap::new();
        for (k, x) in &inputs {
            vars.insert(k.clone(), tape.param(k, x.dtype(), x.dims())?);
            values.insert(k.as_str(), x.clone());
        }
        let y = build(&mut tape, &vars)?;
        let (output, y_bar) = cotangents.first_key_value().ok_or(*name)?;
        let expected = tensor(&fixture["outputs"][output])?;
        let seed = tape.param("y_bar", y_bar.dtype(), y_bar.dims())?;
        values.insert("y_bar", y_bar.clone());
        let wrt: Vec<Var> = grads.keys().map(|k| vars[k]).collect();
        let bars = vjp(&mut tape, &[(y, seed)], &wrt)?;
        let bars: Vec<Var> = bars.into_iter().collect::<Option<_>>().ok_or(*name)?;
        let found = reference::evaluate(&tape, &[vec![y], bars].concat(), &[&values])?;
        if !close(&found[0], &expected, rounding) {
            wrong.push(format!("{name}: {:?}, PyTorch {expected:?}", found[0]));
        }
        for ((k, expected), got) in grads.iter().zip(&found[1..]) {
            if !close(got, expected, rounding) {
                wrong.push(format!("{name}: gradient of {k} {got:?}, PyTorch {expected:?}"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
