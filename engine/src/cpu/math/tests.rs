//! Against the standard library in f64, in units of the last place.

use super::*;
use crate::cpu::isa::Isa;
use crate::cpu::real::{Kernel, dispatch_f32, dispatch_f64};

/// Functions by number, so that one kernel serves all.
#[derive(Clone, Copy, Debug, PartialEq)]
enum F {
    Exp,
    Expm1,
    Log,
    Log1p,
    Tanh,
    Sigmoid,
    Softplus,
    Sin,
    Cos,
    Sign,
    Floor,
}

const ALL: [F; 11] =
    [F::Exp, F::Expm1, F::Log, F::Log1p, F::Tanh, F::Sigmoid, F::Softplus, F::Sin, F::Cos, F::Sign, F::Floor];

impl F {
    fn reference(self, x: f64) -> f64 {
        match self {
            F::Exp => x.exp(),
            F::Expm1 => x.exp_m1(),
            F::Log => x.ln(),
            F::Log1p => x.ln_1p(),
            F::Tanh => x.tanh(),
            F::Sigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
            F::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            F::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 },
            F::Sin => x.sin(),
            F::Cos => x.cos(),
            F::Sign if x == 0.0 => 0.0,
            F::Sign if x.is_nan() => x,
            F::Sign => x.signum(),
            F::Floor => x.floor(),
        }
    }
}

struct Map<'a, R> {
    f: F,
    x: &'a [R],
    y: &'a mut [R],
}

impl<R: Real> Kernel<R> for Map<'_, R> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        for (x, y) in self.x.chunks(V::LANES).zip(self.y.chunks_mut(V::LANES)) {
            // SAFETY: the dispatcher has checked the instruction set; chunks are at most a vector long.
            unsafe {
                let v = V::load_n(x.as_ptr(), x.len());
                let v = match self.f {
                    F::Exp => exp(v),
                    F::Expm1 => expm1(v),
                    F::Log => log(v),
                    F::Log1p => log1p(v),
                    F::Tanh => tanh(v),
                    F::Sigmoid => sigmoid(v),
                    F::Softplus => softplus(v),
                    F::Sin => sin(v),
                    F::Cos => cos(v),
                    F::Sign => sign(v),
                    F::Floor => v.floor(),
                };
                v.store_n(y.as_mut_ptr(), x.len());
            }
        }
    }
}

fn map32(isa: Isa, f: F, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    // SAFETY: slices of equal length.
    unsafe { dispatch_f32(isa, Map { f, x, y: &mut y }) };
    y
}

fn map64(isa: Isa, f: F, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    // SAFETY: slices of equal length.
    unsafe { dispatch_f64(isa, Map { f, x, y: &mut y }) };
    y
}

/// Distance from the exact value in units of the last place of the result; 0 where both are the same special.
fn ulps32(got: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if got == rounded || (got.is_nan() && exact.is_nan()) {
        return 0.0;
    }
    if !got.is_finite() || exact.is_nan() || !rounded.is_finite() {
        return f64::INFINITY;
    }
    let unit = f64::from(rounded.abs().next_up()) - f64::from(rounded.abs());
    (f64::from(got) - exact).abs() / unit
}

fn ulps64(got: f64, expected: f64) -> f64 {
    if got == expected || (got.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    if !got.is_finite() || !expected.is_finite() {
        return f64::INFINITY;
    }
    (got - expected).abs() / (expected.abs().next_up() - expected.abs())
}

/// Arguments of all magnitudes, and densely where functions are delicate.
fn sweep() -> Vec<f64> {
    let mut xs: Vec<f64> = (-40_000..40_000).map(|i| f64::from(i) * 0.002_717).collect();
    xs.extend((-20_000..20_000).map(|i| f64::from(i) * 7.77e-5));
    for i in 0..6000 {
        let x = 10f64.powf(-30.0 + f64::from(i) * 0.01);
        xs.extend([x, -x, 1.0 + x, -1.0 + x]);
    }
    xs.extend((0..20_000).map(|i| f64::from(i) * 4.9877));
    xs.extend((1..2000).map(|i| f64::from(i) * std::f64::consts::FRAC_PI_2));
    xs.extend((-760..730).map(f64::from));
    xs
}

#[test]
fn f32_is_within_two_ulp() {
    let xs: Vec<f32> = sweep().into_iter().map(|x| x as f32).collect();
    let mut failures = Vec::new();
    for isa in Isa::available() {
        for f in ALL {
            let ys = map32(isa, f, &xs);
            let worst = xs.iter().zip(&ys).map(|(&x, &y)| (ulps32(y, f.reference(f64::from(x))), x, y));
            let (ulps, x, y) = worst.fold((0.0, 0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            println!("{isa:9} {f:?} {ulps:.2} at {x:e}");
            if ulps > 2.0 {
                failures.push(format!("{isa} {f:?}({x:e}) = {y:e}: {ulps} ulp"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn f64_is_within_four_ulp() {
    let xs = sweep();
    let mut failures = Vec::new();
    for isa in Isa::available() {
        for f in ALL {
            let ys = map64(isa, f, &xs);
            let worst = xs.iter().zip(&ys).map(|(&x, &y)| (ulps64(y, f.reference(x)), x, y));
            let (ulps, x, y) = worst.fold((0.0, 0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
            println!("{isa:9} {f:?} {ulps:.2} at {x:e}");
            if ulps > 4.0 {
                failures.push(format!("{isa} {f:?}({x:e}) = {y:e}: {ulps} ulp"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn special_values() {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::MIN_POSITIVE,
        -f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1e-310,
        f64::MAX,
        f64::MIN,
        709.78,
        709.79,
        -708.5,
        -740.0,
        -745.2,
        -800.0,
        1e5,
        -1e5,
        1.000_1e5,
        1e22,
        -1e300,
    ];
    let mut failures = Vec::new();
    for isa in Isa::available() {
        for f in ALL {
            for (x, y) in special.into_iter().zip(map64(isa, f, &special)) {
                let e = f.reference(x);
                let sign = y.is_nan() || y != 0.0 || y.is_sign_negative() == e.is_sign_negative();
                if ulps64(y, e) > 4.0 || !sign {
                    failures.push(format!("{isa} {f:?}({x:e}) = {y:e}, expected {e:e}"));
                }
            }
            let narrow: Vec<f32> = special
                .into_iter()
                .map(|x| x as f32)
                .chain([
                    f32::MIN_POSITIVE,
                    1e-40,
                    -1e-40,
                    1e-45,
                    88.72,
                    88.73,
                    -87.4,
                    -100.0,
                    -103.9,
                    -104.5,
                    f32::MAX,
                ])
                .collect();
            for (&x, y) in narrow.iter().zip(map32(isa, f, &narrow)) {
                let e = f.reference(f64::from(x));
                let sign = y.is_nan() || y != 0.0 || y.is_sign_negative() == e.is_sign_negative();
                if ulps32(y, e) > 2.0 || !sign {
                    failures.push(format!("{isa} f32 {f:?}({x:e}) = {y:e}, expected {e:e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

struct Two<'a> {
    a: &'a [f64],
    b: &'a [f64],
    /// hypot, pow, max, min, recip_hypot.
    y: [&'a mut [f64]; 5],
}

impl Kernel<f64> for Two<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = f64>>(self) {
        for i in 0..self.a.len() {
            // SAFETY: the dispatcher has checked the instruction set; one element of each slice.
            unsafe {
                let (a, b) = (V::load_n(&self.a[i], 1), V::load_n(&self.b[i], 1));
                hypot(a, b).store_n(&mut self.y[0][i], 1);
                pow(a, b).store_n(&mut self.y[1][i], 1);
                a.max(b).store_n(&mut self.y[2][i], 1);
                a.min(b).store_n(&mut self.y[3][i], 1);
                recip_hypot(a, b).store_n(&mut self.y[4][i], 1);
            }
        }
    }
}

#[test]
fn functions_of_two_arguments() {
    let xs = [
        0.0,
        -0.0,
        1.0,
        -2.0,
        0.5,
        3.0,
        -4.0,
        1e-200,
        1e200,
        1.7e308,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let (a, b): (Vec<_>, Vec<_>) = xs.iter().flat_map(|&a| xs.iter().map(move |&b| (a, b))).unzip();
    for isa in Isa::available() {
        let mut y = [(); 5].map(|()| vec![0.0; a.len()]);
        let [h, p, max, min, r] = &mut y;
        // SAFETY: slices of equal length.
        unsafe { dispatch_f64(isa, Two { a: &a, b: &b, y: [h, p, max, min, r] }) };
        for i in 0..a.len() {
            let (a, b) = (a[i], b[i]);
            let nan = a.is_nan() || b.is_nan();
            let expected = [
                a.hypot(b),
                a.powf(b),
                if nan { f64::NAN } else { a.max(b) },
                if nan { f64::NAN } else { a.min(b) },
                Some(0.5 / (0.5 * a).hypot(0.5 * b)).filter(|y| *y != f64::INFINITY).unwrap_or(0.0),
            ];
            for (j, e) in expected.into_iter().enumerate() {
                assert!(
                    ulps64(y[j][i], e) <= 2.0,
                    "{isa} function {j} of {a:e}, {b:e}: {:e}, expected {e:e}",
                    y[j][i]
                );
            }
        }
    }
}

/// Moduli of complex numbers in f32.
struct Moduli<'a> {
    a: &'a [f32],
    b: &'a [f32],
    /// hypot, recip_hypot.
    y: [&'a mut [f32]; 2],
}

impl Kernel<f32> for Moduli<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = f32>>(self) {
        for i in (0..self.a.len()).step_by(V::LANES) {
            let n = V::LANES.min(self.a.len() - i);
            // SAFETY: the dispatcher has checked the instruction set; the lanes lie in the slices.
            unsafe {
                let (a, b) = (V::load_n(&self.a[i], n), V::load_n(&self.b[i], n));
                hypot(a, b).store_n(&mut self.y[0][i], n);
                recip_hypot(a, b).store_n(&mut self.y[1][i], n);
            }
        }
    }
}

#[test]
fn moduli_of_all_sizes_within_two_ulp() {
    // Scales of normal numbers, so that vectors hold large, small and ordinary moduli side by side.
    let mut a = vec![0.0f32, 0.0, -0.0, f32::INFINITY, f32::NAN, 1e-45, 3e-39, 1e-20, 1e20];
    let mut b = vec![0.0f32, -0.0, 2.0, f32::NAN, 1.0, 0.0, 0.0, -1e-20, 1e19];
    for i in 0..40_000 {
        let scale = if i / 64 % 3 == 0 { 10f64.powf(f64::from(i % 75) - 37.0) } else { 1.0 };
        let angle = f64::from(i) * 0.001_37;
        a.push((scale * angle.cos()) as f32);
        b.push((scale * angle.sin()) as f32);
    }
    for isa in Isa::available() {
        let mut y = [vec![0.0; a.len()], vec![0.0; a.len()]];
        let [h, r] = &mut y;
        // SAFETY: slices of equal length.
        unsafe { dispatch_f32(isa, Moduli { a: &a, b: &b, y: [h, r] }) };
        for i in 0..a.len() {
            let exact = f64::from(a[i]).hypot(f64::from(b[i]));
            let inverse = if (1.0 / exact) as f32 == f32::INFINITY { 0.0 } else { 1.0 / exact };
            let errors = [ulps32(y[0][i], exact), ulps32(y[1][i], inverse)];
            assert!(errors.iter().all(|e| *e <= 2.0), "{isa}: {} {}: {errors:?}", a[i], b[i]);
        }
    }
}

struct Powers<'a, R> {
    a: &'a [R],
    b: &'a [R],
    y: &'a mut [R],
}

impl<R: Real> Kernel<R> for Powers<'_, R> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Vector<Scalar = R>>(self) {
        for i in (0..self.y.len()).step_by(V::LANES) {
            let n = V::LANES.min(self.y.len() - i);
            // SAFETY: as for `Map`.
            unsafe {
                let (a, b) = (V::load_n(&self.a[i], n), V::load_n(&self.b[i], n));
                pow_by_parts(a, b).store_n(&mut self.y[i], n);
            }
        }
    }
}

/// What devices use for powers, against the standard library.
#[test]
fn powers_by_parts() {
    let special =
        [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for x in special {
        for y in special {
            a.push(x);
            b.push(y);
        }
    }
    for i in 0..4000 {
        let t = i as f64 / 4000.0;
        a.push(((((i * 7919) % 4000) as f64 / 4000.0 - 0.5) * 40.0).exp());
        b.push((t - 0.5) * 20.0);
    }
    let fused = || Isa::available().into_iter().filter(|isa| *isa != Isa::Portable);
    for isa in fused() {
        let mut y = vec![0.0; a.len()];
        // SAFETY: slices of equal length.
        unsafe { dispatch_f64(isa, Powers { a: &a, b: &b, y: &mut y }) };
        for (i, &y) in y.iter().enumerate() {
            let expected = a[i].powf(b[i]);
            let sign = y.is_sign_negative() == expected.is_sign_negative();
            let same = y == expected && sign || y.is_nan() && expected.is_nan();
            let off = ((y - expected) / expected).abs() / f64::EPSILON;
            assert!(same || off < 2.0, "{}^{}: {y}, expected {expected}, off by {off}", a[i], b[i]);
        }
    }
    let [a, b] = [&a, &b].map(|v| v.iter().map(|x| *x as f32).collect::<Vec<f32>>());
    for isa in fused() {
        let mut y = vec![0.0f32; a.len()];
        // SAFETY: slices of equal length.
        unsafe { dispatch_f32(isa, Powers { a: &a, b: &b, y: &mut y }) };
        for (i, &y) in y.iter().enumerate() {
            let expected = f64::from(a[i]).powf(f64::from(b[i]));
            let off = ((f64::from(y) - expected) / expected).abs() / f64::from(f32::EPSILON);
            let same = y == expected as f32 || y.is_nan() && expected.is_nan();
            // Denormal results have fewer digits.
            let normal = expected.abs() > 1.2e-38;
            assert!(
                same || off < 2.0 || !normal,
                "{}^{}: {y}, expected {expected}, off by {off}",
                a[i],
                b[i]
            );
        }
    }
}
