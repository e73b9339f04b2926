//! Random numbers for cotangents and subsets: reproducible, nothing more is asked of them.

use num_complex::Complex64;

/// SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (−1, 1).
    pub(super) fn real(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub(super) fn complex(&mut self) -> Complex64 {
        Complex64::new(self.real(), self.real())
    }

    /// `count` different numbers below `below`, ascending (Floyd 1987).
    pub(super) fn subset(&mut self, count: usize, below: usize) -> Vec<usize> {
        let mut chosen = std::collections::BTreeSet::new();
        for last in below.saturating_sub(count)..below {
            let at = (self.next() % (last as u64 + 1)) as usize;
            if !chosen.insert(at) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }
}
