//! Pointwise operations against PyTorch, on the fixtures checked in with the script that made them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use num_complex::Complex64;
use retrograd_engine::{DType, Params, Result, Tape, Tensor, Var, reference, vjp};
use retrograd_ops::*;
use serde_json::Value;

type Build = fn(&mut Tape, &BTreeMap<String, Var>) -> Result<Var>;

/// Fixture and how to record it. The fixtures' `phase` is the angle, ours the number of modulus 1.
const CASES: &[(&str, Build)] = &[
    ("abs_complex", |t, v| abs(t, v["x"])),
    ("abs_real", |t, v| abs(t, v["x"])),
    ("real_complex", |t, v| real(t, v["x"])),
    ("imag_complex", |t, v| imag(t, v["x"])),
    ("conj_complex", |t, v| conj(t, v["x"])),
    ("phase_complex", |t, v| {
        let z = log(t, v["x"])?;
        imag(t, z)
    }),
    ("exp_complex", |t, v| exp(t, v["x"])),
    ("exp_real", |t, v| exp(t, v["x"])),
    ("log_complex", |t, v| log(t, v["x"])),
    ("log_real", |t, v| log(t, v["x"])),
    ("log1p_complex", |t, v| log1p(t, v["x"])),
    ("log1p_real", |t, v| log1p(t, v["x"])),
    ("expm1_complex", |t, v| expm1(t, v["x"])),
    ("expm1_real", |t, v| expm1(t, v["x"])),
    ("sqrt_complex", |t, v| sqrt(t, v["x"])),
    ("sqrt_real", |t, v| sqrt(t, v["x"])),
    ("sin_complex", |t, v| sin(t, v["x"])),
    ("sin_real", |t, v| sin(t, v["x"])),
    ("cos_complex", |t, v| cos(t, v["x"])),
    ("cos_real", |t, v| cos(t, v["x"])),
    ("tanh_complex", |t, v| tanh(t, v["x"])),
    ("tanh_real", |t, v| tanh(t, v["x"])),
    ("sigmoid_complex", |t, v| sigmoid(t, v["x"])),
    ("sigmoid_real", |t, v| sigmoid(t, v["x"])),
    ("square_complex", |t, v| square(t, v["x"])),
    ("reciprocal_complex", |t, v| recip(t, v["x"])),
    ("relu_real", |t, v| relu(t, v["x"])),
    ("leaky_relu_real", |t, v| leaky_relu(t, v["x"], 0.1)),
    ("elu_real", |t, v| elu(t, v["x"], 1.5)),
    ("softplus_real", |t, v| softplus(t, v["x"])),
    ("pow_real", |t, v| powf(t, v["x"], 2.5)),
    ("clamp_real", |t, v| clamp(t, v["x"], -0.5, 0.75)),
    ("crelu", |t, v| crelu(t, v["x"])),
    ("zrelu", |t, v| zrelu(t, v["x"])),
    ("from_parts", |t, v| complex(t, v["a"], v["b"])),
    ("polar", |t, v| polar(t, v["a"], v["b"])),
    ("mul_complex", |t, v| mul(t, v["a"], v["b"])),
    ("mul_complex_real", |t, v| mul(t, v["a"], v["b"])),
    ("mul_broadcast", |t, v| mul(t, v["a"], v["b"])),
    ("div_complex", |t, v| div(t, v["a"], v["b"])),
    ("div_real", |t, v| div(t, v["a"], v["b"])),
    ("maximum_real", |t, v| maximum(t, v["a"], v["b"])),
    ("modrelu_eps0", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::Exact)),
    ("modrelu_eps1e-5", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::RcUrnn)),
    ("modrelu_eps1e-7", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::Lrd)),
    ("modrelu_inside", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::FcUrnn)),
    ("modrelu_shifted", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::Eurnn)),
    ("modrelu_eps1e-5_at_zero", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::RcUrnn)),
    ("modrelu_sign_real", |t, v| modrelu(t, v["z"], v["b"], ModReluForm::Goru)),
];

fn tensor(json: &Value) -> std::result::Result<Tensor, Box<dyn Error>> {
    let dims: Vec<usize> = serde_json::from_value(json["dims"].clone())?;
    let data: Vec<f64> = serde_json::from_value(json["data"].clone())?;
    let complex = json["dtype"] == "C64";
    let mut x = Tensor::zeros(if complex { DType::C64 } else { DType::F64 }, dims)?;
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

/// Every element within 1e-13 of the element, or of the largest one times 1e-15.
fn close(a: &Tensor, b: &Tensor) -> bool {
    let largest = (0..b.len()).map(|i| b.get(i).norm()).fold(0.0, f64::max);
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && (0..b.len()).all(|i| (a.get(i) - b.get(i)).norm() <= 1e-13 * b.get(i).norm() + 1e-15 * largest)
}

#[test]
fn values_and_gradients_are_those_of_pytorch() -> std::result::Result<(), Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ops.json");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let fixtures = json["cases"].as_array().ok_or("no cases")?;
    let mut wrong = Vec::new();
    for (name, build) in CASES {
        let fixture = fixtures.iter().find(|c| c["name"] == *name).ok_or(*name)?;
        let (inputs, outputs) = (tensors(&fixture["inputs"])?, tensors(&fixture["outputs"])?);
        let (cotangents, grads) = (tensors(&fixture["cotangents"])?, tensors(&fixture["grads"])?);
        let mut tape = Tape::new();
        let mut values = Params::new();
        let mut vars = BTreeMap::new();
        for (k, x) in &inputs {
            vars.insert(k.clone(), tape.param(k, x.dtype(), x.dims())?);
            values.insert(k.as_str(), x.clone());
        }
        let y = build(&mut tape, &vars)?;
        let y_bar = &cotangents["y"];
        let seed = tape.param("y_bar", y_bar.dtype(), y_bar.dims())?;
        values.insert("y_bar", y_bar.clone());
        let wrt: Vec<Var> = grads.keys().map(|k| vars[k]).collect();
        let bars = vjp(&mut tape, &[(y, seed)], &wrt)?;
        let bars: Vec<Var> = bars.into_iter().collect::<Option<_>>().ok_or(*name)?;
        let found = reference::evaluate(&tape, &[vec![y], bars].concat(), &[&values])?;
        if !close(&found[0], &outputs["y"]) {
            wrong.push(format!("{name}: {:?}, PyTorch {:?}", found[0], outputs["y"]));
        }
        for ((k, expected), got) in grads.iter().zip(&found[1..]) {
            if !close(got, expected) {
                wrong.push(format!("{name}: gradient of {k} {got:?}, PyTorch {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
