//! The Mersenne Twister with the shuffles built on it by NumPy's legacy `RandomState` and by Python's
//! `random`, so that published permutations can be drawn again.
//!
//! Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudorandom
//! number generator", ACM TOMACS 1998.

const N: usize = 624;
const M: usize = 397;

/// MT19937.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    /// State of `numpy.random.RandomState(seed)` and `numpy.random.seed(seed)`: the authors' `init_genrand`.
    pub fn numpy(seed: u32) -> Mt19937 {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { state, next: N }
    }

    /// State of Python's `random.seed(seed)` for a seed below 2^32: the authors' `init_by_array` of one word.
    pub fn python(seed: u32) -> Mt19937 {
        let mut mt = Mt19937::numpy(19_650_218);
        let state = &mut mt.state;
        let mut i = 1;
        let wrap = |i: &mut usize, state: &mut [u32; N]| {
            *i += 1;
            if *i >= N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for _ in 0..N {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_664_525)).wrapping_add(seed);
            wrap(&mut i, state);
        }
        for _ in 0..N - 1 {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            wrap(&mut i, state);
        }
        state[0] = 0x8000_0000;
        mt
    }

    /// 32 random bits: the authors' `genrand_int32`.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in `0..=most`: NumPy's legacy bounded integer, which masks to the least power of two and
    /// rejects.
    fn interval(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next_u32() & mask;
            if value <= most {
                return value;
            }
        }
    }

    /// `RandomState.shuffle` of a list or a one-dimensional array.
    pub fn numpy_shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.interval(i as u32) as usize);
        }
    }

    /// `RandomState.permutation(n)`.
    pub fn numpy_permutation(&mut self, n: usize) -> Vec<u32> {
        let mut items: Vec<u32> = (0..n as u32).collect();
        self.numpy_shuffle(&mut items);
        items
    }

    /// `random.shuffle` of Python 3, which takes the high bits and rejects.
    pub fn python_shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let shift = (i as u32 + 1).leading_zeros();
            let j = loop {
                let value = self.next_u32() >> shift;
                if value <= i as u32 {
                    break value;
                }
            };
            items.swap(i, j as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(order: &[u32], first: usize, last: usize) -> (&[u32], &[u32]) {
        (&order[..first], &order[order.len() - last..])
    }

    /// `numpy.random.RandomState(42)._bit_generator.random_raw(5)` and
    /// `random.seed(2017); [random.getrandbits(32) for _ in range(3)]`.
    #[test]
    fn raw_words() {
        let mut mt = Mt19937::numpy(42);
        let words: Vec<u32> = (0..5).map(|_| mt.next_u32()).collect();
        assert_eq!(words, [1608637542, 3421126067, 4083286876, 787846414, 3143890026]);
        let mut mt = Mt19937::python(2017);
        let words: Vec<u32> = (0..3).map(|_| mt.next_u32()).collect();
        assert_eq!(words, [855398150, 1910710203, 1473376184]);
    }

    /// `numpy.random.RandomState(92916).permutation(784)`.
    #[test]
    fn numpy_permutation() {
        let p = Mt19937::numpy(92916).numpy_permutation(784);
        let (first, last): (&[u32], &[u32]) =
            (&[319, 576, 323, 107, 355, 716, 197, 20], &[264, 102, 39, 346]);
        assert_eq!(ends(&p, 8, 4), (first, last));
        assert_eq!(Mt19937::numpy(42).numpy_permutation(784)[..6], [598, 590, 209, 637, 174, 213]);
    }

    /// `r = numpy.random.RandomState(50); r.permutation(60000); r.permutation(784)`.
    #[test]
    fn two_numpy_permutations() {
        let mut mt = Mt19937::numpy(50);
        let (a, b) = (mt.numpy_permutation(60_000), mt.numpy_permutation(784));
        assert_eq!(a[..6], [6820, 11854, 9635, 45077, 18764, 22779]);
        assert_eq!(a[59_997..], [42891, 38368, 14000]);
        assert_eq!(b[..6], [46, 466, 537, 44, 515, 589]);
        assert_eq!(b[781..], [649, 472, 74]);
    }

    /// `numpy.random.seed(1234)`, then `numpy.random.shuffle` of `list(range(50000))` and
    /// `list(range(10000))`, then `numpy.random.permutation(784)`.
    #[test]
    fn numpy_shuffles_of_lists() {
        let mut mt = Mt19937::numpy(1234);
        let (a, b, c) =
            (mt.numpy_permutation(50_000), mt.numpy_permutation(10_000), mt.numpy_permutation(784));
        assert_eq!(a[..5], [20308, 37706, 6041, 42143, 23202]);
        assert_eq!(b[..5], [3576, 4975, 3437, 3981, 8315]);
        assert_eq!(c[..6], [538, 505, 546, 510, 734, 548]);
        assert_eq!(c[781..], [234, 732, 228]);
    }

    /// `random.seed(2017); i = list(range(784)); random.shuffle(i)`.
    #[test]
    fn python_shuffle() {
        let mut order: Vec<u32> = (0..784).collect();
        Mt19937::python(2017).python_shuffle(&mut order);
        assert_eq!(order[..6], [231, 488, 235, 357, 342, 200]);
        assert_eq!(order[781..], [351, 455, 203]);
    }
}
