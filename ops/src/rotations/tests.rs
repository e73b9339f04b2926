//! Values against rotations one by one, and what is refused.

use num_complex::Complex64;
use retrograd_engine::{DType, Error, Params, Result, Shape, Tape, Tensor, Var, reference};

use super::{RotationStyle, rotations};
use crate::spec::{Arg, Domain, Sampler};

/// The pairs of every layer, from the definition.
fn pairs(style: RotationStyle, n: usize) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    match style {
        RotationStyle::Tunable { capacity } => {
            for l in 0..capacity {
                all.extend((l % 2..n.saturating_sub(1)).step_by(2).map(|p| (p, p + 1)));
            }
        }
        RotationStyle::Fft => {
            let mut d = n / 2;
            while d > 0 {
                all.extend((0..n).filter(|p| p & d == 0).map(|p| (p, p + d)));
                d /= 2;
            }
        }
    }
    all
}

/// A product of random rows with random angles, and the same one rotation after the other.
fn compared(
    style: RotationStyle,
    n: usize,
    rows: usize,
    complex: bool,
    real: DType,
) -> Result<(Tensor, Tensor)> {
    let count = pairs(style, n).len();
    assert_eq!(style.count(n)?, count);
    let mut tape = Tape::new();
    let mut sampler = Sampler::new(n as u64).with_size("N", rows).with_size("H", n).with_size("R", count);
    let mut values = Params::new();
    let mut input =
        |tape: &mut Tape, name: &str, dims: &'static str, dtype: DType| -> Result<(Var, Tensor)> {
            let x = sampler.tensor(&Arg::either(dims, Domain::Any), dtype)?;
            values.insert(name, x.clone());
            let var = match dims {
                "R" => tape.param(name, dtype, [count])?,
                _ => tape.input(name, dtype, Shape::rows([n]))?,
            };
            Ok((var, x))
        };
    let field = if complex { real.complex().unwrap_or(real) } else { real };
    let (x, mut expected) = input(&mut tape, "x", "N H", field)?;
    let (theta, theta_values) = input(&mut tape, "theta", "R", real)?;
    let (phi, phi_values) = input(&mut tape, "phi", "R", real)?;
    let y = rotations(&mut tape, x, theta, complex.then_some(phi), style)?;
    let found = reference::evaluate(&tape, &[y], &[&values])?.remove(0);
    for (k, (p, q)) in pairs(style, n).into_iter().enumerate() {
        let (sin, cos) = theta_values.get(k).re.sin_cos();
        let phase = if complex { Complex64::cis(phi_values.get(k).re) } else { Complex64::ONE };
        let before = expected.clone();
        expected.fill_with(|i| {
            let (row, j) = (i / n, i % n);
            let (x_p, x_q) = (before.get(row * n + p), phase * before.get(row * n + q));
            match j {
                _ if j == p => cos * x_p - sin * x_q,
                _ if j == q => sin * x_p + cos * x_q,
                _ => before.get(i),
            }
        });
    }
    Ok((found, expected))
}

#[test]
fn one_rotation_after_the_other() -> Result<()> {
    let tunable = |capacity| RotationStyle::Tunable { capacity };
    let sizes = [1, 2, 3, 6, 7, 33].into_iter().flat_map(|n| [1, 2, 5].map(|l| (tunable(l), n)));
    for (style, n) in sizes.chain([1, 2, 4, 64].map(|n| (RotationStyle::Fft, n))) {
        for rows in [1, 3, 16, 21] {
            for complex in [false, true] {
                for (real, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-5)] {
                    let (found, expected) = compared(style, n, rows, complex, real)?;
                    let worst = (0..found.len()).map(|i| (found.get(i) - expected.get(i)).norm());
                    let worst = worst.fold(0.0, f64::max);
                    assert!(worst < tolerance * 3.0, "{style:?} {n} {rows} {complex} {real}: {worst:e}");
                }
            }
        }
    }
    Ok(())
}

/// A row alone has the bits it has among others.
#[test]
fn rows_do_not_know_each_other() -> Result<()> {
    let style = RotationStyle::Tunable { capacity: 4 };
    let mut tape = Tape::new();
    let x = tape.input("x", DType::C32, Shape::rows([9]))?;
    let theta = tape.param("theta", DType::F32, [16])?;
    let phi = tape.param("phi", DType::F32, [16])?;
    let y = rotations(&mut tape, x, theta, Some(phi), style)?;
    let mut sampler = Sampler::new(1).with_size("N", 19).with_size("H", 9).with_size("R", 16);
    let all = sampler.tensor(&Arg::complex("N H", Domain::Any), DType::C32)?;
    let mut values = Params::new();
    for name in ["theta", "phi"] {
        values.insert(name, sampler.tensor(&Arg::real("R", Domain::Any), DType::F32)?);
    }
    values.insert("x", all.clone());
    let together = reference::evaluate(&tape, &[y], &[&values])?.remove(0);
    for row in 0..19 {
        let mut one = Tensor::zeros(DType::C32, [1, 9])?;
        one.fill_with(|i| all.get(row * 9 + i));
        values.insert("x", one);
        let alone = reference::evaluate(&tape, &[y], &[&values])?.remove(0);
        assert!((0..9).all(|i| alone.get(i) == together.get(row * 9 + i)), "row {row}");
    }
    Ok(())
}

#[test]
fn errors() -> Result<()> {
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F32, Shape::rows([6]))?;
    let z = tape.input("z", DType::C32, Shape::rows([6]))?;
    let angles = tape.param("angles", DType::F32, [5])?;
    let few = tape.param("few", DType::F32, [4])?;
    let complex = tape.param("complex", DType::C32, [5])?;
    let wide = tape.param("wide", DType::F64, [5])?;
    let style = RotationStyle::Tunable { capacity: 2 };
    assert!(rotations(&mut tape, z, angles, Some(angles), style).is_ok());
    for (x, theta, phi) in
        [(x, angles, Some(angles)), (z, complex, None), (z, angles, Some(wide)), (x, wide, None)]
    {
        let found = rotations(&mut tape, x, theta, phi, style);
        assert!(matches!(found, Err(Error::DType { .. })), "{found:?}");
    }
    let message = rotations(&mut tape, x, few, None, style).map_err(|e| e.to_string());
    assert!(message.as_ref().is_err_and(|m| m.contains("[5]") && m.contains("theta")), "{message:?}");
    let message = rotations(&mut tape, x, angles, None, RotationStyle::Fft).map_err(|e| e.to_string());
    assert!(message.as_ref().is_err_and(|m| m.contains("a power of two")), "{message:?}");
    Ok(())
}
