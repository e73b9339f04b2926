use retrograd_engine::{DType, Params, Program, RunOptions, Scan, Shape, Tensor, gradcheck, reference};

use super::*;
use crate::{Sampler, matmul, mean_all, relu, tanh};

/// `tanh(z W + x)` with `‖W‖` about `norm`, its parameters and values.
struct Contraction {
    tape: Tape,
    w: Var,
    x: Var,
    values: Params,
}

const N: usize = 3;
const H: usize = 5;

fn contraction(norm: f64) -> Result<Contraction> {
    let mut tape = Tape::new();
    let w = tape.param("w", DType::F64, [H, H])?;
    let x = tape.input("x", DType::F64, Shape::rows([H]))?;
    let mut sampler = Sampler::new(3);
    let mut values = Params::new();
    let mut matrix = sampler.direction(DType::F64, &[H, H])?;
    let length = (0..H * H).map(|i| matrix.get(i).norm_sqr()).sum::<f64>().sqrt();
    let old = matrix.clone();
    matrix.fill_with(|i| old.get(i) * norm / length);
    values.insert("w", matrix);
    values.insert("x", sampler.direction(DType::F64, &[N, H])?);
    Ok(Contraction { tape, w, x, values })
}

impl Contraction {
    fn solve(&mut self, options: &FixedPoint) -> Result<Solution> {
        let (w, x) = (self.w, self.x);
        fixed_point(&mut self.tape, x, options, |tape, z| {
            let wz = matmul(tape, z, w)?;
            let a = add(tape, wz, x)?;
            tanh(tape, a)
        })
    }

    fn values(&self, outputs: &[Var]) -> Result<Vec<Tensor>> {
        reference::evaluate(&self.tape, outputs, &[&self.values])
    }
}

fn options(solver: Solver, gradient: Gradient, steps: usize, tolerance: f64) -> FixedPoint {
    FixedPoint { solver, gradient, steps, tolerance }
}

fn solvers() -> [Solver; 3] {
    [Solver::damped(0.9), Solver::Anderson { memory: 4, mixing: 1.0 }, Solver::Broyden]
}

/// Plain iteration needs more steps than the others, which record more for each.
fn enough(solver: &Solver) -> usize {
    if matches!(solver, Solver::Damped { .. }) { 40 } else { 9 }
}

fn implicit(solver: Solver) -> Gradient {
    Gradient::Implicit { steps: 2 * enough(&solver), solver, tolerance: 1e-11 }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    (0..t.len()).map(|i| t.get(i).re).collect()
}

fn distance_of(a: &Tensor, b: &Tensor) -> f64 {
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn every_solver_finds_the_fixed_point_and_says_so() -> Result<()> {
    let mut found = Vec::new();
    for (solver, most) in solvers().into_iter().zip([60.0, 15.0, 15.0]) {
        let mut c = contraction(0.7)?;
        let steps = if most == 60.0 { 60 } else { 15 };
        let s = c.solve(&options(solver.clone(), Gradient::Unrolled, steps, 1e-12))?;
        let out = c.values(&[s.z, s.residual, s.iterations, s.converged])?;
        assert!(numbers(&out[1]).iter().all(|r| *r <= 1e-12), "{solver:?}: {:?}", out[1]);
        assert_eq!(numbers(&out[3]), [1.0; N], "{solver:?}");
        // The solvers that learn need fewer steps than plain iteration.
        assert!(numbers(&out[2]).iter().all(|n| (2.0..=most).contains(n)), "{solver:?}: {:?}", out[2]);
        assert_eq!(out[2].dims(), [N, 1]);
        found.push(out[0].clone());
    }
    assert!(distance_of(&found[0], &found[1]) < 1e-10 && distance_of(&found[0], &found[2]) < 1e-10);
    Ok(())
}

#[test]
fn what_does_not_converge_is_visible() -> Result<()> {
    for solver in solvers() {
        let mut c = contraction(0.9)?;
        let s = c.solve(&options(solver.clone(), Gradient::Unrolled, 3, 1e-12))?;
        let out = c.values(&[s.converged, s.iterations, s.residual])?;
        assert_eq!((numbers(&out[0]), numbers(&out[1])), (vec![0.0; N], vec![3.0; N]), "{solver:?}");
        assert!(numbers(&out[2]).iter().all(|r| *r > 1e-12));
    }
    // An adjoint that is not solved is NaN, not a plausible number.
    let mut c = contraction(0.9)?;
    let gradient = Gradient::Implicit { solver: Solver::damped(1.0), steps: 2, tolerance: 1e-12 };
    let s = c.solve(&options(Solver::damped(1.0), gradient, 200, 1e-13))?;
    let loss = mean_all(&mut c.tape, s.z)?;
    let w_bar = retrograd_engine::grad(&mut c.tape, loss, &[c.w])?[0];
    let out = c.values(&[s.converged, w_bar])?;
    assert_eq!(numbers(&out[0]), [1.0; N]);
    assert!(!out[1].is_finite());
    Ok(())
}

#[test]
fn gradients_of_every_kind_are_those_of_differences() -> Result<()> {
    let [damped, anderson, _] = solvers();
    // To the last bit that the solver can find, as differences and the adjoint identity are that sharp.
    let implicit = |solver: Solver| {
        let steps = 2 * enough(&solver);
        Gradient::Implicit { solver, steps, tolerance: 0.0 }
    };
    for (solver, gradient, kind) in [
        (damped.clone(), Gradient::Unrolled, "unrolled"),
        (damped.clone(), implicit(damped), "implicit"),
        (anderson.clone(), implicit(anderson), "implicit"),
    ] {
        let mut c = contraction(0.3)?;
        let s = c.solve(&options(solver.clone(), gradient, enough(&solver), 1e-13))?;
        let loss = mean_all(&mut c.tape, s.z)?;
        let checks = gradcheck::Options { max_components: 4, directions: 1, ..Default::default() };
        let wrt = [c.w, c.x];
        let report = gradcheck::check_reference(&mut c.tape, &[loss], &wrt, &[&c.values], &checks)?;
        assert!(report.passed(), "{solver:?} {kind}: {report}");
    }
    Ok(())
}

#[test]
fn phantom_gradients_approach_the_implicit_ones() -> Result<()> {
    let gradient_of = |gradient: Gradient| -> Result<Tensor> {
        let mut c = contraction(0.6)?;
        let s = c.solve(&options(Solver::damped(1.0), gradient, 120, 1e-14))?;
        let loss = mean_all(&mut c.tape, s.z)?;
        let w_bar = retrograd_engine::grad(&mut c.tape, loss, &[c.w])?[0];
        Ok(c.values(&[w_bar])?.remove(0))
    };
    let exact = Gradient::Implicit { solver: Solver::damped(1.0), steps: 120, tolerance: 1e-14 };
    let exact = gradient_of(exact)?;
    let mut last = f64::INFINITY;
    for steps in [1, 3, 9, 27, 81] {
        let error = distance_of(&gradient_of(Gradient::Phantom { steps, rate: 0.8 })?, &exact);
        assert!(error < last, "{steps} steps: {error}, {last} before");
        last = error;
    }
    assert!(last < 1e-12, "{last}");
    Ok(())
}

/// Inside a scan, under every plan: the same bits; and with implicit gradients no more memory for more iterations.
#[test]
fn in_a_scan_under_any_plan() -> Result<()> {
    let record = |solver: &Solver, gradient: &Gradient, steps: usize| -> Result<(Tape, Vec<Var>)> {
        let mut tape = Tape::new();
        let w = tape.param("w", DType::F64, [H, H])?;
        let xs = tape.input("xs", DType::F64, Shape::sequence([H]))?;
        let h0 = tape.param("h0", DType::F64, [H])?;
        let options = options(solver.clone(), gradient.clone(), steps, 1e-10);
        let (h, unconverged) = Scan::new().run(&mut tape, h0, xs, |tape, h, x| {
            let s = fixed_point(tape, h, &options, |tape, z| {
                let sum = add(tape, z, h)?;
                let wz = matmul(tape, sum, w)?;
                let a = add(tape, wz, x)?;
                tanh(tape, a)
            })?;
            let missing = crate::affine(tape, s.converged, -1.0, 1.0)?;
            Ok((s.z, missing))
        })?;
        let loss = mean_all(&mut tape, h)?;
        let bars = retrograd_engine::grad(&mut tape, loss, &[w, h0, xs])?;
        let missing = crate::sum_all(&mut tape, unconverged)?;
        Ok((tape, [&[loss, missing][..], &bars].concat()))
    };
    let mut sampler = Sampler::new(5);
    let mut values = contraction(0.2)?.values;
    values.insert("h0", sampler.direction(DType::F64, &[H])?);
    values.insert("xs", sampler.direction(DType::F64, &[6, N, H])?);
    for solver in solvers() {
        let mut first: Option<Tensor> = None;
        let mut gradients = vec![implicit(solver.clone())];
        if matches!(solver, Solver::Damped { .. }) {
            gradients.extend([Gradient::Unrolled, Gradient::Phantom { steps: 25, rate: 1.0 }]);
        }
        for gradient in gradients {
            let (tape, outputs) = record(&solver, &gradient, enough(&solver))?;
            let expected = reference::evaluate(&tape, &outputs, &[&values])?;
            assert_eq!(expected[1].get(0).re, 0.0, "{solver:?}: rows that did not converge");
            let free = Program::new(&tape, &outputs, RunOptions::default())?;
            let least = free.plan(6, N)?.peak_bytes();
            let mut bits: Option<Vec<Tensor>> = None;
            for budget in [None, Some(least * 3 / 4)] {
                let options = RunOptions { budget, threads: Some(1), ..Default::default() };
                let mut program = Program::new(&tape, &outputs, options)?;
                let out = match program.run(&[&values]) {
                    Ok(out) => out,
                    // Three quarters may be less than any plan needs.
                    Err(Error::Budget { .. }) => continue,
                    Err(other) => return Err(other),
                };
                for (a, b) in out.iter().zip(&expected) {
                    assert!(distance_of(a, b) < 1e-9, "{solver:?} {gradient:?} {budget:?}");
                }
                let bits = bits.get_or_insert_with(|| out.clone());
                assert!(
                    bits.iter().zip(&out).all(|(a, b)| a.bit_eq(b)),
                    "{solver:?} {gradient:?} {budget:?}"
                );
            }
            // Every way of differentiating gives the same gradient of the same fixed point.
            let first = first.get_or_insert_with(|| expected[2].clone());
            assert!(distance_of(first, &expected[2]) < 1e-8, "{solver:?} {gradient:?}");
        }
    }
    let peak = |steps: usize| -> Result<usize> {
        let gradient = Gradient::Implicit { solver: Solver::damped(1.0), steps: 10, tolerance: 0.0 };
        let (tape, outputs) = record(&Solver::damped(1.0), &gradient, steps)?;
        Ok(Program::new(&tape, &outputs, RunOptions::default())?.plan(200, N)?.peak_bytes())
    };
    let (few, many) = (peak(2)?, peak(20)?);
    assert!(many < few * 3 / 2, "{few} bytes for 2 iterations, {many} for 20");
    Ok(())
}

#[test]
fn complex_rows_and_learned_rates() -> Result<()> {
    let mut tape = Tape::new();
    let a = tape.param("a", DType::C64, [2])?;
    let rates = tape.param("rates", DType::F64, [2])?;
    let rate =
        |tape: &mut Tape, i: usize| Ok::<_, Error>(Rate::Value(crate::slice(tape, rates, i..i + 1, 0)?));
    let solver = Solver::Damped { rates: vec![rate(&mut tape, 0)?, rate(&mut tape, 1)?] };
    let found = fixed_point(&mut tape, a, &options(solver, Gradient::Unrolled, 3, 0.0), |tape, z| {
        let half = crate::scale(tape, z, 0.5)?;
        add(tape, half, a)
    })?;
    let mut values = Params::new();
    let mut numbers = Tensor::zeros(DType::C64, [2])?;
    numbers.fill_with(|i| num_complex::Complex64::new(1.0 + i as f64, -0.5));
    values.insert("a", numbers);
    let mut two = Tensor::zeros(DType::F64, [2])?;
    two.fill_with(|i| num_complex::Complex64::new([0.3, 0.8][i], 0.0));
    values.insert("rates", two);
    // z − 2a shrinks by 1 − η/2 a step, from −a: the last rate holds for the third.
    let z = reference::evaluate(&tape, &[found.z], &[&values])?.remove(0);
    let factor = 2.0 - 0.85 * 0.6 * 0.6;
    for (i, a) in [(0, 1.0), (1, 2.0)] {
        assert!((z.get(i) - num_complex::Complex64::new(a, -0.5) * factor).norm() < 1e-12);
    }
    let squares = crate::abs2(&mut tape, found.z)?;
    let loss = mean_all(&mut tape, squares)?;
    let report =
        gradcheck::check_reference(&mut tape, &[loss], &[a, rates], &[&values], &Default::default())?;
    assert!(report.passed(), "{report}");
    Ok(())
}

#[test]
fn errors_name_what_does_not_fit() -> Result<()> {
    let mut tape = Tape::new();
    let z = tape.param("z", DType::F64, [3])?;
    let scalar = tape.param("s", DType::F64, [])?;
    let complex = tape.param("c", DType::C64, [3])?;
    let plain = || options(Solver::damped(1.0), Gradient::Unrolled, 2, 0.0);
    let anderson = |memory, mixing| options(Solver::Anderson { memory, mixing }, Gradient::Unrolled, 2, 0.0);
    let learned = Solver::Damped { rates: vec![Rate::Value(z)] };
    let adjoint = Gradient::Implicit { solver: learned, steps: 1, tolerance: 0.0 };
    for (z0, options, want) in [
        (z, FixedPoint { steps: 0, ..plain() }, "0 steps"),
        (z, FixedPoint { tolerance: f64::NAN, ..plain() }, "tolerance NaN"),
        (z, FixedPoint { gradient: Gradient::Phantom { steps: 0, rate: 1.0 }, ..plain() }, "0 steps"),
        (z, options(Solver::Damped { rates: vec![] }, Gradient::Unrolled, 2, 0.0), "no rates"),
        (z, options(Solver::damped(f64::INFINITY), Gradient::Unrolled, 2, 0.0), "rate Constant(inf)"),
        (z, anderson(0, 1.0), "memory 0"),
        (z, anderson(9, 1.0), "memory 9"),
        (z, anderson(2, 0.0), "mixing 0"),
        (z, FixedPoint { gradient: adjoint, ..plain() }, "must be constants"),
        (scalar, plain(), "at least one ordinary axis"),
        (complex, anderson(2, 1.0), "f32 or f64"),
    ] {
        let error = fixed_point(&mut tape, z0, &options, relu).err().map(|e| e.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains("fixed_point") && error.contains(want), "{error:?} does not say {want:?}");
    }
    let other = fixed_point(&mut tape, z, &plain(), |tape, z| crate::slice(tape, z, 0..2, 0));
    assert!(other.is_err_and(|e| e.to_string().contains("f(z)")));

    let solve = options(Solver::damped(1.0), implicit(Solver::damped(1.0)), 5, 1e-9);
    let found = fixed_point(&mut tape, z, &solve, |tape, z| crate::scale(tape, z, 0.5))?;
    let squares = crate::square(&mut tape, found.z)?;
    let loss = mean_all(&mut tape, squares)?;
    let z_bar = retrograd_engine::grad(&mut tape, loss, &[z])?[0];
    let again = mean_all(&mut tape, z_bar)?;
    // The function above does not depend on z0, so its gradient is zero and there is nothing to refuse.
    assert!(retrograd_engine::grad(&mut tape, again, &[z]).is_ok());
    let found = fixed_point(&mut tape, z, &solve, |tape, v| {
        let half = crate::scale(tape, v, 0.5)?;
        let sum = add(tape, half, z)?;
        tanh(tape, sum)
    })?;
    let loss = mean_all(&mut tape, found.z)?;
    let z_bar = retrograd_engine::grad(&mut tape, loss, &[z])?[0];
    let again = mean_all(&mut tape, z_bar)?;
    let refused =
        retrograd_engine::grad(&mut tape, again, &[z]).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("cannot be differentiated again"), "{refused}");
    Ok(())
}
