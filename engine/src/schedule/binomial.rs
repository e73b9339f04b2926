//! Counts of the binomial schedule: how far it reaches, how often it repeats, where it splits.
//!
//! Letters follow Griewank & Walther (2000): `s` slots including the one of the initial state, `r` repetitions,
//! `β(s, r) = C(s+r, s)`. Everything saturates instead of overflowing: a saturated count is larger than any run.

/// Longest chain that `slots` slots reverse when no segment is advanced over more than `repetitions` times:
/// `β(s, r) = C(s+r, s)`. Saturates at `u64::MAX`.
pub fn reach(slots: usize, repetitions: usize) -> u64 {
    let (long, short) = (slots.max(repetitions) as u128, slots.min(repetitions) as u128);
    let mut count: u128 = 1;
    for i in 1..=short {
        // C(long+i, i) from C(long+i-1, i-1): the product is divisible by i, and fits because count < 2^64.
        count = count * (long + i) / i;
        if count > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    count as u64
}

/// Least number of times that some segment must be advanced over when `segments` segments are reversed with
/// `slots >= 1` slots: `r(n, s) = min { r : n <= β(s, r) }`; 0 for at most one segment.
pub fn repetitions(segments: usize, slots: usize) -> usize {
    let n = segments as u64;
    if n <= 1 {
        return 0;
    }
    match slots.max(1) {
        1 => segments - 1, // β(1, r) = r + 1
        s => {
            let mut high = 1;
            while reach(s, high) < n {
                high *= 2;
            }
            let mut low = high / 2; // reach(low) < n <= reach(high)
            while high - low > 1 {
                let mid = low + (high - low) / 2;
                if reach(s, mid) < n { low = mid } else { high = mid }
            }
            high
        }
    }
}

/// Least number of segments advanced over without recording when `segments` segments are reversed with
/// `slots >= 1` slots: `P(n, s) = r·n - C(s+r, r-1)`, `r = r(n, s)`. Saturates at `u64::MAX`.
///
/// The recording passes, one for each segment, are not counted. The first sweep (the run itself, `n - 1`
/// segments) is: against a run that keeps everything, a schedule costs exactly `P` more segments of forward work.
pub fn advances(segments: usize, slots: usize) -> u64 {
    let r = repetitions(segments, slots);
    if r == 0 {
        return 0;
    }
    let n = segments as u128;
    if slots <= 1 {
        return saturate(n * (n - 1) / 2);
    }
    // C(s+r, r-1) = β(s+1, r-1) <= r·n, so it saturates only where the whole count does.
    match reach(slots.saturating_add(1), r - 1) {
        u64::MAX => u64::MAX,
        saved => saturate((r as u128 * n).saturating_sub(u128::from(saved))),
    }
}

/// How many of `segments >= 2` segments to advance before the next store, when `slots >= 1` slots are left
/// including the one that holds the present state. Reaches [`advances`], and among the splits that do, stores
/// least often (Griewank & Walther 2000, section 4).
pub fn split(segments: usize, slots: usize) -> usize {
    let s = slots.max(1);
    if s == 1 || segments <= 2 {
        return segments.saturating_sub(1).max(1);
    }
    let n = segments as u64;
    let r = repetitions(segments, s);
    let left = reach(s, r - 1);
    let right = reach(s - 1, r - 1);
    let right_least = reach(s - 2, r - 1);
    let spare = if s < 3 { 0 } else { reach(s - 3, r) };
    let k = if n <= left.saturating_add(right_least) {
        if r >= 2 { reach(s, r - 2) } else { 1 }
    } else if n >= reach(s, r).saturating_sub(spare) && reach(s, r) != u64::MAX {
        left
    } else {
        n.saturating_sub(right.saturating_add(right_least))
    };
    // `k` is below `segments`, so it fits.
    k.clamp(1, n - 1) as usize
}

fn saturate(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
// 6.28 advances a step is a measured count of the table, not a circle.
#[allow(clippy::approx_constant)]
mod tests {
    use super::*;

    /// `(P, W)` by dynamic programming: least advances, and least stores among the schedules with those.
    fn tabulate(n_max: usize, s_max: usize) -> Vec<Vec<(u64, u64)>> {
        let mut table = vec![vec![(0, 0); s_max + 1]; n_max + 1];
        for n in 2..=n_max {
            table[n][1] = ((n * (n - 1) / 2) as u64, 0);
            for s in 2..=s_max {
                table[n][s] = (1..n)
                    .map(|k| {
                        let (right, left) = (table[n - k][s - 1], table[k][s]);
                        // The last segment is recorded from where the run stands: nothing to store for it.
                        let store = u64::from(n - k > 1);
                        (k as u64 + right.0 + left.0, store + right.1 + left.1)
                    })
                    .min()
                    .unwrap_or((0, 0));
            }
        }
        table
    }

    #[test]
    fn closed_form_is_the_optimum() {
        let table = tabulate(120, 12);
        for n in 1..=120 {
            for s in 1..=12 {
                assert_eq!(advances(n, s), table[n][s].0, "P({n}, {s})");
            }
        }
    }

    #[test]
    fn split_is_optimal_in_advances_and_then_in_stores() {
        let table = tabulate(120, 12);
        for n in 2..=120 {
            for s in 2..=12 {
                let k = split(n, s);
                let (right, left) = (table[n - k][s - 1], table[k][s]);
                let got = (k as u64 + right.0 + left.0, u64::from(n - k > 1) + right.1 + left.1);
                assert_eq!(got, table[n][s], "n={n} s={s} k={k}");
            }
        }
    }

    #[test]
    fn split_keeps_the_optimum_on_long_chains() {
        for n in [121, 1000, 4096, 9999, 65_537, 1_000_000, 1_000_003] {
            for s in [2, 3, 4, 5, 8, 13, 32, 100, 317, 1000] {
                let k = split(n, s);
                let cost = k as u64 + advances(n - k, s - 1) + advances(k, s);
                assert_eq!(cost, advances(n, s), "n={n} s={s} k={k}");
            }
        }
    }

    /// P/n as published to two digits. That table was rounded by way of three digits (9.0449 is printed as 9.05), so
    /// half a unit of the third digit is added to half a unit of the second.
    #[test]
    fn extra_passes_of_long_runs() {
        let slots = [5, 10, 20, 32, 50, 100];
        let rows = [
            (1_000, [6.28, 3.64, 2.75, 2.41, 1.95, 1.90]),
            (4_096, [9.05, 4.93, 3.51, 2.86, 2.66, 1.98]),
            (10_000, [11.29, 5.76, 3.80, 3.29, 2.86, 2.47]),
            (100_000, [19.25, 8.32, 5.34, 4.34, 3.75, 2.95]),
        ];
        for (n, row) in rows {
            for (s, want) in slots.into_iter().zip(row) {
                let got = advances(n, s) as f64 / n as f64;
                assert!((got - want).abs() <= 0.0055, "n={n} s={s}: {got} != {want}");
            }
        }
    }

    /// The formula evaluated with big integers (Python's `math.comb`).
    #[test]
    fn advances_of_long_runs() {
        let rows = [
            (1_000, 5, 6_284),
            (4_096, 5, 37_048),
            (4_096, 32, 11_693),
            (10_000, 100, 24_747),
            (100_000, 10, 832_040),
            (1_000_000, 2, 941_809_245),
            (1_000_000, 3, 134_787_105),
            (1_000_000, 64, 4_135_499),
            (1_000_000, 300, 2_954_247),
            (1_000_000, 1000, 2_497_497),
        ];
        for (n, s, want) in rows {
            assert_eq!(advances(n, s), want, "n={n} s={s}");
        }
    }

    #[test]
    fn repetitions_are_the_least_that_reach() {
        for n in 2..400 {
            for s in 1..20 {
                let r = repetitions(n, s);
                assert!(reach(s, r) >= n as u64 && reach(s, r - 1) < n as u64, "n={n} s={s} r={r}");
            }
        }
        for s in 1..50 {
            assert_eq!(repetitions(s + 1, s), 1);
            assert_eq!(repetitions(s + 2, s), 2);
            assert_eq!(repetitions((s + 1) * (s + 2) / 2, s), 2);
            assert_eq!(repetitions((s + 1) * (s + 2) / 2 + 1, s), 3);
        }
    }

    #[test]
    fn counts_saturate_instead_of_overflowing() {
        assert_eq!(reach(0, 7), 1);
        assert_eq!(reach(7, 0), 1);
        assert_eq!(reach(33, 33), 7_219_428_434_016_265_740); // C(66, 33)
        assert_eq!(reach(34, 34), u64::MAX);
        assert_eq!(reach(usize::MAX, usize::MAX), u64::MAX);
        assert_eq!(advances(0, 3), 0);
        assert_eq!(advances(1, 1), 0);
        assert_eq!(advances(usize::MAX, 1), u64::MAX);
        assert_eq!(advances(usize::MAX, usize::MAX), usize::MAX as u64 - 1);
        assert_eq!(repetitions(usize::MAX, 1), usize::MAX - 1);
        for s in [1, 2, 3, 64, 1 << 20, usize::MAX] {
            let k = split(usize::MAX, s);
            assert!((1..usize::MAX).contains(&k), "s={s} k={k}");
        }
    }
}
