//! The planned peak is the measured one, to the byte. Alone in its binary: the meter is global to the process.
#![allow(clippy::unwrap_used)]

use retrograd_engine::core_ops::{add, fill, neg, real, select, sum_dims, sum_rows, sum_steps};
use retrograd_engine::statistics::{StatisticsOptions, vjp_with_statistics};
use retrograd_engine::{
    DType, Params, Program, Result, RunOptions, Scan, Shape, Tape, Tensor, Ty, Var, grad, matmul, scan,
};

#[test]
fn planned_peak_is_measured_peak() -> Result<()> {
    // The last matrix is larger than a cache: threads share the calls of few rows.
    for (dtype, statistics, size) in [
        (DType::F32, false, 8),
        (DType::C64, false, 8),
        (DType::F64, true, 8),
        (DType::C32, true, 8),
        (DType::F32, false, 531),
    ] {
        let mut tape = Tape::new();
        let t = &mut tape;
        let w = t.param("w", dtype, [size, size])?;
        let x = t.input("x", dtype, Shape::sequence([size]))?;
        let zero = fill(t, Ty::new(dtype, Shape::rows([size])), 0.0)?;
        let (h, ()) = scan(t, zero, x, |t, h, x| {
            let wh = matmul(t, h, w)?;
            Ok((add(t, wh, x)?, ()))
        })?;
        let sum = sum_rows(t, h)?;
        let sum = real(t, sum)?;
        let loss = sum_dims(t, sum, &[])?;
        let mut outputs = vec![loss];
        if statistics {
            let one = fill(t, t.ty(loss)?.clone(), 1.0)?;
            let options = StatisticsOptions::default();
            let (bars, found) = vjp_with_statistics(t, &[(loss, one)], &[w], &[w], &options)?;
            let m = &found.maps[0];
            outputs.extend([bars[0], m.a0, m.a1, Some(m.g0), m.g1].into_iter().flatten());
            assert_eq!(outputs.len(), 6);
        } else {
            outputs.extend(grad(t, loss, &[w])?);
        }
        let mut p = Params::new();
        p.insert("w", Tensor::full(dtype, [size, size], 0.1)?);
        for (steps, rows) in [(50, 6), (300, 2), (50, 6)] {
            p.insert("x", Tensor::full(dtype, [steps, rows, size], 1.0)?);
            for budget in [None, Some(1 << 20), Some(1 << 16)] {
                let options = RunOptions { budget, threads: Some(2), ..Default::default() };
                let mut program = Program::new(&tape, &outputs, options)?;
                let Ok(plan) = program.plan(steps, rows) else { continue };
                for _ in 0..2 {
                    drop(program.run(&[&p])?);
                    assert_eq!(program.last_peak_bytes(), plan.peak_bytes(), "{dtype} T={steps} {budget:?}");
                }
            }
        }
    }
    walked_back()
}

/// States that are walked back to.
fn walked_back() -> Result<()> {
    let mut tape = Tape::new();
    let t = &mut tape;
    let w = t.param("w", DType::F32, [8])?;
    let x = t.input("x", DType::F32, Shape::sequence([8]))?;
    let scan = Scan::new().walk_back(Some(7));
    let (h, y) = scan.run_reversible(
        t,
        w,
        x,
        |t, h, x| {
            let h = add(t, h, x)?;
            Ok((h, mixed_by_sign(t, h)?))
        },
        1.0,
        |t, h, x| {
            let x = neg(t, x)?;
            add(t, h, x)
        },
    )?;
    let y = sum_steps(t, y)?;
    let both = add(t, h, y)?;
    let sum = sum_rows(t, both)?;
    let loss = sum_dims(t, sum, &[])?;
    let mut outputs = vec![loss];
    outputs.extend(grad(t, loss, &[w])?);
    let mut p = Params::new();
    p.insert("w", Tensor::full(DType::F32, [8], 0.1)?);
    for (steps, rows) in [(50, 6), (300, 2)] {
        p.insert("x", Tensor::full(DType::F32, [steps, rows, 8], 0.01)?);
        let mut program =
            Program::new(&tape, &outputs, RunOptions { threads: Some(2), ..Default::default() })?;
        let plan = program.plan(steps, rows)?;
        drop(program.run(&[&p])?);
        assert_eq!(program.last_peak_bytes(), plan.peak_bytes(), "walked back, T={steps}");
        assert!(program.last_drift().is_some());
    }
    Ok(())
}

/// A value whose gradient reads the state: where an entry is not zero, a mixture.
fn mixed_by_sign(t: &mut Tape, h: Var) -> Result<Var> {
    let eye = t.constant(Tensor::full(DType::F32, [8, 8], 0.5)?);
    let mixed = matmul(t, h, eye)?;
    select(t, h, mixed, h)
}
