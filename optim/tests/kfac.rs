//! Inverses of Fisher blocks against dense constructions of the chain-structured Gaussian.
#![allow(clippy::unwrap_used)]

use faer::linalg::solvers::{DenseSolveCore, Solve};
use faer::{Mat, Scale, Side};
use retrograd_engine::{Params, Tensor};
use retrograd_optim::kfac::{
    Adaptation, Approximation, Damping, Factors, Inverse, MapMoments, MapSpec, Moments, Plane, Structure,
    chain_sum,
};
use retrograd_optim::{
    CgOptions, Clip, Clock, Curvature, LrState, NormForm, Optimizer, Recipe, Result, Settings, State,
    conjugate_gradients, optimizer,
};

const SIGNED: Approximation = Approximation::Option1 { absolute: false };

/// Standard normal numbers.
struct Normal(u64);

impl Normal {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Mat<f64> {
        Mat::from_fn(rows, columns, |_, _| self.next())
    }

    fn spd(&mut self, n: usize) -> Mat<f64> {
        let x = self.matrix(n, n);
        Scale(1.0 / n as f64) * (&x * x.transpose()) + Scale(0.3) * Mat::<f64>::identity(n, n)
    }

    /// A whitened matrix of spectral norm `r`.
    fn hat(&mut self, n: usize, r: f64, symmetric: bool) -> Mat<f64> {
        let mut x = self.matrix(n, n);
        if symmetric {
            x = Scale(0.5) * (&x + x.transpose());
        }
        let norm = norm2(&x);
        Scale(r / norm) * x
    }
}

fn norm2(x: &Mat<f64>) -> f64 {
    let svd = x.svd().unwrap();
    (0..x.nrows()).map(|i| svd.S()[i]).fold(0.0, f64::max)
}

fn power(c: &Mat<f64>, p: f64) -> Mat<f64> {
    let eigen = c.self_adjoint_eigen(Side::Lower).unwrap();
    let n = c.nrows();
    let scaled = Mat::from_fn(n, n, |i, j| eigen.U()[(i, j)] * eigen.S()[j].powf(p));
    &scaled * eigen.U().transpose()
}

fn kron(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    let (m, n) = (b.nrows(), b.ncols());
    Mat::from_fn(a.nrows() * m, a.ncols() * n, |i, j| a[(i / m, j / n)] * b[(i % m, j % n)])
}

fn inverse(m: &Mat<f64>) -> Mat<f64> {
    m.partial_piv_lu().inverse()
}

/// Equation (*): `Σ_{|d|<T} (T − |d|) Ψ^d V_0`.
fn dense(v0: &Mat<f64>, v1: &Mat<f64>, steps: usize) -> Mat<f64> {
    let psi = v1 * inverse(v0);
    let mut p = Mat::<f64>::identity(v0.nrows(), v0.nrows());
    let mut f = Scale(steps as f64) * v0;
    for d in 1..steps {
        p = &psi * &p;
        let pv = &p * v0;
        f += Scale((steps - d) as f64) * (&pv + pv.transpose());
    }
    f
}

/// The same from the block-tridiagonal precision of the joint distribution of the chain.
fn joint(v0: &Mat<f64>, v1: &Mat<f64>, steps: usize) -> Mat<f64> {
    let n = v0.nrows();
    let psi = v1 * inverse(v0);
    let q = inverse(&(v0 - &psi * v0 * psi.transpose()));
    let first = inverse(v0);
    let mut precision = Mat::<f64>::zeros(n * steps, n * steps);
    let mut add = |bi: usize, bj: usize, m: &Mat<f64>, s: f64| {
        for i in 0..n {
            for j in 0..n {
                precision[(bi * n + i, bj * n + j)] += s * m[(i, j)];
            }
        }
    };
    for t in 0..steps {
        add(t, t, if t == 0 { &first } else { &q }, 1.0);
        if t + 1 < steps {
            add(t, t, &(psi.transpose() * &q * &psi), 1.0);
            add(t, t + 1, &(psi.transpose() * &q), -1.0);
            add(t + 1, t, &(&q * &psi), -1.0);
        }
    }
    let all = inverse(&precision);
    Mat::from_fn(n, n, |i, j| {
        (0..steps * steps).map(|k| all[(k / steps * n + i, k % steps * n + j)]).sum::<f64>()
    })
}

fn vec(z: &Mat<f64>) -> Mat<f64> {
    Mat::from_fn(z.nrows() * z.ncols(), 1, |k, _| z[(k % z.nrows(), k / z.nrows())])
}

fn relative(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (a - b).norm_l2() / b.norm_l2()
}

fn factors(random: &mut Normal, symmetric: bool) -> Factors {
    let (a0, g0) = (random.spd(5), random.spd(4));
    let between = |c0: &Mat<f64>, hat: Mat<f64>| power(c0, 0.5) * hat * power(c0, 0.5);
    let a1 = between(&a0, random.hat(5, 0.95, symmetric));
    let g1 = between(&g0, random.hat(4, 0.90, symmetric));
    Factors { a0, a1: Some(a1), g0, g1: Some(g1) }
}

fn apply(kind: Approximation, f: &Factors, steps: usize, z: &Mat<f64>) -> Mat<f64> {
    Inverse::new(kind, f, Damping::NONE, &[(steps, 1.0)], 1.0).unwrap().apply(z)
}

#[test]
fn options_against_the_dense_matrix() {
    let mut random = Normal(1);
    for symmetric in [true, false] {
        let f = factors(&mut random, symmetric);
        let z = random.matrix(4, 5);
        let v0 = kron(&f.a0, &f.g0);
        let v1 = kron(f.a1.as_ref().unwrap(), f.g1.as_ref().unwrap());
        let mut second = Vec::new();
        for steps in [2, 5, 20, 100, 400] {
            let exact = dense(&v0, &v1, steps);
            if steps <= 20 {
                assert!(relative(&joint(&v0, &v1, steps), &exact) < 1e-12, "T={steps}");
            }
            let reference = exact.partial_piv_lu().solve(&vec(&z));
            let error = |kind| relative(&vec(&apply(kind, &f, steps, &z)), &reference);
            if symmetric {
                assert!(error(SIGNED) < 1e-10, "T={steps}: {}", error(SIGNED));
            } else {
                assert!((0.005..0.9).contains(&error(SIGNED)), "T={steps}: {}", error(SIGNED));
            }
            assert!((0.05..3.0).contains(&error(Approximation::Independence)), "T={steps}");
            second.push(error(Approximation::Option2));
        }
        assert!(second.is_sorted_by(|a, b| a > b), "{second:?}");
        assert!(second[4] < 0.05 && (3.0..5.0).contains(&(second[3] / second[4])), "1/T: {second:?}");
    }
}

#[test]
fn direction_of_time_is_free_but_common() {
    let mut random = Normal(2);
    let f = factors(&mut random, false);
    let z = random.matrix(4, 5);
    let turn = |m: &Option<Mat<f64>>| m.as_ref().map(|m| m.transpose().to_owned());
    for kind in [SIGNED, Approximation::Option2] {
        let forward = apply(kind, &f, 50, &z);
        let both = Factors { a1: turn(&f.a1), g1: turn(&f.g1), ..f.clone() };
        assert!(relative(&apply(kind, &both, 50, &z), &forward) < 1e-10);
    }
    let one = Factors { a1: turn(&f.a1), ..f.clone() };
    let forward = apply(Approximation::Option2, &f, 50, &z);
    assert!(relative(&apply(Approximation::Option2, &one, 50, &z), &forward) > 0.1);
}

#[test]
fn the_longer_form_of_option_2_is_the_same() {
    let mut random = Normal(3);
    let f = factors(&mut random, false);
    let z = random.matrix(4, 5);
    let (ra, rg) = (power(&f.a0, -0.5), power(&f.g0, -0.5));
    let (pa, pg) = (&ra * f.a1.as_ref().unwrap() * &ra, &rg * f.g1.as_ref().unwrap() * &rg);
    let (sa, sg) = (pa.svd().unwrap(), pg.svd().unwrap());
    let mut x = &rg * &z * &ra;
    x = &x - pg.transpose() * &x * &pa;
    x = sg.V().transpose() * &x * sa.V();
    x = Mat::from_fn(4, 5, |i, j| x[(i, j)] / (1.0 - (sg.S()[i] * sa.S()[j]).powi(2)));
    x = sg.V() * &x * sa.V().transpose();
    x = &x - &pg * &x * pa.transpose();
    x = Scale(1.0 / 7.0) * (&rg * &x * &ra);
    assert!(relative(&apply(Approximation::Option2, &f, 7, &z), &x) < 1e-12);
}

#[test]
fn without_memory_and_with_one_step_they_are_plain_kfac() {
    let mut random = Normal(4);
    let f = factors(&mut random, false);
    let z = random.matrix(4, 5);
    let plain = inverse(&f.g0) * &z * inverse(&f.a0);
    let memoryless = Factors { a1: None, g1: None, ..f.clone() };
    for kind in [Approximation::Independence, SIGNED, Approximation::Option2] {
        for steps in [1, 2, 9] {
            let expected = Scale(1.0 / steps as f64) * &plain;
            assert!(relative(&apply(kind, &memoryless, steps, &z), &expected) < 1e-12, "{kind:?} {steps}");
        }
    }
    assert!(relative(&apply(SIGNED, &f, 1, &z), &plain) < 1e-12);
}

#[test]
fn chain_sums() {
    let direct = |x: f64, steps: usize| {
        let term = |d: usize| (steps - d) as f64 * x.powi(d as i32) * if d == 0 { 1.0 } else { 2.0 };
        (0..steps).map(term).sum::<f64>()
    };
    for x in [-1.0, -1.0 + 1e-9, -0.5, 0.0, 0.7, 1.0 - 1e-6, 1.0 - 1e-4, 1.0] {
        for steps in [1, 2, 3, 10, 35] {
            let (a, b) = (chain_sum(x, steps), direct(x, steps));
            // The direct sum loses digits where terms of alternating sign cancel.
            let tolerance = 1e-11 * b.abs() + 1e-13 * (steps * steps) as f64;
            assert!((a - b).abs() <= tolerance, "S({x}; {steps}) = {a}, expected {b}");
        }
    }
    for (steps, expected) in [(10, 41.550517054), (35, 182.777836705)] {
        assert!((chain_sum(0.7, steps) - expected).abs() < 5e-10);
    }
    // S(−1; T) is 0 for even T and 1 for odd; near it the closed form keeps its digits: S(−1 + ε; T) → T ε.
    assert_eq!((chain_sum(-1.0, 4), chain_sum(-1.0, 5)), (0.0, 1.0));
    assert!((chain_sum(-1.0 + 1e-9, 10) / 1e-8 - 1.0).abs() < 1e-6);
}

/// Two stationary vector AR(1) processes: moments converge to those of the model, and with the divisor T·B the whitened
/// matrix never has a norm above 1.
#[test]
fn moments_of_processes() {
    let mut random = Normal(5);
    let whitened = |c0: &Mat<f64>, c1: &Mat<f64>| power(c0, -0.5) * c1 * power(c0, -0.5);
    let walk = |n: usize, c0: &Mat<f64>, psi: &Mat<f64>, steps: usize, rows: usize, random: &mut Normal| {
        let noise = power(&(c0 - psi * c0 * psi.transpose()), 0.5);
        let root = power(c0, 0.5);
        let (mut s0, mut s1) = (Mat::<f64>::zeros(n, n), Mat::<f64>::zeros(n, n));
        for _ in 0..rows {
            let mut x = &root * random.matrix(n, 1);
            for t in 0..steps {
                s0 += &x * x.transpose();
                let next = psi * &x + &noise * random.matrix(n, 1);
                if t + 1 < steps {
                    s1 += &next * x.transpose();
                }
                x = next;
            }
        }
        let all = (steps * rows) as f64;
        (Scale(1.0 / all) * s0, Scale(1.0 / all) * s1)
    };
    for (n, r) in [(3, 0.9), (2, 0.6)] {
        let c0 = random.spd(n);
        let hat = random.hat(n, r, false);
        let psi = power(&c0, 0.5) * &hat * power(&c0, -0.5);
        let (e0, e1) = walk(n, &c0, &psi, 400, 400, &mut random);
        assert!(relative(&e0, &c0) < 0.03, "{}", relative(&e0, &c0));
        let c1 = Scale(399.0 / 400.0) * (&psi * &c0);
        assert!(relative(&e1, &c1) < 0.04, "{}", relative(&e1, &c1));
        for _ in 0..200 {
            let (e0, e1) = walk(n, &c0, &psi, 6, 3, &mut random);
            let norm = norm2(&whitened(&e0, &e1));
            assert!(norm <= 1.0 + 1e-10, "{norm}");
            // The other divisor of C_1 would give this.
            assert!(norm * 6.0 / 5.0 > norm);
        }
    }
}

#[test]
fn damping_is_balanced() {
    let mut random = Normal(6);
    let f = factors(&mut random, false);
    let z = random.matrix(4, 5);
    let mean = |m: &Mat<f64>| (0..m.nrows()).map(|i| m[(i, i)]).sum::<f64>() / m.nrows() as f64;
    let with = |f: &Factors, kind| {
        let damping = Damping::factored(0.3, mean(&f.a0), mean(&f.g0));
        Inverse::new(kind, f, damping, &[(8, 1.0)], 1.0).unwrap().apply(&z)
    };
    for kind in [Approximation::Independence, SIGNED, Approximation::Option2] {
        let expected = with(&f, kind);
        for c in [1e-3, 7.0] {
            let by = |m: &Mat<f64>, s: f64| Scale(s) * m;
            let moved = Factors {
                a0: by(&f.a0, c),
                a1: f.a1.as_ref().map(|m| by(m, c)),
                g0: by(&f.g0, 1.0 / c),
                g1: f.g1.as_ref().map(|m| by(m, 1.0 / c)),
            };
            assert!(relative(&with(&moved, kind), &expected) < 1e-10, "{kind:?} {c}");
        }
        assert!(with(&f, kind).norm_l2() < apply(kind, &f, 8, &z).norm_l2());
    }
    assert_eq!(Damping::factored(4.0, 0.0, 3.0), Damping { a: 2.0, g: 2.0 });
}

#[test]
fn absolute_values_of_psi_are_a_switch() {
    let mut random = Normal(7);
    let f = factors(&mut random, true);
    let z = random.matrix(4, 5);
    let absolute = Approximation::Option1 { absolute: true };
    let change = relative(&apply(absolute, &f, 20, &z), &apply(SIGNED, &f, 20, &z));
    assert!((0.1..2.0).contains(&change), "{change}");
    // Without negative eigenvalues there is no difference.
    let positive = |c: &Mat<f64>, r: f64| Scale(r) * c;
    let f = Factors { a1: Some(positive(&f.a0, 0.8)), g1: Some(positive(&f.g0, 0.5)), ..f };
    assert!(relative(&apply(absolute, &f, 20, &z), &apply(SIGNED, &f, 20, &z)) < 1e-12);
}

#[test]
fn several_lengths() {
    let mut random = Normal(8);
    let f = factors(&mut random, true);
    let z = random.matrix(4, 5);
    let lengths = [(3, 0.25), (10, 0.5), (30, 0.25)];
    let v0 = kron(&f.a0, &f.g0);
    let v1 = kron(f.a1.as_ref().unwrap(), f.g1.as_ref().unwrap());
    let mut exact = Mat::<f64>::zeros(20, 20);
    for (t, p) in lengths {
        exact += Scale(p) * dense(&v0, &v1, t);
    }
    let reference = exact.partial_piv_lu().solve(&vec(&z));
    let got = Inverse::new(SIGNED, &f, Damping::NONE, &lengths, 1.0).unwrap().apply(&z);
    assert!(relative(&vec(&got), &reference) < 1e-10);
}

#[test]
fn parts_share_their_input_and_diagonals_are_diagonals() {
    let mut random = Normal(9);
    let f = factors(&mut random, false);
    let z = random.matrix(4, 5);
    let d = Mat::from_fn(5, 1, |i, _| 0.5 + i as f64);
    let full = Mat::from_fn(5, 5, |i, j| if i == j { d[(i, 0)] } else { 0.0 });
    let damping = Damping { a: 0.2, g: 0.1 };
    let lengths = [(4, 1.0)];
    let with = |a0: &Mat<f64>, kind| {
        let f = Factors { a0: a0.clone(), a1: None, ..f.clone() };
        Inverse::new(kind, &f, damping, &lengths, 1.0).unwrap().apply(&z)
    };
    let independent = with(&full, Approximation::Independence);
    assert!(relative(&with(&d, Approximation::Option2), &independent) < 1e-13);
    let part = |from: usize, m: &Mat<f64>| Mat::from_fn(2, 2, |i, j| m[(from + i, from + j)]);
    let parts: Vec<_> = [0, 2].map(|k| (part(k, &f.g0), f.g1.as_ref().map(|g| part(k, g)))).to_vec();
    for kind in [Approximation::Independence, SIGNED, Approximation::Option2] {
        let all = Inverse::of_parts(kind, &f.a0, f.a1.as_ref(), &parts, damping, &lengths, 1.0).unwrap();
        for (k, (inverse, (g0, g1))) in all.iter().zip(&parts).enumerate() {
            let own = Factors { g0: g0.clone(), g1: g1.clone(), ..f.clone() };
            let rows = Mat::from_fn(2, 5, |i, j| z[(2 * k + i, j)]);
            let expected = Inverse::new(kind, &own, damping, &lengths, 1.0).unwrap().apply(&rows);
            assert!(relative(&inverse.apply(&rows), &expected) < 1e-13);
        }
    }
}

#[test]
fn unfit_factors_are_named() {
    let mut random = Normal(10);
    let f = factors(&mut random, false);
    let mut singular = f.clone();
    singular.g0 = Mat::zeros(4, 4);
    let mut wild = f.clone();
    wild.a0[(1, 1)] = f64::NAN;
    for kind in [Approximation::Independence, SIGNED, Approximation::Option2] {
        let invert = |f: &Factors, d| Inverse::new(kind, f, d, &[(3, 1.0)], 1.0).map(|_| ()).unwrap_err();
        assert_eq!(invert(&singular, Damping::NONE).0, "G", "{kind:?}");
        assert_eq!(invert(&wild, Damping { a: 1.0, g: 1.0 }).0, "A", "{kind:?}");
        let damped = Inverse::new(kind, &singular, Damping { a: 0.1, g: 0.1 }, &[(3, 1.0)], 1.0);
        assert!(damped.is_ok(), "{kind:?}: damping makes a singular factor fit");
    }
}

#[test]
fn least_points_of_the_model() {
    // q(α, μ) with C = [[2, 1], [1, 3]] and slopes (−1, 4).
    let plane = Plane { curvature: [2.0, 1.0, 3.0], slope: [-1.0, 4.0] };
    let step = plane.solve(None).unwrap();
    assert!((2.0 * step.alpha + step.mu - 1.0).abs() < 1e-14);
    assert!((step.alpha + 3.0 * step.mu + 4.0).abs() < 1e-14);
    assert!((step.change - 0.5 * (-step.alpha + 4.0 * step.mu)).abs() < 1e-14);
    let fixed = plane.solve(Some(0.5)).unwrap();
    assert!((fixed.alpha + (0.5 - 1.0) / 2.0).abs() < 1e-14 && fixed.mu == 0.5);
    let alone = Plane { curvature: [2.0, 0.0, 0.0], slope: [-1.0, 0.0] }.solve(None).unwrap();
    assert_eq!((alone.alpha, alone.mu, alone.change), (0.5, 0.0, -0.25));
    // The same direction twice.
    let twice = Plane { curvature: [2.0, 2.0, 2.0], slope: [-1.0, -1.0] }.solve(None).unwrap();
    assert_eq!((twice.alpha, twice.mu), (0.5, 0.0));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(Plane { curvature: [bad, 0.0, 1.0], slope: [1.0, 1.0] }.solve(None), None);
    }
}

#[test]
fn damping_follows_how_well_the_model_did() {
    let lm = Adaptation { every: 5, decay: 0.95, least: 1e-3 };
    let omega = 0.95f64.powi(5);
    let rows = [
        ((-0.9, -1.0), omega),
        ((-0.5, -1.0), 1.0),
        ((-0.1, -1.0), 1.0 / omega),
        ((0.5, -1.0), 1.0 / omega),
        ((-0.5, 1.0), omega),
        ((0.5, 1.0), 1.0 / omega),
        ((f64::NAN, -1.0), 1.0 / omega),
    ];
    for ((change, predicted), factor) in rows {
        assert_eq!(lm.next(2.0, change, predicted), 2.0 * factor, "{change} of {predicted}");
    }
    assert_eq!(lm.next(1e-3, -1.0, -1.0), 1e-3);
}

#[test]
fn conjugate_gradients_solve() {
    let mut random = Normal(11);
    let (f, z) = (random.spd(6), random.matrix(6, 1));
    let exact = (&f + Scale(0.4) * Mat::<f64>::identity(6, 6)).partial_piv_lu().solve(&z);
    let as_params = |z: &Mat<f64>| -> Params {
        let part = |from: usize, n: usize| {
            let mut t = Tensor::zeros(retrograd_engine::DType::F64, [n]).unwrap();
            t.fill_with(|i| z[(from + i, 0)].into());
            t
        };
        [("a".to_string(), part(0, 2)), ("b".to_string(), part(2, 4))].into_iter().collect()
    };
    let as_vector = |p: &Params| {
        let all: Vec<f64> = p.iter().flat_map(|(_, t)| t.as_slice::<f64>().unwrap().to_vec()).collect();
        Mat::from_fn(6, 1, |i, _| all[i])
    };
    let options = CgOptions { damping: 0.4, tolerance: 1e-12, iterations: 50 };
    let found =
        conjugate_gradients(|p| Ok(as_params(&(&f * as_vector(p)))), &as_params(&z), options).unwrap();
    assert!(relative(&as_vector(&found.x), &exact) < 1e-10);
    assert!(found.iterations <= 8 && found.residual < 1e-12, "{found:?}");
    let negative = conjugate_gradients(
        |p| Ok(as_params(&(Scale(-1.0) * as_vector(p)))),
        &as_params(&z),
        CgOptions::default(),
    );
    assert!(negative.unwrap_err().to_string().contains("curvature"));
}

/// Least squares by hand: `y = x W + b`, the mean over rows and outputs of the square of the error.
struct Regression {
    x: Mat<f64>,
    y: Mat<f64>,
    at: Params,
    /// Spoils the statistics.
    bad: Option<f64>,
}

const INPUTS: usize = 3;
const OUTPUTS: usize = 2;

impl Regression {
    fn new(random: &mut Normal) -> Regression {
        let x = random.matrix(20, INPUTS);
        let (w, b) = (random.matrix(INPUTS, OUTPUTS), random.matrix(1, OUTPUTS));
        let y = &x * &w + Mat::from_fn(20, OUTPUTS, |_, j| b[(0, j)]) + random.matrix(20, OUTPUTS);
        let mut at = Params::new();
        at.insert("w", Tensor::zeros(retrograd_engine::DType::F64, [INPUTS, OUTPUTS]).unwrap());
        at.insert("b", Tensor::zeros(retrograd_engine::DType::F64, [OUTPUTS]).unwrap());
        Regression { x, y, at, bad: None }
    }

    fn outputs(&self, p: &Params) -> Mat<f64> {
        // A direction without one of them has 0 there.
        let part = |name: &str, dims: &[usize]| {
            p.get(name).cloned().unwrap_or(Tensor::zeros(retrograd_engine::DType::F64, dims).unwrap())
        };
        let (w, b) = (part("w", &[INPUTS, OUTPUTS]), part("b", &[OUTPUTS]));
        let w = Mat::from_fn(INPUTS, OUTPUTS, |i, j| w.get(i * OUTPUTS + j).re);
        &self.x * &w + Mat::from_fn(self.x.nrows(), OUTPUTS, |_, j| b.get(j).re)
    }

    fn mean_loss(&self, p: &Params) -> f64 {
        let e = self.outputs(p) - &self.y;
        e.squared_norm_l2() / (e.nrows() * OUTPUTS) as f64
    }

    fn gradient(&self) -> Params {
        let e = Scale(2.0 / (self.x.nrows() * OUTPUTS) as f64) * (self.outputs(&self.at) - &self.y);
        let w = self.x.transpose() * &e;
        let mut grads = self.at.clone();
        grads.get_mut("w").unwrap().fill_with(|k| w[(k / OUTPUTS, k % OUTPUTS)].into());
        grads.get_mut("b").unwrap().fill_with(|j| (0..e.nrows()).map(|i| e[(i, j)]).sum::<f64>().into());
        grads
    }

    fn structure() -> Structure {
        let map = MapSpec {
            weight: Some("w".into()),
            transposed: false,
            bias: Some(("b".into(), 0)),
            outputs: 0..OUTPUTS,
            lookup: false,
            every_step: false,
            uses: 1,
            input: 0,
        };
        Structure { maps: vec![map] }
    }
}

fn tensor(m: &Mat<f64>) -> Tensor {
    let mut t = Tensor::zeros(retrograd_engine::DType::F64, [m.nrows(), m.ncols()]).unwrap();
    t.fill_with(|k| m[(k / m.ncols(), k % m.ncols())].into());
    t
}

impl Curvature for Regression {
    fn moments(&mut self, _: u64) -> Result<Moments> {
        let rows = self.x.nrows();
        let x = Mat::from_fn(rows, INPUTS + 1, |i, j| if j < INPUTS { self.x[(i, j)] } else { 1.0 });
        let mut a0 = tensor(&(x.transpose() * &x).to_owned());
        if let Some(bad) = self.bad {
            a0.fill_with(|_| bad.into());
        }
        let g0 = Scale(rows as f64 * 2.0 / OUTPUTS as f64) * Mat::<f64>::identity(OUTPUTS, OUTPUTS);
        let maps = vec![MapMoments { a0: Some(a0), a1: None, g0: tensor(&g0), g1: None }];
        Ok(Moments { maps, gradients: self.gradient(), rows, lengths: vec![(1, 1.0)] })
    }

    fn products(&mut self, _: u64, directions: &[&Params]) -> Result<Vec<f64>> {
        let zero = self.outputs(&{
            let mut zero = self.at.clone();
            zero.iter_mut().for_each(|(_, t)| t.fill_with(|_| 0.0.into()));
            zero
        });
        let moved: Vec<Mat<f64>> = directions.iter().map(|d| self.outputs(d) - &zero).collect();
        let scale = 2.0 / (self.x.nrows() * OUTPUTS) as f64;
        let dot = |a: &Mat<f64>, b: &Mat<f64>| (a.transpose() * b).diagonal().column_vector().sum();
        Ok(moved.iter().flat_map(|a| moved.iter().map(move |b| scale * dot(a, b))).collect())
    }

    fn loss(&mut self, params: &Params) -> Result<f64> {
        Ok(self.mean_loss(params))
    }

    fn loss_before(&self) -> f64 {
        self.mean_loss(&self.at)
    }
}

fn regression_kfac(settings: &[&str]) -> Box<dyn Optimizer> {
    let base = ["burn_in=0", "decay=0", "damping=1e-18", "adapt=false"];
    let settings = Settings::parse(base.iter().chain(settings)).unwrap();
    let mut kfac = optimizer("kfac", &settings).unwrap();
    let random = &mut Normal(1);
    kfac.bind(&Regression::structure(), &Regression::new(random).at).unwrap();
    kfac
}

/// On a linear model with squared error the block is the Fisher matrix itself, so one update ends at the least squares.
#[test]
fn one_update_solves_least_squares() {
    for settings in [
        &["step=quadratic", "kfac=independence"][..],
        &["step=quadratic", "kfac=option1"],
        &["step=quadratic", "kfac=option2", "widest=1"],
        &["step=fixed", "lr=1", "momentum=0"],
        &["step=fixed", "lr=1", "momentum=0", "momentum_form=regular"],
        &["blocks=*:full", "step=quadratic", "damping=10"],
    ] {
        let mut problem = Regression::new(&mut Normal(12));
        let kfac = regression_kfac(settings);
        let mut params = problem.at.clone();
        let mut state = kfac.init(&params).unwrap();
        let grads = problem.gradient();
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
        kfac.check_state(&params, &state).unwrap();
        problem.at = params;
        let slope = |g: &Params| {
            g.iter()
                .flat_map(|(_, t)| t.as_slice::<f64>().unwrap().to_vec())
                .fold(0.0, |m: f64, x| m.max(x.abs()))
        };
        let (before, after) = (slope(&grads), slope(&problem.gradient()));
        let exact = !settings.contains(&"blocks=*:full");
        assert!(if exact { after < 1e-7 * before } else { after < before }, "{settings:?}: {before} {after}");
    }
}

#[test]
fn damping_adapts_and_the_constraint_binds() {
    let mut problem = Regression::new(&mut Normal(13));
    let kfac = regression_kfac(&["adapt=true", "damping=3", "lm_every=1", "lm_decay=0.5", "damping_floor=0"]);
    let mut params = problem.at.clone();
    let mut state = kfac.init(&params).unwrap();
    let lambda = |s: &State| s.tensors().require("/kfac.lambda").unwrap().item().unwrap();
    for expected in [1.5, 0.75, 0.375] {
        let grads = problem.gradient();
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
        problem.at = params.clone();
        assert_eq!(lambda(&state), expected, "the model is exact here, so it is trusted more and more");
    }
    let c = 1e-4;
    let mut problem = Regression::new(&mut Normal(13));
    let kfac = regression_kfac(&["step=fixed", "lr=0.5", "momentum=0", "norm_constraint=1e-4"]);
    let mut params = problem.at.clone();
    let mut state = kfac.init(&params).unwrap();
    let grads = problem.gradient();
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
    // δ = −η ν F⁻¹∇ with ν = √(c / (η² ∇ᵀF⁻¹∇)), so δᵀFδ = c.
    let norm = problem.products(0, &[&params]).unwrap()[0];
    assert!((norm / c - 1.0).abs() < 1e-6, "{norm}");
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let mut problem = Regression::new(&mut Normal(14));
    let kfac = regression_kfac(&[]);
    let start = problem.at.clone();
    let fresh = kfac.init(&start).unwrap();
    let grads = problem.gradient();
    let fails = |problem: &mut Regression, part: &str, grads: &Params| {
        let (mut params, mut state) = (start.clone(), fresh.clone());
        let error = kfac.update_with(grads, &mut state, &mut params, 1.0, problem).unwrap_err().to_string();
        assert!(error.contains(part), "{error} lacks {part}");
        assert_eq!((&params, &state), (&start, &fresh));
    };
    problem.bad = Some(f64::NAN);
    fails(&mut problem, "statistics w/kfac.0.A0", &grads);
    problem.bad = None;
    let mut strange = grads.clone();
    strange.insert("b", Tensor::zeros(retrograd_engine::DType::F64, [3]).unwrap());
    fails(&mut problem, "gradient of `b`", &strange);
    let mut unknown = grads.clone();
    unknown.insert("c", Tensor::scalar(1.0f64));
    fails(&mut problem, "gradient of `c`", &unknown);

    // Singular statistics without damping, and without anybody to ask.
    let none = regression_kfac(&["damping=0"]);
    problem.bad = Some(0.0);
    let (mut params, mut state) = (start.clone(), none.init(&start).unwrap());
    let error = none.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap_err();
    assert!(error.to_string().contains("statistics A of `w`: expected a damping above 0"), "{error}");
    let error = none.update(&grads, &mut state, &mut params, 1.0).unwrap_err();
    assert!(error.to_string().contains("statistics of a network is not there"), "{error}");

    // A parameter that came after the state.
    problem.bad = None;
    let (mut params, mut state) = (start.clone(), fresh.clone());
    params.insert("late", Tensor::zeros(retrograd_engine::DType::F64, [2]).unwrap());
    let mut later = grads.clone();
    later.insert("late", Tensor::zeros(retrograd_engine::DType::F64, [2]).unwrap());
    let error = kfac.update_with(&later, &mut state, &mut params, 1.0, &mut problem).unwrap_err();
    assert!(error.to_string().contains("late"), "{error}");
    assert_eq!(state, fresh);

    // A state of other parameters.
    let mut more = start.clone();
    more.insert("v", Tensor::zeros(retrograd_engine::DType::F64, [2]).unwrap());
    assert!(kfac.check_state(&more, &fresh).is_err());
    let mut less = fresh.clone();
    less.tensors_mut().remove("w/kfac.0.A0");
    assert!(kfac.check_state(&start, &less).unwrap_err().to_string().contains("w/kfac.0.A0"));
}

/// A frozen parameter has no gradient: the rest of its block moves without it.
#[test]
fn a_frozen_part_of_a_block_stays() {
    let mut problem = Regression::new(&mut Normal(15));
    let kfac = regression_kfac(&[]);
    let mut params = problem.at.clone();
    let mut state = kfac.init(&params).unwrap();
    let mut grads = problem.gradient();
    grads.remove("b");
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
    assert!(params.get("b").unwrap().bit_eq(problem.at.get("b").unwrap()));
    assert!(!params.get("w").unwrap().bit_eq(problem.at.get("w").unwrap()));
}

/// The length of a quadratic step comes from the gradient, which clipping would take away; that of a fixed one does not.
#[test]
fn clipping_is_for_steps_of_a_given_length() {
    let step = |settings: &[&str], clip: Clip| -> Params {
        let mut problem = Regression::new(&mut Normal(26));
        let kfac = regression_kfac(settings);
        let (mut params, mut grads) = (problem.at.clone(), problem.gradient());
        let mut state = kfac.init(&params).unwrap();
        let mut recipe = Recipe::new(kfac);
        recipe.gradients.clip = clip;
        let clock = Clock { step: 0, epoch: 0 };
        let lr = LrState::default();
        let done = recipe.update_with(&mut grads, &mut state, &lr, &mut params, clock, &mut problem).unwrap();
        assert!(done.norm > 0.1, "{}", done.norm);
        params
    };
    let tight = || Clip::Norm { limit: 1e-3, form: NormForm::Divide };
    let quadratic: &[&str] = &["step=quadratic"];
    assert_eq!(step(quadratic, tight()), step(quadratic, Clip::None));
    let fixed: &[&str] = &["step=fixed", "lr=1", "momentum=0"];
    assert_ne!(step(fixed, tight()), step(fixed, Clip::None));
}

/// Steps become shorter where the batch after them finds that they went too far, and no longer than the model says.
#[test]
fn the_next_batch_says_how_long_steps_should_have_been() {
    let trust = |excess: f64, updates: usize| -> f64 {
        let mut problem = Regression::new(&mut Normal(27));
        let kfac = regression_kfac(&["damping=1", "trust_rate=0.2", "trust_least=0.05"]);
        let mut params = problem.at.clone();
        let mut state = kfac.init(&params).unwrap();
        for _ in 0..updates {
            // The gradient of a batch whose slope along the last step is so many times the curvature along it.
            let mut grads = problem.gradient();
            let v: Params = ["w", "b"]
                .into_iter()
                .map(|n| (n.to_string(), state.tensors().require(&format!("{n}/kfac.v")).unwrap().clone()))
                .collect();
            let curved = problem.products(0, &[&v]).unwrap()[0];
            let dot = |a: &Params, b: &Params| -> f64 {
                let pairs = a.iter().map(|(n, t)| (t, b.get(n).unwrap()));
                pairs.map(|(a, b)| (0..a.len()).map(|i| (a.get(i) * b.get(i)).re).sum::<f64>()).sum()
            };
            if curved > 0.0 {
                let missing = (excess * curved - dot(&grads, &v)) / dot(&v, &v);
                for (name, g) in grads.iter_mut() {
                    let (before, v) = (g.clone(), v.get(name).unwrap());
                    g.fill_with(|i| before.get(i) + v.get(i) * missing);
                }
            }
            kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
        }
        state.tensors().require("/kfac.trust").unwrap().item().unwrap()
    };
    assert_eq!(trust(1.0, 1), 1.0, "nothing has been said yet");
    let short = (trust(1.0, 4) / (-0.2f64 * 3.0).exp() - 1.0).abs();
    assert!(short < 1e-9, "{short}");
    assert_eq!(trust(9.0, 40), 0.05);
    assert_eq!(trust(-1.0, 4), 1.0);
}

/// Moments that are given, and nothing else.
struct Given(Moments);

impl Curvature for Given {
    fn moments(&mut self, _: u64) -> Result<Moments> {
        Ok(self.0.clone())
    }
    fn products(&mut self, _: u64, directions: &[&Params]) -> Result<Vec<f64>> {
        Ok(vec![1.0; directions.len() * directions.len()])
    }
    fn loss(&mut self, _: &Params) -> Result<f64> {
        Ok(0.0)
    }
    fn loss_before(&self) -> f64 {
        0.0
    }
}

/// A complex map whose inputs and cotangents are circular: the covariance of the real components of `conj(a_i) g_j` is
/// half of what `C = E[conj(a_i) a_k] E[g_j conj(g_l)]` is as a real matrix, so the step solves `½ C δ = −∇`.
#[test]
fn complex_maps_are_real_composites() {
    use num_complex::Complex64;
    use retrograd_engine::DType;
    let (inputs, outputs, rows) = (3, 2, 5);
    let mut random = Normal(16);
    let mut complex = |r: usize, c: usize| -> Vec<Vec<Complex64>> {
        (0..r).map(|_| (0..c).map(|_| Complex64::new(random.next(), random.next())).collect()).collect()
    };
    let moment = |x: &[Vec<Complex64>], n: usize| -> Vec<Vec<Complex64>> {
        let entry = |i: usize, k: usize| x.iter().map(|row| row[i] * row[k].conj()).sum::<Complex64>();
        (0..n).map(|i| (0..n).map(|k| entry(i, k)).collect()).collect()
    };
    let (a, g) = (moment(&complex(7, inputs), inputs), moment(&complex(7, outputs), outputs));
    let gradient = complex(inputs, outputs);
    let tensor = |m: &[Vec<Complex64>], s: f64| {
        let columns = m[0].len();
        let mut t = Tensor::zeros(DType::C64, [m.len(), columns]).unwrap();
        t.fill_with(|k| m[k / columns][k % columns] * s);
        t
    };
    let scale = rows as f64;
    let maps = vec![MapMoments { a0: Some(tensor(&a, scale)), a1: None, g0: tensor(&g, scale), g1: None }];
    let moments = Moments { maps, gradients: Params::new(), rows, lengths: vec![(1, 1.0)] };
    let spec = MapSpec {
        weight: Some("w".into()),
        transposed: false,
        bias: None,
        outputs: 0..outputs,
        lookup: false,
        every_step: false,
        uses: 1,
        input: 0,
    };
    let settings = ["burn_in=0", "damping=0", "adapt=false", "step=fixed", "lr=1", "momentum=0"];
    for kind in ["independence", "option1", "option2"] {
        let settings = Settings::parse(settings).unwrap().with("kfac", kind);
        let mut kfac = optimizer("kfac", &settings).unwrap();
        let mut params = Params::new();
        params.insert("w", Tensor::zeros(DType::C64, [inputs, outputs]).unwrap());
        kfac.bind(&Structure { maps: vec![spec.clone()] }, &params).unwrap();
        let mut state = kfac.init(&params).unwrap();
        let mut grads = Params::new();
        grads.insert("w", tensor(&gradient, 1.0));
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut Given(moments.clone())).unwrap();
        let delta = params.get("w").unwrap();
        for i in 0..inputs {
            for j in 0..outputs {
                let mut sum = Complex64::ZERO;
                for k in 0..inputs {
                    for l in 0..outputs {
                        sum += a[i][k].conj() * g[j][l] * delta.get(k * outputs + l) * 0.5;
                    }
                }
                assert!((sum + gradient[i][j]).norm() < 1e-10, "{kind}: {sum} {}", gradient[i][j]);
            }
        }
    }
}

/// A matrix stored `[outputs, inputs]`, a map cut into parts, and one with inputs that choose rows.
#[test]
fn forms_of_maps_agree() {
    use retrograd_engine::DType;
    let mut random = Normal(17);
    let (a, g, z) = (random.spd(3), random.spd(4), random.matrix(3, 4));
    let rows = 6;
    let settings =
        ["burn_in=0", "damping=0.1", "adapt=false", "step=fixed", "lr=1", "momentum=0", "kfac=independence"];
    let step = |transposed: bool, lookup: bool, cuts: &[usize], a: &Mat<f64>, g: &Mat<f64>| -> Mat<f64> {
        let scaled = |m: &Mat<f64>| tensor(&(Scale(rows as f64) * m));
        let (mut specs, mut maps) = (Vec::new(), Vec::new());
        for w in cuts.windows(2) {
            let (from, n) = (w[0], w[1] - w[0]);
            specs.push(MapSpec {
                weight: Some("w".into()),
                transposed,
                bias: None,
                outputs: w[0]..w[1],
                lookup,
                every_step: false,
                uses: 1,
                input: 0,
            });
            let a0 = if lookup {
                let diagonal: Vec<f64> = (0..3).map(|i| a[(i, i)] * rows as f64).collect();
                Tensor::from_slice([3], &diagonal).unwrap()
            } else {
                scaled(a)
            };
            let g0 = scaled(&Mat::from_fn(n, n, |i, j| g[(from + i, from + j)]));
            maps.push(MapMoments { a0: Some(a0), a1: None, g0, g1: None });
        }
        let mut kfac = optimizer("kfac", &Settings::parse(settings).unwrap()).unwrap();
        let mut params = Params::new();
        let turn = |m: &Mat<f64>| if transposed { m.transpose().to_owned() } else { m.clone() };
        params.insert("w", Tensor::zeros(DType::F64, if transposed { [4, 3] } else { [3, 4] }).unwrap());
        kfac.bind(&Structure { maps: specs }, &params).unwrap();
        let mut state = kfac.init(&params).unwrap();
        let mut grads = Params::new();
        grads.insert("w", tensor(&turn(&z)));
        let moments = Moments { maps, gradients: Params::new(), rows, lengths: vec![(1, 1.0)] };
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut Given(moments)).unwrap();
        let w = params.get("w").unwrap();
        let columns = w.dims()[1];
        turn(&Mat::from_fn(w.dims()[0], columns, |i, j| w.get(i * columns + j).re))
    };
    let plain = step(false, false, &[0, 4], &a, &g);
    assert!(relative(&step(true, false, &[0, 4], &a, &g), &plain) < 1e-13);
    // Of block-diagonal G the parts are exact; of a diagonal A the lookup.
    let blocks = Mat::from_fn(4, 4, |i, j| if i / 2 == j / 2 { g[(i, j)] } else { 0.0 });
    let whole = step(false, false, &[0, 4], &a, &blocks);
    assert!(relative(&step(false, false, &[0, 2, 4], &a, &blocks), &whole) < 1e-13);
    let diagonal = Mat::from_fn(3, 3, |i, j| if i == j { a[(i, j)] } else { 0.0 });
    let whole = step(false, false, &[0, 4], &diagonal, &g);
    assert!(relative(&step(false, true, &[0, 4], &diagonal, &g), &whole) < 1e-13);
}

/// A regression whose batches are judged by a loss that the test says.
struct Judged {
    problem: Regression,
    loss: f64,
}

impl Curvature for Judged {
    fn moments(&mut self, step: u64) -> Result<Moments> {
        self.problem.moments(step)
    }
    fn products(&mut self, step: u64, directions: &[&Params]) -> Result<Vec<f64>> {
        self.problem.products(step, directions)
    }
    fn loss(&mut self, params: &Params) -> Result<f64> {
        self.problem.loss(params)
    }
    fn loss_before(&self) -> f64 {
        self.loss
    }
}

/// `½ (u² + v²)` with statistics by which `v` is a thousand times less curved.
struct Misjudged;

impl Curvature for Misjudged {
    fn moments(&mut self, _: u64) -> Result<Moments> {
        let mut gradients = Params::new();
        gradients.insert("u", Tensor::scalar(1.0f64));
        gradients.insert("v", Tensor::scalar(1e-3f64.sqrt()));
        Ok(Moments { maps: vec![], gradients, rows: 1, lengths: vec![(1, 1.0)] })
    }
    fn products(&mut self, _: u64, directions: &[&Params]) -> Result<Vec<f64>> {
        let at = |d: &Params, name: &str| d.get(name).map_or(0.0, |t| t.get(0).re);
        let dot = |a: &Params, b: &Params| at(a, "u") * at(b, "u") + at(a, "v") * at(b, "v");
        Ok(directions.iter().flat_map(|a| directions.iter().map(move |b| dot(a, b))).collect())
    }
    fn loss(&mut self, params: &Params) -> Result<f64> {
        Ok(0.5 * self.products(0, &[params])?[0])
    }
    fn loss_before(&self) -> f64 {
        1.0
    }
}

/// One step length for all would be that of the block that is wrong most.
#[test]
fn blocks_are_scaled_by_exact_curvature() {
    let step = |scales: &str| -> (f64, f64) {
        let settings = ["burn_in=0", "damping=1e-12", "adapt=false", scales];
        let mut kfac = optimizer("kfac", &Settings::parse(settings).unwrap()).unwrap();
        let mut params = Params::new();
        params.insert("u", Tensor::scalar(1.0f64));
        params.insert("v", Tensor::scalar(1.0f64));
        kfac.bind(&Structure::default(), &params).unwrap();
        let (grads, mut state) = (params.clone(), kfac.init(&params).unwrap());
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut Misjudged).unwrap();
        kfac.check_state(&params, &state).unwrap();
        (params.get("u").unwrap().get(0).re - 1.0, params.get("v").unwrap().get(0).re - 1.0)
    };
    let (u, v) = step("block_scales=true");
    assert!((u + 1.0).abs() < 1e-9 && (v + 1.0).abs() < 1e-9, "{u} {v}");
    let (u, _) = step("block_scales=false");
    assert!(u > -0.01, "{u}: without them the other hardly moves");
}

#[test]
fn the_first_damping_and_the_floor_come_from_the_mean_curvature() {
    let mut problem = Regression::new(&mut Normal(24));
    let moments = problem.moments(0).unwrap();
    let mean = |t: &Tensor| -> f64 {
        let n = t.dims()[0];
        (0..n).map(|i| t.get(i * (n + 1)).re).sum::<f64>() / (n * moments.rows) as f64
    };
    let curvature = mean(moments.maps[0].a0.as_ref().unwrap()) * mean(&moments.maps[0].g0);
    let start = problem.at.clone();
    let grads = problem.gradient();
    let mut first = |settings: &[&str]| -> f64 {
        let common = ["burn_in=0", "lm_every=100"];
        let mut kfac = optimizer("kfac", &Settings::parse(common.iter().chain(settings)).unwrap()).unwrap();
        kfac.bind(&Regression::structure(), &start).unwrap();
        let (mut params, mut state) = (start.clone(), kfac.init(&start).unwrap());
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut problem).unwrap();
        state.tensors().require("/kfac.lambda").unwrap().item().unwrap()
    };
    let close = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
    close(first(&[]), 10.0 * curvature);
    close(first(&["adapt=false"]), 10.0 * curvature);
    close(first(&["damping=100"]), 100.0);
    close(first(&["damping=1e-6", "damping_floor=0.5"]), 0.5 * curvature);
    close(first(&["damping=1e-6", "damping_floor=0"]), 1e-6);
    close(first(&["damping=1e-6", "adapt=false"]), 1e-6);
}

/// A full block gets one sample of its Fisher matrix for each batch. With fewer of them than it has numbers the step must
/// not go as far as damping lets it along what no sample has seen: of the steps from an average as it is the curvature is
/// hundreds of times what the block says.
#[test]
fn a_full_block_of_few_samples_does_not_run_along_what_they_have_not_seen() {
    const N: usize = 48;
    const SAMPLES: usize = 10;
    let mut random = Normal(23);
    // Cosine waves along the block, so that it is not diagonal.
    let scale: Vec<f64> = (0..N).map(|k| 2.0 / (1.0 + k as f64).sqrt()).collect();
    let basis = Mat::from_fn(N, N, |i, k| {
        let norm = if k == 0 { 1.0 } else { 2.0f64 };
        (norm / N as f64).sqrt() * (std::f64::consts::PI * (i as f64 + 0.5) * k as f64 / N as f64).cos()
    });
    let root = Mat::from_fn(N, N, |i, k| basis[(i, k)] * scale[k]);
    let mut draw = || -> Mat<f64> { &root * Mat::from_fn(N, 1, |_, _| random.next()) };
    let burn_in = SAMPLES - 1;
    let settings = Settings::parse([
        format!("burn_in={burn_in}"),
        "damping=1e-4".into(),
        "adapt=false".into(),
        "step=fixed".into(),
        "lr=1".into(),
        "momentum=0".into(),
    ]);
    let mut kfac = optimizer("kfac", &settings.unwrap()).unwrap();
    let vector = |m: &Mat<f64>| {
        let values: Vec<f64> = (0..N).map(|i| m[(i, 0)]).collect();
        let mut p = Params::new();
        p.insert("v", Tensor::from_slice([N], &values).unwrap());
        p
    };
    let start = vector(&Mat::zeros(N, 1));
    kfac.bind(&Structure::default(), &start).unwrap();
    let (mut params, mut state) = (start.clone(), kfac.init(&start).unwrap());
    let gradient = draw();
    for _ in 0..SAMPLES {
        let gradients = vector(&draw());
        let moments = Moments { maps: vec![], gradients, rows: 1, lengths: vec![(1, 1.0)] };
        kfac.update_with(&vector(&gradient), &mut state, &mut params, 1.0, &mut Given(moments)).unwrap();
    }
    let step = Mat::from_fn(N, 1, |i, _| params.get("v").unwrap().get(i).re);
    let slope = (gradient.transpose() * &step)[(0, 0)];
    let curvature = (root.transpose() * &step).squared_norm_l2();
    // The exact inverse has a curvature equal to minus the slope.
    assert!(slope < 0.0 && curvature < -10.0 * slope, "slope {slope}, curvature {curvature}");
}

/// An inversion that a step taken back kept from beginning is not taken over.
#[test]
fn a_step_taken_back_begins_no_inversion() {
    let problem = Regression::new(&mut Normal(25));
    let kfac = regression_kfac(&[
        "adapt=true",
        "damping=0.5",
        "lm_every=100",
        "inverse_every=3",
        "inverse_lag=1",
        "dense=0",
    ]);
    let start = problem.at.clone();
    let (grads, mut params, mut state) = (problem.gradient(), start.clone(), kfac.init(&start).unwrap());
    let mut judged = Judged { problem, loss: 1.0 };
    for update in 0..9 {
        // Update 3 is to begin an inversion, update 4 to take it over; 6 and 7 do.
        judged.loss = if update == 3 { 9.0 } else { 1.0 };
        kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
        kfac.check_state(&params, &state).unwrap();
    }
    assert!(params.iter().all(|(_, t)| t.is_finite()));
}

#[test]
fn a_step_after_which_the_loss_is_much_worse_is_taken_back() {
    let problem = Regression::new(&mut Normal(21));
    let kfac =
        regression_kfac(&["adapt=true", "damping=0.5", "lm_every=100", "lm_decay=0.99", "damping_floor=0"]);
    let start = problem.at.clone();
    let (grads, mut params, mut state) = (problem.gradient(), start.clone(), kfac.init(&start).unwrap());
    let mut judged = Judged { problem, loss: 1.0 };
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
    let after = params.clone();
    assert!(!after.get("w").unwrap().bit_eq(start.get("w").unwrap()));
    let lambda = |state: &State| state.tensors().get("/kfac.lambda").unwrap().get(0).re;
    assert_eq!(lambda(&state), 0.5);

    judged.loss = 2.5;
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
    for (name, t) in params.iter() {
        for i in 0..t.len() {
            let (got, expected) = (t.get(i).re, start.get(name).unwrap().get(i).re);
            assert!((got - expected).abs() < 1e-12, "{name}: {got}, expected {expected}");
        }
    }
    assert!(lambda(&state) > 0.5 && state.step() == 2);
    // So is one after which there is no number at all, but not what came before it.
    let settled = params.clone();
    judged.loss = 1.1;
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
    assert!(kfac.take_back(&mut state, &mut params).unwrap());
    for (name, t) in params.iter() {
        let off = (0..t.len()).map(|i| (t.get(i) - settled.get(name).unwrap().get(i)).norm());
        assert!(off.fold(0.0, f64::max) < 1e-12, "{name}");
    }
    assert!(!kfac.take_back(&mut state, &mut params).unwrap(), "nothing is left to take back");
    // From there it goes on.
    judged.loss = 1.1;
    kfac.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
    assert!(!params.get("w").unwrap().bit_eq(start.get("w").unwrap()));
}

#[test]
fn beside_another_optimiser_a_step_is_taken_back_too() {
    use retrograd_optim::{Divided, Select};
    let problem = Regression::new(&mut Normal(21));
    let others =
        regression_kfac(&["adapt=true", "damping=0.5", "lm_every=100", "lm_decay=0.99", "damping_floor=0"]);
    let special = optimizer("sgd", &Settings::new()).unwrap();
    let divided = Divided { select: Select::patterns("other"), special, others };
    let mut start = problem.at.clone();
    start.insert("other", Tensor::full(retrograd_engine::DType::F64, [2], 1.0).unwrap());
    let (mut grads, mut params) = (problem.gradient(), start.clone());
    grads.insert("other", Tensor::full(retrograd_engine::DType::F64, [2], 0.5).unwrap());
    let mut state = divided.init(&start).unwrap();
    assert!(!divided.take_back(&mut state, &mut params).unwrap(), "there was no step");
    let mut judged = Judged { problem, loss: 1.0 };
    divided.update_with(&grads, &mut state, &mut params, 1.0, &mut judged).unwrap();
    let after = params.clone();
    assert!(!after.get("w").unwrap().bit_eq(start.get("w").unwrap()));
    assert!(divided.take_back(&mut state, &mut params).unwrap());
    for name in ["w", "b"] {
        let (got, first) = (params.get(name).unwrap(), start.get(name).unwrap());
        assert!((0..got.len()).all(|i| (got.get(i) - first.get(i)).norm() < 1e-12), "{name}");
    }
    assert!(params.get("other").unwrap().bit_eq(after.get("other").unwrap()), "of the other optimiser");
    assert_eq!(state.step(), 2);
    assert!(divided.check_state(&params, &state).is_ok());
}
