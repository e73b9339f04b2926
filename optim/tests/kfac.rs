//! Inverses of Fisher blocks against dense constructions of the chain-structured Gaussian.
#![allow(clippy::unwrap_used)]

use faer::linalg::solvers::{DenseSolveCore, Solve};
use faer::{Mat, Scale, Side};
use retrograd_engine::{Params, Tensor};
use retrograd_optim::kfac::{Adaptation, Approximation, Damping, Factors, Inverse, Plane, chain_sum};
use retrograd_optim::{CgOptions, conjugate_gradients};

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
    let mut walk =
        |n: usize, c0: &Mat<f64>, psi: &Mat<f64>, steps: usize, rows: usize, random: &mut Normal| {
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
