//! Tables of values for the operations' own tests: one row, one point, value and gradient there.

use num_complex::Complex64;
use retrograd_engine::core_ops::fill;
use retrograd_engine::{DType, Params, Result, Tape, Tensor, Var, reference, vjp};

/// A point, the value there, and the cotangents of the arguments for the cotangent 1 of the value.
pub(crate) type Row<'a> = (&'a [Complex64], Complex64, &'a [Complex64]);

/// A real number.
pub(crate) const fn r(x: f64) -> Complex64 {
    Complex64::new(x, 0.0)
}

/// A complex number.
pub(crate) const fn c(re: f64, im: f64) -> Complex64 {
    Complex64::new(re, im)
}

/// Equal, both NaN, or within 8 roundings of the larger part.
fn close(a: Complex64, b: Complex64) -> bool {
    let scale = a.re.abs().max(a.im.abs());
    let part =
        |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 8.0 * f64::EPSILON * scale;
    part(a.re, b.re) && part(a.im, b.im)
}

/// Holds `op` to a table. Arguments are double precision, complex where `complex` says so.
pub(crate) fn check(
    op: impl Fn(&mut Tape, &[Var]) -> Result<Var>,
    complex: &[bool],
    rows: &[Row<'_>],
) -> Result<()> {
    let mut tape = Tape::new();
    let mut values = Params::new();
    let mut args = Vec::new();
    for (i, &complex) in complex.iter().enumerate() {
        let dtype = if complex { DType::C64 } else { DType::F64 };
        let name = format!("x{i}");
        args.push(tape.param(&name, dtype, [rows.len()])?);
        let mut x = Tensor::zeros(dtype, [rows.len()])?;
        x.fill_with(|k| rows[k].0[i]);
        values.insert(name, x);
    }
    let y = op(&mut tape, &args)?;
    let ty = tape.ty(y)?.clone();
    let one = fill(&mut tape, ty, 1.0)?;
    let bars = vjp(&mut tape, &[(y, one)], &args)?;
    let mut outputs = vec![y];
    outputs.extend(bars.iter().flatten());
    let found = reference::evaluate(&tape, &outputs, &[&values])?;
    let mut wrong = String::new();
    for (k, (x, y, x_bars)) in rows.iter().enumerate() {
        if !close(*y, found[0].get(k)) {
            wrong += &format!("\n{x:?}: value {y}, got {}", found[0].get(k));
        }
        let mut next = 1;
        for (i, bar) in bars.iter().enumerate() {
            let got = match bar {
                Some(_) => {
                    next += 1;
                    found[next - 1].get(k)
                }
                None => r(0.0),
            };
            if !close(x_bars[i], got) {
                wrong += &format!("\n{x:?}: gradient {i} {}, got {got}", x_bars[i]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// [`check`] for a real function of one real argument: rows `(x, y, dy/dx)`.
pub(crate) fn check_real(op: impl Fn(&mut Tape, Var) -> Result<Var>, rows: &[(f64, f64, f64)]) -> Result<()> {
    let rows: Vec<_> = rows.iter().map(|&(x, y, d)| ([r(x)], r(y), [r(d)])).collect();
    let rows: Vec<Row<'_>> = rows.iter().map(|(x, y, d)| (&x[..], *y, &d[..])).collect();
    check(|tape, x| op(tape, x[0]), &[false], &rows)
}

/// [`check`] for a function of one complex argument: rows `(z, y, z_bar)`.
pub(crate) fn check_complex(
    op: impl Fn(&mut Tape, Var) -> Result<Var>,
    rows: &[(Complex64, Complex64, Complex64)],
) -> Result<()> {
    let rows: Vec<_> = rows.iter().map(|&(x, y, d)| ([x], y, [d])).collect();
    let rows: Vec<Row<'_>> = rows.iter().map(|(x, y, d)| (&x[..], *y, &d[..])).collect();
    check(|tape, x| op(tape, x[0]), &[true], &rows)
}

/// Whether `op` refuses a complex argument.
pub(crate) fn refuses_complex(op: impl Fn(&mut Tape, Var) -> Result<Var>) -> Result<bool> {
    let mut tape = Tape::new();
    let z = tape.param("z", DType::C64, [2])?;
    Ok(matches!(op(&mut tape, z), Err(retrograd_engine::Error::DType { .. })))
}
