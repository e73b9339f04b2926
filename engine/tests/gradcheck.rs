//! Gradient checks of the engine's own operations and of scans, and of rules that are wrong on purpose.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Mistake, mul, params, random, tanh, wrong_mul};
use retrograd_engine::core_ops::{
    add, cast, concat, conj, extent, imag, neg, real, select, step_index, stop_gradient, sum_dims, sum_rows,
    sum_steps, times_i, to_complex,
};
use retrograd_engine::gradcheck::{Options, Part, Report, check, check_reference};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::matmul::{MatMul, RowContract, matmul_with, row_contract};
use retrograd_engine::{
    DType, Error, Horizon, Lead, Params, Result, Scan, Shape, Tape, Tensor, Var, matmul, reference,
};
use smallvec::smallvec;

const T: usize = 4;
const N: usize = 3;

fn second_order() -> Options {
    Options { second_order: true, ..Options::default() }
}

/// Declares inputs and checks what `build` makes of them, to second order.
fn check_program(
    name: &str,
    inputs: &[(DType, Shape)],
    build: impl FnOnce(&mut Tape, &[Var]) -> Result<Vec<Var>>,
) -> Report {
    let run = || -> Result<Report> {
        let mut tape = Tape::new();
        let mut data = Params::new();
        let mut vars = Vec::new();
        for (i, (dtype, shape)) in inputs.iter().enumerate() {
            vars.push(tape.input(&format!("x{i}"), *dtype, shape.clone())?);
            data.insert(format!("x{i}"), random(*dtype, &shape.concrete(T, N), 10 * i as u64 + 1)?);
        }
        let outputs = build(&mut tape, &vars)?;
        check_reference(&mut tape, &outputs, &vars, &[&data], &second_order())
    };
    let report = run().unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(report.passed(), "{name}: {report}");
    assert!(report.first.adjoint.is_some() && report.checked() > 0, "{name}");
    report
}

const R: DType = DType::F64;
const C: DType = DType::C64;

/// A nonlinear function of a value, so that second derivatives are not zero.
fn bend(tape: &mut Tape, x: Var) -> Result<Var> {
    mul(tape, x, x)
}

#[test]
fn pointwise_operations() {
    let rows = || Shape::rows([2, 3]);
    for (a, b) in [(R, R), (R, C), (C, R), (C, C)] {
        let two = [(a, rows()), (b, Shape::shared([3]))];
        check_program("add", &two, |t, x| {
            let y = add(t, x[0], x[1])?;
            Ok(vec![bend(t, y)?])
        });
        check_program(
            "select",
            &[(R, Shape::rows([2, 1])), (a, rows()), (b, Shape::sequence([3]))],
            |t, x| {
                let floor = stop_gradient(t, x[0])?;
                let c = neg(t, floor)?;
                let zero = t.scalar(c, 0.0)?;
                let c = select(t, zero, c, floor)?;
                let y = select(t, c, x[1], x[2])?;
                Ok(vec![bend(t, y)?])
            },
        );
    }
    for dtype in [R, C] {
        for (name, op) in [
            ("neg", neg as fn(&mut Tape, Var) -> Result<Var>),
            ("real", real),
            ("imag", imag),
            ("conj", conj),
            ("to_complex", to_complex),
            ("times_i", times_i),
        ] {
            check_program(name, &[(dtype, rows())], |t, x| {
                let y = op(t, x[0])?;
                Ok(vec![mul(t, y, x[0])?, bend(t, y)?])
            });
        }
    }
}

#[test]
fn products() {
    for (a, b) in [(R, R), (R, C), (C, R), (C, C)] {
        for bits in 0..8 {
            let on = |i: i32| bits & (1 << i) != 0;
            let flags = MatMul { transpose_b: on(0), conj_a: on(1), conj_b: on(2) };
            let dims = if flags.transpose_b { [4, 3] } else { [3, 4] };
            for lead in [Lead::Shared, Lead::N, Lead::TN] {
                let inputs = [(a, Shape::new(lead, [2, 3])), (b, Shape::shared(dims))];
                check_program(&format!("matmul {a} {b} {flags:?}"), &inputs, |t, x| {
                    let y = matmul_with(t, x[0], x[1], flags)?;
                    Ok(vec![bend(t, y)?])
                });
            }
            let flags = RowContract { conj_left: on(0), conj_right: on(1) };
            for (l, r) in [(Lead::TN, Lead::TN), (Lead::N, Lead::TN), (Lead::Shared, Lead::Shared)] {
                let inputs = [(a, Shape::new(l, [2, 3])), (b, Shape::new(r, [2, 4]))];
                if !on(2) {
                    check_program(&format!("row_contract {a} {b} {flags:?}"), &inputs, |t, x| {
                        let y = row_contract(t, x[0], x[1], flags)?;
                        Ok(vec![bend(t, y)?])
                    });
                }
            }
        }
    }
}

#[test]
fn layouts_sums_and_joins() {
    let layouts = [
        Layout::Reshape { dims: smallvec![3, 2] },
        Layout::Slice { axis: 1, start: 1, len: 2 },
        Layout::Pad { axis: 0, before: 1, total: 4 },
        Layout::Permute { order: smallvec![1, 0] },
        Layout::Flip { axis: 1 },
        Layout::Broadcast { dims: smallvec![4, 2, 3] },
    ];
    for dtype in [R, C] {
        for case in &layouts {
            check_program(&format!("{case:?}"), &[(dtype, Shape::sequence([2, 3]))], |t, x| {
                let y = layout(t, x[0], case.clone())?;
                Ok(vec![bend(t, y)?])
            });
        }
        check_program("sums", &[(dtype, Shape::sequence([2, 3, 2]))], |t, x| {
            let x = x[0];
            let all = [
                sum_dims(t, x, &[2, 1, 2])?,
                sum_dims(t, x, &[1, 3, 1])?,
                sum_dims(t, x, &[2])?,
                sum_rows(t, x)?,
                sum_steps(t, x)?,
            ];
            all.into_iter().map(|y| bend(t, y)).collect()
        });
        check_program("slices that cover", &[(dtype, Shape::rows([2, 5]))], |t, x| {
            let slice = |t: &mut Tape, start, len| layout(t, x[0], Layout::Slice { axis: 1, start, len });
            let (a, b) = (slice(t, 0, 2)?, slice(t, 2, 3)?);
            let overlap = slice(t, 1, 3)?;
            Ok(vec![bend(t, a)?, bend(t, b)?, bend(t, overlap)?])
        });
        let inputs =
            [(dtype, Shape::rows([2, 1])), (dtype, Shape::steps([2, 3])), (dtype, Shape::shared([2, 2]))];
        check_program("concat", &inputs, |t, x| {
            let y = concat(t, x, 1)?;
            let rows = extent(t, Lead::TN, R)?;
            let y = mul(t, y, rows)?;
            Ok(vec![bend(t, y)?])
        });
    }
}

/// A complex recurrence with gates, real and complex states, shared sequences, step numbers and lengths.
fn recurrence(tape: &mut Tape, scan: &Scan, v: &[Var], lengths: bool) -> Result<Vec<Var>> {
    let [w, u, b, row, h0, z0, x, s] = v[..] else { panic!("eight values") };
    let lengths = match lengths {
        true => Some(tape.input("lengths", DType::I32, Shape::rows([]))?),
        false => None,
    };
    let scan = scan.clone().lengths(lengths);
    let ((h, z), (y, early)) = scan.run(tape, (h0, z0), (x, s), |tape, (h, z), (x, s)| {
        let wh = matmul(tape, h, w)?;
        let sum = add(tape, wh, x)?;
        let bias = mul(tape, b, b)?; // the same at every step: leaves the loop
        let sum = add(tape, sum, bias)?;
        let new = tanh(tape, sum)?;
        let uz = matmul(tape, z, u)?;
        let number = step_index(tape, R)?;
        let turn = mul(tape, s, number)?;
        let uz = add(tape, uz, turn)?;
        let gated = mul(tape, uz, new)?;
        let gated = mul(tape, gated, row)?;
        let part = real(tape, gated)?;
        let h = add(tape, new, part)?;
        let h = layout(tape, h, Layout::Flip { axis: 0 })?;
        let small = tape.scalar(h, 0.3)?;
        Ok(((mul(tape, h, small)?, mul(tape, gated, small)?), (uz, z)))
    })?;
    let early = conj(tape, early)?;
    let y = mul(tape, y, early)?;
    let sum = sum_steps(tape, y)?;
    Ok(vec![h, z, sum, y])
}

fn recurrence_inputs() -> Vec<(&'static str, DType, Shape)> {
    vec![
        ("w", R, Shape::shared([2, 2])),
        ("u", C, Shape::shared([2, 2])),
        ("b", R, Shape::shared([2])),
        ("row", C, Shape::rows([2])),
        ("h0", R, Shape::shared([2])),
        ("z0", C, Shape::rows([2])),
        ("x", R, Shape::sequence([2])),
        ("s", C, Shape::steps([2])),
    ]
}

fn recurrence_report(scan: &Scan, lengths: Option<&[i32]>, options: &Options) -> Result<Report> {
    let mut tape = Tape::new();
    let mut data = Params::new();
    let mut vars = Vec::new();
    for (i, (name, dtype, shape)) in recurrence_inputs().into_iter().enumerate() {
        data.insert(name, random(dtype, &shape.concrete(T, N), 3 + i as u64)?);
        vars.push(match shape.lead {
            Lead::Shared => tape.param(name, dtype, &shape.dims)?,
            _ => tape.input(name, dtype, shape)?,
        });
    }
    if let Some(lengths) = lengths {
        data.insert("lengths", Tensor::from_slice([lengths.len()], lengths)?);
    }
    let outputs = recurrence(&mut tape, scan, &vars, lengths.is_some())?;
    check_reference(&mut tape, &outputs, &vars, &[&data], options)
}

#[test]
fn scans_to_second_order() -> Result<()> {
    for reverse in [false, true] {
        for lengths in [None, Some(&[4, 0, 2][..])] {
            let report = recurrence_report(&Scan::new().reverse(reverse), lengths, &second_order())?;
            assert!(report.passed(), "reverse {reverse}, lengths {lengths:?}: {report}");
            assert!(report.second.is_some());
        }
    }
    Ok(())
}

#[test]
fn a_horizon_differs_from_differences_but_its_rules_agree() -> Result<()> {
    for k in 1..=3 {
        let scan = Scan::new().horizon(Horizon::Steps(k)).reverse(k == 2);
        let report = recurrence_report(&scan, Some(&[4, 1, 3]), &second_order())?;
        assert!(report.failed() > 0, "{report}");
        assert!(report.adjoint_ratio() < 30.0, "{report}");
    }
    let report = recurrence_report(&Scan::new().horizon(Horizon::Steps(T)), None, &second_order())?;
    assert!(report.passed(), "a horizon of all steps cuts nowhere: {report}");
    Ok(())
}

fn mistaken(mistake: Mistake, dtype: DType) -> Result<Report> {
    let mut tape = Tape::new();
    let a = tape.param("a", dtype, [2])?;
    let b = tape.param("b", dtype, [2])?;
    let w = tape.param("w", R, [1])?;
    let y = wrong_mul(&mut tape, a, b, mistake)?;
    let y = add(&mut tape, y, w)?;
    let data =
        params([("a", random(dtype, &[2], 1)?), ("b", random(dtype, &[2], 2)?), ("w", random(R, &[1], 3)?)]);
    check_reference(&mut tape, &[y], &[a, b, w], &[&data], &Options::default())
}

#[test]
fn wrong_rules_are_caught_and_named() -> Result<()> {
    for dtype in [R, C] {
        assert!(mistaken(Mistake::None, dtype)?.passed());
        for mistake in
            [Mistake::Factor(2.0), Mistake::Factor(-1.0), Mistake::Factor(1.0 + 1e-7), Mistake::NoConj]
        {
            let report = mistaken(mistake, dtype)?;
            if (mistake, dtype) == (Mistake::NoConj, R) {
                assert!(report.passed(), "conjugating a real number does nothing");
                continue;
            }
            assert!(!report.passed(), "{mistake:?} {dtype}: {report}");
            assert!(report.failed() > 0 && report.adjoint_ratio() > 1e6, "{mistake:?} {dtype}: {report}");
            let worst = report.worst().unwrap();
            assert!(["a", "b"].contains(&worst.value.as_str()), "{report}");
            assert_eq!(worst.part == Part::Real, dtype == R);
            let w = report.first.values.iter().find(|v| v.name == "w").unwrap();
            assert_eq!((w.failed, w.checked), (0, 1), "the derivative by w is right");
            let text = report.to_string();
            assert!(text.starts_with("gradient check FAILED"), "{text}");
            assert!(text.contains(&format!("worst: `{}`{:?}", worst.value, worst.index)), "{text}");
        }
        // Rules that agree with each other are caught by differences alone.
        let report = mistaken(Mistake::Both(1.0 + 1e-7), dtype)?;
        assert!(!report.passed() && report.adjoint_ratio() < 30.0, "{report}");
    }
    Ok(())
}

#[test]
fn wrong_rules_inside_a_scan_are_caught() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", R, [2])?;
    let x = tape.input("x", R, Shape::sequence([2]))?;
    let (last, ()) = Scan::new().run(&mut tape, w, x, |tape, h, x| {
        let y = wrong_mul(tape, h, w, Mistake::Factor(1.0 + 1e-6))?;
        Ok((add(tape, y, x)?, ()))
    })?;
    let data = params([("w", random(R, &[2], 1)?), ("x", random(R, &[T, N, 2], 2)?)]);
    let report = check_reference(&mut tape, &[last], &[w, x], &[&data], &Options::default())?;
    assert!(!report.passed() && report.failed() > 0 && report.adjoint_ratio() > 1e4, "{report}");
    Ok(())
}

#[test]
fn large_values_are_sampled() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", C, [20, 10])?;
    let x = tape.input("x", R, Shape::rows([20]))?;
    let y = matmul(&mut tape, x, w)?;
    let y = bend(&mut tape, y)?;
    let data = params([("w", random(C, &[20, 10], 1)?), ("x", random(R, &[N, 20], 2)?)]);
    let options = Options { max_components: 16, directions: 3, ..second_order() };
    let report = check_reference(&mut tape, &[y], &[w, x], &[&data], &options)?;
    assert!(report.passed(), "{report}");
    assert_eq!(report.first.values.iter().map(|v| v.checked).collect::<Vec<_>>(), [19, 19]);
    assert_eq!(report.checked(), 4 * 19);
    Ok(())
}

#[test]
fn runners_are_called_and_their_errors_passed_on() -> Result<()> {
    let mut tape = Tape::new();
    let w = tape.param("w", R, [2])?;
    let y = bend(&mut tape, w)?;
    let data = params([("w", random(R, &[2], 1)?)]);
    let mut calls = 0;
    let report = check(&mut tape, &[y], &[w], &[&data], &Options::default(), &mut |tape, outputs, bound| {
        calls += 1;
        reference::evaluate(tape, outputs, bound)
    })?;
    assert!(report.passed() && report.runs == calls && calls > 2 * 4);
    let failing = check(&mut tape, &[y], &[w], &[&data], &Options::default(), &mut |_, _, _| {
        Err(Error::argument("runner", "out of order"))
    });
    assert_eq!(failing.unwrap_err(), Error::argument("runner", "out of order"));
    // A backend that is wrong in the derivative only: the third value asked for is the gradient.
    let mut calls = 0;
    let report = check(&mut tape, &[y], &[w], &[&data], &Options::default(), &mut |tape, outputs, bound| {
        calls += 1;
        let mut values = reference::evaluate(tape, outputs, bound)?;
        if calls == 2 {
            let right = values[0].clone();
            values[0].fill_with(|i| right.get(i) * if i == 1 { f64::NAN } else { 1.0 });
        }
        Ok(values)
    })?;
    assert!(!report.passed());
    assert_eq!(
        (report.worst().unwrap().error, &report.worst().unwrap().index[..]),
        (f64::INFINITY, &[1][..])
    );
    Ok(())
}

#[test]
fn what_cannot_be_checked_is_an_error() -> Result<()> {
    let mut tape = Tape::new();
    let single = tape.param("single", DType::F32, [2])?;
    let double = tape.param("double", R, [2])?;
    let squared = bend(&mut tape, double)?;
    let rounded = cast(&mut tape, squared, DType::F32)?;
    let data = params([("single", random(DType::F32, &[2], 1)?), ("double", random(R, &[2], 2)?)]);
    let options = Options::default();
    let mut message = |y: &[Var], wrt: &[Var]| {
        check_reference(&mut tape, y, wrt, &[&data], &options).unwrap_err().to_string()
    };
    assert_eq!(
        message(&[squared], &[single]),
        "gradcheck: element type of `single`, expected f64 or c64 (differences need double precision), got f32"
    );
    assert!(message(&[rounded], &[double]).starts_with("gradcheck: element type of output 0"));
    assert!(message(&[squared], &[squared]).contains("neither a parameter nor an input"));
    assert!(message(&[], &[double]).contains("nothing to check"));
    let missing = check_reference(&mut tape, &[squared], &[double], &[], &options).unwrap_err();
    assert!(missing.to_string().starts_with("binding `double`"), "{missing}");
    Ok(())
}
