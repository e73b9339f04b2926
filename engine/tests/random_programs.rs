//! Random steps: a scan equals its steps written out, in values, gradients and Hessian-vector products.
#![allow(clippy::unwrap_used)]

mod common;
mod random_steps;

use common::{assert_close, distance};
use random_steps::{C, Case, R, at_step, bindings, case, derivatives, looped, outer, step};
use retrograd_engine::core_ops::select;
use retrograd_engine::gradcheck::{Options, check_reference};
use retrograd_engine::reference::evaluate;
use retrograd_engine::{Program, Result, RunOptions, Shape, Tape, Var};

/// The program with its steps written out; values in the order of [`looped`], sequences step by step.
fn unrolled(case: &Case, stacked_rows: [bool; 2]) -> Result<(Tape, Vec<Var>, Vec<Var>)> {
    let mut tape = Tape::new();
    let (o, mut state, mut wrt) = outer(&mut tape)?;
    let (mut ys, mut xs, mut ss) = (vec![], vec![], vec![]);
    for t in 0..case.steps {
        xs.push(tape.input(&format!("x_{t}"), R, Shape::rows([3]))?);
        ss.push(tape.input(&format!("s_{t}"), C, Shape::shared([3]))?);
    }
    for i in 0..case.steps {
        let t = if case.reverse { case.steps - 1 - i } else { i };
        let mask = tape.input(&format!("mask_{t}"), R, Shape::rows([1]))?;
        let (mut new, mut y) = step(&mut tape, state, [xs[t], ss[t]], &o, case.seed)?;
        if case.lengths.is_some() {
            for (new, old) in new.iter_mut().zip(state) {
                *new = select(&mut tape, mask, *new, old)?;
            }
            for y in &mut y {
                let zero = tape.scalar(*y, 0.0)?;
                *y = select(&mut tape, mask, *y, zero)?;
            }
        }
        state = new;
        ys.push((t, y));
    }
    let mut terms = Vec::new();
    for (&v, name) in state.iter().zip(["u_h_true", "u_z_true"]) {
        terms.push((v, tape.input(name, C, Shape::rows([3]))?));
    }
    for (t, y) in &ys {
        for (k, &y) in y.iter().enumerate() {
            let name = format!("u_y{k}_{}_{t}", stacked_rows[k]);
            let shape = if stacked_rows[k] { Shape::rows([3]) } else { Shape::shared([3]) };
            terms.push((y, tape.input(&name, C, shape)?));
        }
    }
    wrt.extend(xs.into_iter().chain(ss));
    let d = derivatives(&mut tape, &terms, &wrt)?;
    Ok((tape, wrt, d))
}

fn compare(case: &Case) -> Result<()> {
    let data = bindings(case)?;
    let (tape, outputs, wrt, d) = looped(case)?;
    let rows = [2, 3].map(|k| tape.shape(outputs[k]).unwrap().lead.has_n());
    let got = evaluate(&tape, &d, &[&data])?;
    let (plain, plain_wrt, plain_d) = unrolled(case, rows)?;
    let expected = evaluate(&plain, &plain_d, &[&data])?;
    let what = format!("seed {}", case.seed);
    assert_close(&format!("{what}: loss"), &got[..1], &expected[..1]);
    for order in 0..2 {
        let got = &got[1 + order * wrt.len()..][..wrt.len()];
        let expected = &expected[1 + order * plain_wrt.len()..][..plain_wrt.len()];
        let what = format!("{what}: derivatives of order {}", order + 1);
        assert_close(&what, &got[..6], &expected[..6]);
        for t in 0..case.steps {
            for (k, got) in got[6..].iter().enumerate() {
                let off = distance(&at_step(got, t), &expected[6 + k * case.steps + t]);
                assert!(off < 1e-13, "{what}, sequence {k} at step {t}: off by {off:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn scans_equal_their_steps_written_out() -> Result<()> {
    for seed in 0..300 {
        compare(&case(seed))?;
    }
    Ok(())
}

/// What is planned gives what the plain evaluator gives.
#[test]
fn plans_equal_the_evaluator() -> Result<()> {
    for seed in 0..120 {
        let case = case(seed);
        let data = bindings(&case)?;
        let (tape, mut outputs, _, derivatives) = looped(&case)?;
        outputs.extend(derivatives);
        let expected = evaluate(&tape, &outputs, &[&data])?;
        let got = Program::new(&tape, &outputs, RunOptions::default())?.run(&[&data])?;
        assert_close(&format!("seed {seed}"), &got, &expected);
    }
    Ok(())
}

#[test]
fn gradients_of_random_scans_pass_the_check() -> Result<()> {
    for seed in 1000..1020 {
        let case = case(seed);
        let data = bindings(&case)?;
        let (mut tape, outputs, wrt, _) = looped(&case)?;
        let options =
            Options { max_components: 6, directions: 1, second_order: true, seed, ..Options::default() };
        let report = check_reference(&mut tape, &outputs, &wrt, &[&data], &options)?;
        assert!(report.passed(), "seed {seed}: {report}");
    }
    Ok(())
}
