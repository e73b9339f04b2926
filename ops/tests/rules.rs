//! Every operation of the table, held to what a rule must be, on inputs from its own spec.

use proptest::prelude::*;
use proptest::sample::select;
use retrograd_engine::{
    DType, Error, Lead, Params, Program, Result, RunOptions, Tape, Tensor, Var, gradcheck, reference, vjp,
};
use retrograd_ops::{Case, Field, OPS, OpSpec, Recorded, Sampler};

/// Every case of every operation in every choice of real and complex.
fn all() -> impl Iterator<Item = (&'static OpSpec, &'static Case, Vec<bool>)> {
    let cases = OPS.iter().flat_map(|op| op.cases.iter().map(move |case| (*op, case)));
    cases.flat_map(|(op, case)| case.fields().into_iter().map(move |fields| (op, case, fields)))
}

fn describe(op: &OpSpec, case: &Case, complex: &[bool]) -> String {
    format!("{} ({}), complex {complex:?}", op.name, case.label)
}

/// The inputs that have a derivative.
fn differentiable(case: &Case, recorded: &Recorded) -> Vec<Var> {
    let inputs = case.inputs.iter().zip(&recorded.inputs);
    inputs.filter(|(arg, _)| !matches!(arg.field, Field::Index { .. })).map(|(_, &v)| v).collect()
}

/// Derivatives of first and second order against finite differences, and the adjoint identity, at 1e-9.
fn gradients(op: &OpSpec, case: &Case, complex: &[bool], seed: u64) -> std::result::Result<(), String> {
    let name = describe(op, case, complex);
    let fail = |e: Error| format!("{name}, seed {seed}: {e}");
    let mut recorded = case.record(DType::F64, complex, &mut Sampler::new(seed)).map_err(fail)?;
    let value = reference::evaluate(&recorded.tape, &[recorded.output], &[&recorded.values]).map_err(fail)?;
    if !value[0].is_finite() {
        return Err(format!("{name}, seed {seed}: value {:?}", value[0]));
    }
    let wrt = differentiable(case, &recorded);
    let options = gradcheck::Options {
        second_order: true,
        max_components: 8,
        directions: 2,
        seed,
        ..Default::default()
    };
    let Recorded { tape, output, values, .. } = &mut recorded;
    let report = gradcheck::check_reference(tape, &[*output], &wrt, &[values], &options).map_err(fail)?;
    if report.passed() { Ok(()) } else { Err(format!("{name}, seed {seed}:\n{report}")) }
}

#[test]
fn every_case_passes_the_gradient_check() {
    let wrong: Vec<String> =
        all().filter_map(|(op, case, complex)| gradients(op, case, &complex, 1).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_sizes_and_values_pass_the_gradient_check(
        (op, case, complex) in select(all().collect::<Vec<_>>()),
        seed: u64,
    ) {
        prop_assert_eq!(gradients(op, case, &complex, seed), Ok(()));
    }
}

/// The value and the cotangents of the inputs for a random cotangent of the value, as outputs of the tape.
fn with_cotangents(case: &Case, recorded: &mut Recorded, sampler: &mut Sampler) -> Result<Vec<Var>> {
    let wrt = differentiable(case, recorded);
    let Recorded { tape, output, values, .. } = recorded;
    let y = reference::evaluate(tape, &[*output], &[values])?.remove(0);
    let ty = tape.ty(*output)?.clone();
    let y_bar = match ty.shape.lead {
        Lead::Shared => tape.param("y_bar", ty.dtype, &ty.shape.dims)?,
        _ => tape.input("y_bar", ty.dtype, ty.shape)?,
    };
    values.insert("y_bar", sampler.direction(ty.dtype, y.dims())?);
    let bars = vjp(tape, &[(*output, y_bar)], &wrt)?;
    let mut outputs = vec![*output];
    outputs.extend(bars.into_iter().flatten());
    Ok(outputs)
}

/// Largest difference in units of the largest number of `b`.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let scale = (0..b.len()).map(|i| b.get(i).norm()).fold(f64::MIN_POSITIVE, f64::max);
    (0..b.len()).map(|i| (a.get(i) - b.get(i)).norm()).fold(0.0, f64::max) / scale
}

#[test]
fn single_precision_agrees_with_double() -> Result<()> {
    let mut wrong = Vec::new();
    for (op, case, complex) in all() {
        let mut sampler = Sampler::new(5);
        let mut narrow = case.record(DType::F32, &complex, &mut sampler)?;
        let outputs = with_cotangents(case, &mut narrow, &mut sampler)?;
        let found = reference::evaluate(&narrow.tape, &outputs, &[&narrow.values])?;

        let mut sampler = Sampler::new(5);
        let mut wide = case.record(DType::F64, &complex, &mut sampler)?;
        let outputs = with_cotangents(case, &mut wide, &mut sampler)?;
        // The very numbers of the single precision.
        let mut values = Params::new();
        for (name, x) in narrow.values.iter() {
            let dtype = wide.values.require(name)?.dtype();
            values.insert(name, x.cast(dtype)?);
        }
        let expected = reference::evaluate(&wide.tape, &outputs, &[&values])?;
        for (a, b) in found.iter().zip(&expected) {
            let error = distance(a, b);
            if error.is_nan() || error > 2e-5 {
                wrong.push(format!("{}: {error:e}", describe(op, case, &complex)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_plan_computes_what_the_reference_computes() -> Result<()> {
    let mut wrong = Vec::new();
    for (op, case, complex) in all() {
        let mut sampler = Sampler::new(9);
        let mut recorded = case.record(DType::F64, &complex, &mut sampler)?;
        let outputs = with_cotangents(case, &mut recorded, &mut sampler)?;
        let expected = reference::evaluate(&recorded.tape, &outputs, &[&recorded.values])?;
        let options = RunOptions { threads: Some(1), ..Default::default() };
        let found = Program::new(&recorded.tape, &outputs, options)?.run(&[&recorded.values])?;
        for (a, b) in found.iter().zip(&expected) {
            let error = distance(a, b);
            if error.is_nan() || error > 1e-13 {
                wrong.push(format!("{}: {error:e}", describe(op, case, &complex)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A choice of fields and a letter to bind to 0.
type Empty = (&'static OpSpec, &'static Case, Vec<bool>, &'static str);

/// Every case with every letter bound to 0 that may be.
fn emptied() -> impl Iterator<Item = Empty> {
    all().flat_map(|(op, case, complex)| {
        let letters = case.inputs.iter().flat_map(|arg| arg.dims.split_whitespace());
        letters
            // There is no index below 0.
            .filter(|a| a.parse::<usize>().is_err() && !indexes(case, a))
            .map(|letter| (op, case, complex.clone(), letter))
            .collect::<Vec<_>>()
    })
}

fn indexes(case: &Case, letter: &str) -> bool {
    case.inputs.iter().any(|arg| matches!(arg.field, Field::Index { below } if below == letter))
}

/// Whether some input lacks the letter, so that its cotangent is a sum over the empty axis.
fn sums_over(case: &Case, letter: &str) -> bool {
    case.inputs.iter().any(|arg| !arg.dims.split_whitespace().any(|a| a == letter))
}

/// Sizes of 0 give empty values and zero gradients of the sizes of the inputs, or a typed error.
fn hold_when_empty(cases: impl Iterator<Item = Empty>) {
    // Documented to have no finite value for nothing: −∞ or NaN.
    const NOT_FINITE: [&str; 4] = ["max", "mean", "mean_all", "logsumexp"];
    let mut wrong = Vec::new();
    for (op, case, complex, letter) in cases.filter(|c| !NOT_FINITE.contains(&c.0.name)) {
        match empty(case, &complex, letter) {
            Ok(()) | Err(Error::Shape { .. } | Error::Argument { .. }) => {}
            Err(other) => wrong.push(format!("{}, {letter} = 0: {other}", describe(op, case, &complex))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn zero_sized_axes() {
    hold_when_empty(
        emptied().filter(|(_, case, complex, letter)| !complex.contains(&true) || !sums_over(case, letter)),
    );
}

#[test]
fn zero_sized_axes_of_complex_sums() {
    hold_when_empty(
        emptied().filter(|(_, case, complex, letter)| complex.contains(&true) && sums_over(case, letter)),
    );
}

fn empty(case: &Case, complex: &[bool], letter: &'static str) -> Result<()> {
    let mut sampler = Sampler::new(2).with_size(letter, 0);
    let mut recorded = case.record(DType::F64, complex, &mut sampler)?;
    let wrt = differentiable(case, &recorded);
    let outputs = with_cotangents(case, &mut recorded, &mut sampler)?;
    let found = reference::evaluate(&recorded.tape, &outputs, &[&recorded.values])?;
    for y in &found {
        if !y.is_finite() {
            return Err(Error::Binding { name: "not finite".into(), what: format!("{y:?}") });
        }
    }
    for (&x, bar) in wrt.iter().zip(&outputs[1..]).filter(|_| outputs.len() == wrt.len() + 1) {
        assert_eq!(recorded.tape.ty(x)?, recorded.tape.ty(*bar)?);
    }
    Ok(())
}

/// Records a case with an element type of the caller's choice for every differentiable input.
fn record_as(case: &Case, complex: &[bool], dtype: impl Fn(usize, bool) -> DType) -> Result<(Tape, Var)> {
    let mut tape = Tape::new();
    let mut sampler = Sampler::new(4);
    let mut inputs = Vec::new();
    for (i, (arg, &complex)) in case.inputs.iter().zip(complex).enumerate() {
        let dtype = match arg.field {
            Field::Index { .. } => DType::I32,
            _ => dtype(i, complex),
        };
        let shape = sampler.shape(arg)?;
        inputs.push(match shape.lead {
            Lead::Shared => tape.param(&format!("x{i}"), dtype, &shape.dims)?,
            _ => tape.input(&format!("x{i}"), dtype, shape)?,
        });
    }
    let y = (case.build)(&mut tape, &inputs)?;
    Ok((tape, y))
}

#[test]
fn mixed_precision_is_an_error() {
    for (op, case, complex) in all() {
        let reals = case.inputs.iter().filter(|arg| !matches!(arg.field, Field::Index { .. })).count();
        if reals < 2 {
            continue;
        }
        let first = case.inputs.iter().position(|arg| !matches!(arg.field, Field::Index { .. }));
        let found = record_as(case, &complex, |i, complex| match (Some(i) == first, complex) {
            (true, false) => DType::F32,
            (true, true) => DType::C32,
            (false, false) => DType::F64,
            (false, true) => DType::C64,
        });
        assert!(matches!(found, Err(Error::DType { .. })), "{}: {found:?}", describe(op, case, &complex));
    }
}

#[test]
fn indices_are_rearranged_or_refused() -> Result<()> {
    for (op, case, complex) in all() {
        if let Ok((tape, y)) = record_as(case, &complex, |_, _| DType::I32) {
            assert_eq!(tape.dtype(y)?, DType::I32, "{}", describe(op, case, &complex));
        }
    }
    Ok(())
}
