//! Random numbers that are stable across versions, and shuffled orders.
//!
//! ChaCha with 8 rounds; its key is the seed, split, purpose, epoch and index, so every draw has an address.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::task::Split;

/// What numbers are for; different purposes never share a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Content of example `index` of a finite set.
    Content = 0,
    /// Order of the examples in an epoch.
    Order = 1,
    /// Content generated on line.
    Online = 2,
    /// Noise added to an example.
    Noise = 3,
    /// Splits and orders drawn once.
    Setup = 4,
}

/// A stream of random numbers.
pub(crate) struct Random {
    core: ChaCha8Rng,
    spare: Option<f64>,
}

impl Random {
    /// The stream at an address.
    pub(crate) fn new(purpose: Purpose, seed: u64, split: Split, epoch: u64, index: u64) -> Random {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = split as u8;
        key[9] = purpose as u8;
        key[16..24].copy_from_slice(&epoch.to_le_bytes());
        key[24..].copy_from_slice(&index.to_le_bytes());
        Random { core: ChaCha8Rng::from_seed(key), spare: None }
    }

    /// Uniform in `0..n`, without bias (multiply and reject). `n` must not be 0.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u64::from(self.core.next_u32()) * u64::from(n);
            if wide as u32 >= threshold {
                return (wide >> 32) as u32;
            }
        }
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.core.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Standard normal (Marsaglia's polar method, in `f64`).
    pub(crate) fn normal(&mut self) -> f32 {
        if let Some(z) = self.spare.take() {
            return z as f32;
        }
        loop {
            let mut draw = || (self.core.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            let (u, v) = (draw(), draw());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let scale = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(v * scale);
                return (u * scale) as f32;
            }
        }
    }

    /// A uniform order of `0..n`.
    pub(crate) fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
        order
    }
}

/// Seed, epoch and number of examples of a shuffled order.
type OrderKey = (u64, u64, usize);

/// The order of the training examples by seed and epoch; remembers the last one asked for.
#[derive(Default)]
pub(crate) struct Orders {
    last: Mutex<Option<(OrderKey, Arc<[u32]>)>>,
}

impl Orders {
    /// The order of `n` examples.
    pub(crate) fn get(&self, seed: u64, epoch: u64, n: usize) -> Arc<[u32]> {
        let key = (seed, epoch, n);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((k, order)) if *k == key => order.clone(),
            _ => {
                let order: Arc<[u32]> =
                    Random::new(Purpose::Order, seed, Split::Train, epoch, 0).order(n).into();
                *last = Some((key, order.clone()));
                order
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These numbers are part of the contract: a checkpoint of an older version must see the same data.
    #[test]
    fn streams_are_pinned() {
        let mut r = Random::new(Purpose::Content, 1, Split::Test, 2, 3);
        let got: Vec<u32> = (0..6).map(|_| r.below(1000)).collect();
        assert_eq!(got, PINNED);
        let orders = Orders::default();
        assert_eq!(*orders.get(7, 0, 8), PINNED_ORDER);
        assert_ne!(*orders.get(7, 1, 8), PINNED_ORDER);
        assert_eq!(*orders.get(7, 0, 8), PINNED_ORDER);
    }

    // From a ChaCha8 written down from its specification (D. J. Bernstein 2008), in another language.
    const PINNED: [u32; 6] = [276, 418, 88, 217, 793, 91];
    const PINNED_ORDER: [u32; 8] = [0, 2, 6, 4, 1, 7, 3, 5];

    #[test]
    fn moments() {
        let mut r = Random::new(Purpose::Noise, 0, Split::Train, 0, 0);
        let n = 40_000;
        let normal: Vec<f64> = (0..n).map(|_| f64::from(r.normal())).collect();
        let unit: Vec<f64> = (0..n).map(|_| f64::from(r.unit())).collect();
        let mean = |x: &[f64], p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / n as f64;
        // Five standard errors of each moment.
        for (got, want, se) in [
            (mean(&normal, 1), 0.0, 1.0),
            (mean(&normal, 2), 1.0, 1.42),
            (mean(&normal, 4), 3.0, 9.8),
            (mean(&unit, 1), 0.5, 0.29),
            (mean(&unit, 2), 1.0 / 3.0, 0.3),
        ] {
            assert!((got - want).abs() < 5.0 * se / (n as f64).sqrt(), "{got} vs {want}");
        }
        assert!(unit.iter().all(|u| (0.0..1.0).contains(u)));
    }
}
