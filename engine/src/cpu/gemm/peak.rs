//! The speed of products at their best: what everything else is compared with.

use std::time::Instant;

use super::{Accumulate, gemm_packed, pack, packed_len};
use crate::cpu::isa::Isa;
use crate::cpu::pool::Pool;
use crate::cpu::real::Real;
use crate::dtype::DType;

/// Sizes `M`, `K`, `N` of the product: whole register tiles on every instruction set, and its three matrices (in
/// double precision 288 KiB) stay in the second-level cache of a core.
const SIZES: [usize; 3] = [96, 128, 96];

/// Seconds of a round, about, and the number of rounds. The best counts.
const ROUND_SECONDS: f64 = 0.01;
const ROUNDS: usize = 8;

/// Floating-point operations a second of matrix products, all threads of `pool` together, measured now.
///
/// Every thread multiplies matrices of its own that stay in its cache, by [`gemm_packed`], the kernel that programs
/// use, in the real precision of `dtype` (complex products are real ones). What is returned is the best of several
/// rounds of some milliseconds each, about 0.1 s in all. It is a measure of this machine at this moment and for this
/// kernel, not the arithmetic limit of its cores; on a machine that others use it may come out low.
pub fn product_peak(isa: Isa, dtype: DType, pool: &Pool) -> f64 {
    match dtype.real() {
        DType::F64 => peak::<f64>(isa, pool),
        _ => peak::<f32>(isa, pool),
    }
}

fn peak<R: Real>(isa: Isa, pool: &Pool) -> f64 {
    let [m, k, n] = SIZES;
    let flops = 2.0 * (m * k * n) as f64;
    // One product to find out how many make a round.
    let mut times = 1;
    loop {
        let start = Instant::now();
        products::<R>(isa, times);
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= 0.25 * ROUND_SECONDS {
            times = ((times as f64 * ROUND_SECONDS / seconds) as usize).max(1);
            break;
        }
        times *= 2;
    }
    let round = || {
        let start = Instant::now();
        pool.run(pool.threads(), |_| products::<R>(isa, times));
        flops * (times * pool.threads()) as f64 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}

/// So many products of the same two matrices.
fn products<R: Real>(isa: Isa, times: usize) {
    let [m, k, n] = SIZES;
    let a = vec![R::from_f64(0.5); m * k];
    let b = vec![R::from_f64(0.25); k * n];
    let mut packed = vec![R::ZERO; packed_len::<R>(isa, k, n)];
    pack(isa, k, n, &b, n, false, &mut packed);
    let mut c = vec![R::ZERO; m * n];
    for _ in 0..times {
        gemm_packed(isa, m, k, n, &a, k, &packed, std::hint::black_box(&mut c), n, Accumulate::Set);
    }
    std::hint::black_box(&c);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cpu::Denormals;

    #[test]
    fn is_a_rate() {
        let pool = Pool::new(Some(2), Denormals::Flush).unwrap();
        for dtype in [DType::F32, DType::C64] {
            let rate = product_peak(Isa::detect(), dtype, &pool);
            assert!(rate.is_finite() && rate > 0.0, "{dtype}: {rate}");
        }
    }
}
