//! Every operation of the table, from its own spec: its derivatives are right, and the planned executor computes
//! what the reference computes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use retrograd_engine::{
    DType, Error, Params, Program, Result, RunOptions, Tape, Tensor, Var, gradcheck, reference, vjp,
};
use retrograd_ops::{Case, Field, OPS, OpSpec, Sampler};
use support::ratio;

/// Largest ratio between the planned executor and the reference. Both sum in their own order and round elementary
/// functions their own way, by up to a few units each.
const LIMIT: f64 = 30.0;

/// What to do with a case: the operation, the case, which inputs are complex.
type Visit<'a> = &'a mut dyn FnMut(&OpSpec, &Case, &[bool]) -> Result<Option<String>>;

/// Visits every case of every operation in every choice of real and complex inputs; all that fail are reported.
fn every_case(visit: Visit<'_>) {
    let mut failures = Vec::new();
    for op in OPS {
        assert!(!op.cases.is_empty(), "{} has no cases", op.name);
        for case in op.cases {
            for complex in case.fields() {
                let what = format!("{} ({}) complex {complex:?}", op.name, case.label);
                match visit(op, case, &complex) {
                    Ok(None) => {}
                    Ok(Some(wrong)) => failures.push(format!("{what}: {wrong}")),
                    Err(error) => failures.push(format!("{what}: {error}")),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

/// Inputs that a derivative is taken by.
fn differentiable(tape: &Tape, inputs: &[Var]) -> Vec<Var> {
    let ok = |v: &Var| tape.dtype(*v).is_ok_and(DType::is_differentiable);
    inputs.iter().copied().filter(ok).collect()
}

fn planned(tape: &Tape, outputs: &[Var], values: &[&Params], threads: usize) -> Result<Vec<Tensor>> {
    Program::new(tape, outputs, RunOptions { threads: Some(threads), ..Default::default() })?.run(values)
}

#[test]
fn derivatives_are_right() {
    every_case(&mut |_, case, complex| {
        let mut recorded = case.record(DType::F64, complex, &mut Sampler::roomy(11, case))?;
        let wrt = differentiable(&recorded.tape, &recorded.inputs);
        if wrt.is_empty() || !recorded.tape.dtype(recorded.output)?.is_differentiable() {
            return Ok(None);
        }
        let (outputs, values) = ([recorded.output], [&recorded.values]);
        let options = gradcheck::Options { max_components: 24, directions: 2, ..Default::default() };
        let report = gradcheck::check_reference(&mut recorded.tape, &outputs, &wrt, &values, &options)?;
        if !report.passed() {
            return Ok(Some(report.to_string()));
        }
        // The identity is first order: where a second derivative is a small difference of large numbers, both of its
        // sides are right and agree no better than those numbers are rounded.
        let options = gradcheck::Options { second_order: true, adjoint: false, ..options };
        let report = gradcheck::check_reference(&mut recorded.tape, &outputs, &wrt, &values, &options)?;
        Ok((!report.passed()).then(|| report.to_string()))
    });
}

/// The output of a case and its cotangents for a random cotangent of the output: what both evaluators compute.
fn with_cotangents(
    case: &Case,
    real: DType,
    complex: &[bool],
    mut sampler: Sampler,
) -> Result<(Tape, Vec<Var>, Params)> {
    let mut recorded = case.record(real, complex, &mut sampler)?;
    let tape = &mut recorded.tape;
    let mut outputs = vec![recorded.output];
    let ty = tape.ty(recorded.output)?.clone();
    if ty.dtype.is_differentiable() {
        let (t, n) = (sampler.size("T"), sampler.size("N"));
        let bar = tape.input("y_bar", ty.dtype, ty.shape.clone())?;
        recorded.values.insert("y_bar", sampler.direction(ty.dtype, &ty.shape.concrete(t, n))?);
        let wrt = differentiable(tape, &recorded.inputs);
        outputs.extend(vjp(tape, &[(recorded.output, bar)], &wrt)?.into_iter().flatten());
    }
    Ok((recorded.tape, outputs, recorded.values))
}

/// Why the planned executor's values are not the reference's, if they are not.
fn disagreement(tape: &Tape, outputs: &[Var], values: &Params) -> Result<Option<String>> {
    let expected = reference::evaluate(tape, outputs, &[values])?;
    let one = planned(tape, outputs, &[values], 1)?;
    let three = planned(tape, outputs, &[values], 3)?;
    for (i, ((expected, got), again)) in expected.iter().zip(&one).zip(&three).enumerate() {
        let what = if i == 0 { "value".into() } else { format!("cotangent {i}") };
        let n = values.iter().map(|(_, t)| t.len()).max().unwrap_or(1);
        let r = ratio(got, expected, 1e-3, n);
        if r >= LIMIT {
            return Ok(Some(format!("{what}, ratio {r:.1e}\n  planned   {got:?}\n  reference {expected:?}")));
        }
        if !got.bit_eq(again) {
            return Ok(Some(format!("{what} is not the same on 3 threads\n  {got:?}\n  {again:?}")));
        }
    }
    Ok(None)
}

#[test]
fn planned_equals_reference() {
    for real in [DType::F64, DType::F32] {
        every_case(&mut |_, case, complex| {
            for seed in 0..4 {
                let (tape, outputs, values) = with_cotangents(case, real, complex, Sampler::new(seed))?;
                if let Some(wrong) = disagreement(&tape, &outputs, &values)? {
                    return Ok(Some(format!("{real}, seed {seed}, {wrong}")));
                }
            }
            Ok(None)
        });
    }
}

#[test]
fn many_rows_and_steps() {
    // Beyond one block and one tile of every kernel.
    every_case(&mut |_, case, complex| {
        let sampler = Sampler::new(5).with_size("N", 70).with_size("T", 9);
        let (tape, outputs, values) = with_cotangents(case, DType::F32, complex, sampler)?;
        disagreement(&tape, &outputs, &values)
    });
}

#[test]
fn no_rows_and_no_steps() {
    every_case(&mut |_, case, complex| {
        let sampler = Sampler::new(2).with_size("N", 3).with_size("T", 2);
        let (tape, outputs, values) = with_cotangents(case, DType::F64, complex, sampler)?;
        let mut program = Program::new(&tape, &outputs, RunOptions::default())?;
        for (t, n) in [(0, 2), (2, 0), (0, 0)] {
            // What the run before left in memory must not show.
            program.run(&[&values])?;
            let mut empty = values.clone();
            for (name, _, ty) in tape.inputs() {
                let value = if ty.dtype == DType::I32 { 0.0 } else { 1.0 };
                empty.insert(name, Tensor::full(ty.dtype, ty.shape.concrete(t, n), value)?);
            }
            let expected = reference::evaluate(&tape, &outputs, &[&empty])?;
            for (i, (got, expected)) in program.run(&[&empty])?.iter().zip(&expected).enumerate() {
                if ratio(got, expected, 1e-3, 1) >= LIMIT {
                    let what = format!("T={t}, N={n}, output {i}");
                    return Ok(Some(format!("{what}\n  planned   {got:?}\n  reference {expected:?}")));
                }
            }
        }
        Ok(None)
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// The identities of [`derivatives_are_right`] at other values and sizes: one case of each operation, drawn.
    #[test]
    fn derivatives_are_right_anywhere(seed in any::<u64>(), pick in any::<usize>()) {
        for op in OPS {
            let case = &op.cases[pick % op.cases.len()];
            let fields = case.fields();
            let complex = &fields[(pick / 7) % fields.len()];
            let mut recorded = case.record(DType::F64, complex, &mut Sampler::new(seed)).unwrap();
            let wrt = differentiable(&recorded.tape, &recorded.inputs);
            if wrt.is_empty() || !recorded.tape.dtype(recorded.output).unwrap().is_differentiable() {
                continue;
            }
            let options = gradcheck::Options { max_components: 8, directions: 1, seed, ..Default::default() };
            let (outputs, values) = ([recorded.output], [&recorded.values]);
            let report =
                gradcheck::check_reference(&mut recorded.tape, &outputs, &wrt, &values, &options).unwrap();
            prop_assert!(report.passed(), "{} ({}) complex {complex:?}: {report}", op.name, case.label);
        }
    }
}

#[test]
fn integers_are_refused_where_numbers_are_expected() {
    // Every input that must not be an index, given one.
    every_case(&mut |op, case, complex| {
        for (i, arg) in case.inputs.iter().enumerate() {
            if matches!(arg.field, Field::Index { .. }) {
                continue;
            }
            let mut sampler = Sampler::new(1);
            let mut tape = Tape::new();
            let mut inputs = Vec::new();
            for (j, (arg, &complex)) in case.inputs.iter().zip(complex).enumerate() {
                let number = if complex { DType::C64 } else { DType::F64 };
                let index = i == j || matches!(arg.field, Field::Index { .. });
                let dtype = if index { DType::I32 } else { number };
                inputs.push(tape.input(&format!("x{j}"), dtype, sampler.shape(arg)?)?);
            }
            match (case.build)(&mut tape, &inputs) {
                Err(Error::DType { .. }) => {}
                // Rearrangements move whatever they are given.
                Ok(v) if moves_anything(&tape, v) => {}
                Ok(_) => return Ok(Some(format!("{} takes i32 as input {i}", op.name))),
                Err(other) => return Ok(Some(format!("input {i} as i32: {other}"))),
            }
        }
        Ok(None)
    });
}

/// Whether a value is an integer itself: what made it did not compute with it.
fn moves_anything(tape: &Tape, v: Var) -> bool {
    tape.dtype(v) == Ok(DType::I32)
}
