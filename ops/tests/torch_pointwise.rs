//! Pointwise operations against PyTorch.

mod torch;

use std::error::Error;

use retrograd_ops::*;
use torch::Build;

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

#[test]
fn values_and_gradients_are_those_of_pytorch() -> std::result::Result<(), Box<dyn Error>> {
    torch::hold(CASES, 1e-15)
}
