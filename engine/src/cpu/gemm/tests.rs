//! Products against a naive sum in f64, and the same bits however a product is split.

#![allow(clippy::unwrap_used)]

use super::*;

/// Reproducible numbers in [-1, 1).
fn numbers<R: Real>(n: usize, seed: u64) -> Vec<R> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            R::from_f64((x >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        })
        .collect()
}

const MODES: [Accumulate; 3] = [Accumulate::Set, Accumulate::Add, Accumulate::Sub];

/// `start ± Σ a_k b_k`, and the norm its error is measured against.
fn naive<R: Real>(mode: Accumulate, start: R, terms: impl Iterator<Item = (R, R)>) -> (f64, f64) {
    let start = if mode == Accumulate::Set { 0.0 } else { start.to_f64() };
    let (mut sum, mut norm) = (0.0, start.abs());
    for (a, b) in terms {
        sum += a.to_f64() * b.to_f64();
        norm += (a.to_f64() * b.to_f64()).abs();
    }
    (if mode == Accumulate::Sub { start - sum } else { start + sum }, norm)
}

fn close<R: Real>(got: R, (expected, norm): (f64, f64), k: usize) -> bool {
    (got.to_f64() - expected).abs() <= 30.0 * norm * (k.max(1) as f64) * R::EPSILON.to_f64()
}

fn check_gemm<R: Real>(isa: Isa, m: usize, k: usize, n: usize, transposed: bool) {
    let (lda, ldc) = (k + m % 3, n + k % 3);
    let ldb = if transposed { k + 1 } else { n + 2 };
    let a: Vec<R> = numbers(m * lda, 1);
    let b: Vec<R> = numbers(k.max(n) * ldb, 2);
    let start: Vec<R> = numbers(m * ldc, 3);
    let mut packed = vec![R::from_f64(f64::NAN); packed_len::<R>(isa, k, n)];
    pack(isa, k, n, &b, ldb, transposed, &mut packed);
    for mode in MODES {
        let mut c = start.clone();
        gemm_packed(isa, m, k, n, &a, lda, &packed, &mut c, ldc, mode);
        for i in 0..m {
            for j in 0..ldc {
                let at = i * ldc + j;
                if j >= n {
                    assert_eq!(c[at], start[at], "{isa} m={m} k={k} n={n}: wrote beyond column {n}");
                    continue;
                }
                let terms = (0..k)
                    .map(|p| (a[i * lda + p], if transposed { b[j * ldb + p] } else { b[p * ldb + j] }));
                let expected = naive(mode, start[at], terms);
                assert!(
                    close(c[at], expected, k),
                    "{isa} {mode:?} m={m} k={k} n={n} [{i},{j}] {} {expected:?}",
                    c[at]
                );
            }
        }
    }
}

fn check_tn<R: Real>(isa: Isa, rows: usize, m: usize, n: usize) {
    let (lda, ldb, ldc) = (m + rows % 2, n + m % 2, n + rows % 3);
    let a: Vec<R> = numbers(rows * lda, 4);
    let b: Vec<R> = numbers(rows * ldb, 5);
    let start: Vec<R> = numbers(m * ldc, 6);
    for mode in MODES {
        let mut c = start.clone();
        gemm_tn(isa, rows, m, n, &a, lda, &b, ldb, &mut c, ldc, mode);
        for i in 0..m {
            for j in 0..ldc {
                let at = i * ldc + j;
                if j >= n {
                    assert_eq!(c[at], start[at], "{isa} rows={rows} m={m} n={n}: wrote beyond column {n}");
                    continue;
                }
                let expected = naive(mode, start[at], (0..rows).map(|r| (a[r * lda + i], b[r * ldb + j])));
                assert!(
                    close(c[at], expected, rows),
                    "{isa} {mode:?} rows={rows} m={m} n={n} [{i},{j}] {} {expected:?}",
                    c[at]
                );
            }
        }
    }
}

/// Rows in groups, bit for bit as if they followed each other.
fn check_groups<R: Real>(isa: Isa, groups: usize, rows: usize, m: usize, n: usize) {
    let (lda, ldb) = (m + rows % 2, n + m % 2);
    let (a_group, b_group) = (rows * lda + 5, rows * ldb + groups % 2 * 3);
    let (a, b): (Vec<R>, Vec<R>) = (numbers(groups * a_group, 9), numbers(groups * b_group, 10));
    let gather = |from: &[R], group: usize, stride: usize, width: usize| -> Vec<R> {
        let row = |r: usize| r / rows * group + r % rows * stride;
        (0..groups * rows).flat_map(|r| from[row(r)..row(r) + width].to_vec()).collect()
    };
    let (flat_a, flat_b) = (gather(&a, a_group, lda, m), gather(&b, b_group, ldb, n));
    let start: Vec<R> = numbers(m * n, 11);
    for mode in MODES {
        let (mut expected, mut c) = (start.clone(), start.clone());
        gemm_tn(isa, groups * rows, m, n, &flat_a, m, &flat_b, n, &mut expected, n, mode);
        let a = Rows { ptr: a.as_ptr(), stride: lda, group: a_group };
        let b = Rows { ptr: b.as_ptr(), stride: ldb, group: b_group };
        // SAFETY: the vectors hold all groups.
        unsafe { gemm_tn_raw(isa, (groups, rows), m, n, a, b, c.as_mut_ptr(), n, mode) };
        assert_eq!(c, expected, "{isa} {mode:?} groups={groups} rows={rows} m={m} n={n}");
    }
}

#[test]
fn rows_in_groups() {
    for isa in Isa::available() {
        for (groups, rows) in [(1, 7), (2, 1), (5, 4), (8, 25), (3, 100)] {
            for (m, n) in [(1, 1), (1, 300), (2, 128), (3, 257), (7, 64), (10, 130), (200, 3), (20, 700)] {
                check_groups::<f32>(isa, groups, rows, m, n);
                check_groups::<f64>(isa, groups, rows, m, n);
            }
        }
    }
}

#[test]
fn all_small_sizes() {
    for isa in Isa::available() {
        for m in 0..20 {
            for n in 0..20 {
                for k in [0, 1, 2, 3, 7, 8, 16, 19] {
                    check_gemm::<f32>(isa, m, k, n, (m + n) % 2 == 0);
                    check_gemm::<f64>(isa, m, k, n, (m + n) % 2 == 1);
                    check_tn::<f32>(isa, k, m, n);
                    check_tn::<f64>(isa, k, m, n);
                }
            }
        }
    }
}

#[test]
fn some_large_sizes() {
    for isa in Isa::available() {
        for (m, k, n) in [
            (1, 130, 200),
            (7, 128, 129),
            (50, 33, 68),
            (13, 300, 63),
            (64, 64, 64),
            (5, 5, 257),
            (1, 9, 600),
            (2, 40, 260),
            (67, 1024, 140),
        ] {
            check_gemm::<f32>(isa, m, k, n, true);
            check_gemm::<f64>(isa, m, k, n, false);
        }
        for (rows, m, n) in
            [(200, 5, 70), (64, 130, 3), (65, 49, 129), (130, 300, 1), (129, 1, 64), (63, 96, 64)]
        {
            check_tn::<f32>(isa, rows, m, n);
            check_tn::<f64>(isa, rows, m, n);
        }
    }
}

/// One product in pieces, bit for bit.
fn check_splits<R: Real>(isa: Isa, m: usize, k: usize, n: usize) {
    let (a, b): (Vec<R>, Vec<R>) = (numbers(m * k, 7), numbers(k * n, 8));
    let pack_part = |p: usize, kp: usize, j: usize, np: usize| {
        let mut packed = vec![R::ZERO; packed_len::<R>(isa, kp, np)];
        pack(isa, kp, np, &b[p * n + j..], n, false, &mut packed);
        packed
    };
    let mut whole = vec![R::ZERO; m * n];
    gemm_packed(isa, m, k, n, &a, k, &pack_part(0, k, 0, n), &mut whole, n, Accumulate::Set);
    let mut c = vec![R::ZERO; m * n];
    for (row, rows) in pieces(m, 5) {
        for (col, cols) in pieces(n, 11) {
            for (p, kp) in pieces(k, 3) {
                let mode = if p == 0 { Accumulate::Set } else { Accumulate::Add };
                let packed = pack_part(p, kp, col, cols);
                gemm_packed(
                    isa,
                    rows,
                    kp,
                    cols,
                    &a[row * k + p..],
                    k,
                    &packed,
                    &mut c[row * n + col..],
                    n,
                    mode,
                );
            }
        }
    }
    assert_eq!(c, whole, "{isa} m={m} k={k} n={n}");

    // The same product as a transposed one (a holds its columns as rows).
    let transposed: Vec<R> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
    let mut tn = vec![R::ZERO; m * n];
    gemm_tn(isa, k, m, n, &transposed, m, &b, n, &mut tn, n, Accumulate::Set);
    assert_eq!(tn, whole, "{isa} transposed m={m} k={k} n={n}");
    let mut parts = vec![R::ZERO; m * n];
    for (col, cols) in pieces(n, 7) {
        for (row, rows) in pieces(m, 3) {
            for (p, kp) in pieces(k, 13) {
                let (a, b) = (&transposed[p * m + row..], &b[p * n + col..]);
                gemm_tn(isa, kp, rows, cols, a, m, b, n, &mut parts[row * n + col..], n, Accumulate::Add);
            }
        }
    }
    assert_eq!(parts, whole, "{isa} transposed m={m} k={k} n={n}");
}

/// `0..n` in uneven pieces: start and length.
fn pieces(n: usize, step: usize) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let (mut at, mut len) = (0, 1);
    while at < n {
        out.push((at, len.min(n - at)));
        at += len;
        len += step;
    }
    out
}

#[test]
fn any_split_gives_the_same_bits() {
    for isa in Isa::available() {
        for (m, k, n) in [(1, 40, 100), (9, 70, 33), (50, 129, 65), (100, 5, 3), (3, 80, 6)] {
            check_splits::<f32>(isa, m, k, n);
            check_splits::<f64>(isa, m, k, n);
        }
    }
}

#[test]
fn a_short_slice_is_refused() {
    let isa = Isa::detect();
    let packed = vec![0f32; packed_len::<f32>(isa, 4, 4)];
    let run = |a: usize, packed: &[f32], c: usize, lda: usize| {
        std::panic::catch_unwind(|| {
            let mut c = vec![0f32; c];
            gemm_packed(isa, 4, 4, 4, &vec![0f32; a], lda, packed, &mut c, 4, Accumulate::Set);
        })
        .is_ok()
    };
    assert!(run(16, &packed, 16, 4));
    assert!(!run(15, &packed, 16, 4));
    assert!(!run(16, &packed[1..], 16, 4));
    assert!(!run(16, &packed, 15, 4));
    assert!(!run(16, &packed, 16, 3));
    assert!(!run(16, &packed, 16, usize::MAX / 2));
}

/// Prints rates; `cargo test --release -p retrograd-engine gemm_rates -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn gemm_rates() {
    fn best(flops: usize, mut f: impl FnMut()) -> f64 {
        let rounds = (20_000_000 / flops).max(1);
        let seconds = (0..40)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..rounds).for_each(|_| f());
                start.elapsed().as_secs_f64() / rounds as f64
            })
            .fold(f64::INFINITY, f64::min);
        flops as f64 / seconds / 1e9
    }
    fn rates<R: Real>(name: &str) {
        for isa in Isa::available() {
            for (m, k, n) in [
                (50, 128, 512),
                (50, 512, 128),
                (48, 128, 512),
                (1, 128, 512),
                (2, 128, 512),
                (4, 128, 512),
                (8, 128, 512),
                (50, 1024, 1024),
                (400, 512, 128),
            ] {
                let (a, b): (Vec<R>, Vec<R>) = (numbers(m * k, 1), numbers(k * n, 2));
                let mut packed = vec![R::ZERO; packed_len::<R>(isa, k, n)];
                pack(isa, k, n, &b, n, false, &mut packed);
                let mut c = vec![R::ZERO; m * n];
                let rate = best(2 * m * k * n, || {
                    gemm_packed(isa, m, k, n, &a, k, &packed, &mut c, n, Accumulate::Set)
                });
                println!("{name} {isa:8} packed m={m} k={k} n={n}: {rate:.1} GFLOP/s");
            }
            for (rows, m, n) in [
                (400, 128, 512),
                (50, 128, 512),
                (8, 128, 512),
                (400, 1, 512),
                (400, 128, 1),
                (400, 512, 128),
            ] {
                let (a, b): (Vec<R>, Vec<R>) = (numbers(rows * m, 1), numbers(rows * n, 2));
                let mut c = vec![R::ZERO; m * n];
                let rate = best(2 * rows * m * n, || {
                    gemm_tn(isa, rows, m, n, &a, m, &b, n, &mut c, n, Accumulate::Sub)
                });
                println!("{name} {isa:8} tn rows={rows} m={m} n={n}: {rate:.1} GFLOP/s");
            }
        }
    }
    rates::<f32>("f32");
    rates::<f64>("f64");
}
