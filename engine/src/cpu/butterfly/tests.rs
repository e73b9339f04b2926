//! Against the definition, on every instruction set.

use super::*;
use crate::cpu::real::Real;

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    }

    fn vec<R: Real>(&mut self, n: usize) -> Vec<R> {
        (0..n).map(|_| R::from_f64(self.next())).collect()
    }

    fn factors<R: Real>(&mut self, n: usize, complex: bool) -> Vec<[[R; 2]; 4]> {
        let mut entry = || {
            let (re, im) = (self.next(), self.next());
            [R::from_f64(re), if complex { R::from_f64(im) } else { R::ZERO }]
        };
        (0..n).map(|_| std::array::from_fn(|_| entry())).collect()
    }
}

type C = num_complex::Complex64;

fn complex<R: Real>(re: &[R], im: &[R], at: usize) -> C {
    C::new(re[at].to_f64(), if im.is_empty() { 0.0 } else { im[at].to_f64() })
}

/// Every factor by its definition, one after the other.
fn reference<R: Real>(factors: &[[[R; 2]; 4]], mut x: Vec<C>) -> Vec<C> {
    for (f, w) in factors.iter().enumerate() {
        let distance = x.len() >> (f + 1);
        let w = w.map(|e| C::new(e[0].to_f64(), e[1].to_f64()));
        x = (0..x.len())
            .map(|n| {
                let (row, low) = (usize::from(n & distance != 0), n & !distance);
                w[2 * row] * x[low] + w[2 * row + 1] * x[low + distance]
            })
            .collect();
    }
    x
}

fn product<R: Real>(tolerance: f64) {
    let mut random = Random(7);
    for isa in Isa::available() {
        for factors in butterfly_least::<R>(isa)..=11 {
            for is_complex in [false, true] {
                let (width, rows, gap) = (1 << factors, 3, 5);
                let stride = width + gap;
                let len = rows * stride;
                let w = random.factors::<R>(factors, is_complex);
                let (re, im) = (random.vec::<R>(len), random.vec::<R>(if is_complex { len } else { 0 }));
                let mut table = vec![R::ZERO; butterfly_table_len::<R>(isa, factors)];
                butterfly_table(isa, &w, &mut table);
                let (mut y_re, mut y_im) = (vec![R::ONE; len], vec![R::ONE; im.len()]);
                let x = RowsRef { re: &re, im: &im, stride };
                let y = RowsMut { re: &mut y_re, im: &mut y_im, stride };
                butterfly(isa, factors, rows, &table, x, y);
                for r in 0..rows {
                    let row = (0..width).map(|n| complex(&re, &im, r * stride + n)).collect();
                    for (n, expected) in reference(&w, row).into_iter().enumerate() {
                        let got = complex(&y_re, &y_im, r * stride + n);
                        let error = (got - expected).norm();
                        assert!(
                            error < tolerance,
                            "{isa}, {factors} factors, row {r}, {n}: {got} for {expected}"
                        );
                    }
                    let rest = &y_re[r * stride + width..(r + 1) * stride];
                    assert!(rest.iter().all(|v| *v == R::ONE), "written between rows");
                }
            }
        }
    }
}

/// Factors whose diagonals cannot be taken out, or only just.
#[test]
fn any_entries() {
    let [zero, one] = [[0.0, 0.0], [1.0, 0.0]];
    let plain = [[0.5, 0.25], [0.125, 0.0], [-0.5, 1.0], [2.0, -1.0]];
    let special = [
        [zero, one, one, zero],
        [zero, one, zero, one],
        [zero; 4],
        [zero, zero, one, one],
        [one, [1e13, 0.0], zero, one],
        [[1e-30, 0.0], one, one, [1e-30, 0.0]],
        [one, [300.0, 40.0], [-200.0, 0.0], one],
    ];
    for isa in Isa::available() {
        for (case, special) in special.iter().enumerate() {
            for place in 0..6 {
                let mut w = vec![plain; 6];
                w[place] = *special;
                let x = Random(case as u64).vec::<f64>(128);
                let (re, im) = x.split_at(64);
                let mut table = vec![0.0; butterfly_table_len::<f64>(isa, 6)];
                butterfly_table(isa, &w, &mut table);
                let (mut y_re, mut y_im) = (vec![1.0; 64], vec![1.0; 64]);
                let x = RowsRef { re, im, stride: 64 };
                let y = RowsMut { re: &mut y_re, im: &mut y_im, stride: 64 };
                butterfly(isa, 6, 1, &table, x, y);
                let expected = reference(&w, (0..64).map(|n| complex(re, im, n)).collect());
                let size = expected.iter().map(|z| z.norm()).fold(0.0, f64::max);
                for (n, z) in expected.into_iter().enumerate() {
                    let error = (complex(&y_re, &y_im, n) - z).norm();
                    assert!(error <= 1e-14 * size, "{isa}, case {case} at {place}, {n}: {error} of {size}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let isa = Isa::detect();
    let mut w = vec![[[1.0, 0.0], [0.5, 0.0], [0.5, 0.0], [1.0, 0.0]]; 6];
    w[1][0][0] = f64::NAN;
    let mut table = vec![0.0; butterfly_table_len::<f64>(isa, 6)];
    butterfly_table(isa, &w, &mut table);
    let (x, mut y) = (vec![1.0; 64], vec![0.0; 64]);
    let x = RowsRef { re: &x, im: &[], stride: 64 };
    butterfly(isa, 6, 1, &table, x, RowsMut { re: &mut y, im: &mut [], stride: 64 });
    assert!(y[..16].iter().all(|v| v.is_nan()), "{y:?}");
}

#[test]
fn product_is_the_definition() {
    product::<f32>(2e-4);
    product::<f64>(1e-12);
}

fn traces<R: Real>(tolerance: f64) {
    let mut random = Random(11);
    for isa in Isa::available() {
        for factors in butterfly_least::<R>(isa)..=10 {
            for is_complex in [false, true] {
                let (width, rows) = (1 << factors, 3);
                let len = rows * width;
                let im_len = if is_complex { len } else { 0 };
                let (a_re, a_im) = (random.vec::<R>(len), random.vec::<R>(im_len));
                let (x_re, x_im) = (random.vec::<R>(len), random.vec::<R>(im_len));
                let mut scratch = random.vec::<R>(butterfly_traces_scratch(factors));
                let mut sums = random.factors::<R>(factors, true);
                let a = RowsRef { re: &a_re, im: &a_im, stride: width };
                let x = RowsRef { re: &x_re, im: &x_im, stride: width };
                butterfly_traces(isa, factors, rows, a, x, &mut scratch, &mut sums);
                for (f, sum) in sums.iter().enumerate() {
                    let distance = width >> (f + 1);
                    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let mut expected = C::new(0.0, 0.0);
                        for n in (0..len).filter(|n| n & distance == 0) {
                            expected += complex(&a_re, &a_im, n + i * distance)
                                * complex(&x_re, &x_im, n + j * distance).conj();
                        }
                        let got = C::new(sum[2 * i + j][0].to_f64(), sum[2 * i + j][1].to_f64());
                        let error = (got - expected).norm() / width as f64;
                        assert!(
                            error < tolerance,
                            "{isa}, factor {f} of {factors}, {i}{j}: {got} for {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn traces_are_the_definition() {
    traces::<f32>(1e-5);
    traces::<f64>(1e-13);
}
