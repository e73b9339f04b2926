//! Times a step of an LSTM written from operations: steps, rows, hidden, input, threads.
#![allow(clippy::unwrap_used)]
use retrograd_engine::*;
use retrograd_ops as ops;
use std::time::Instant;
fn main() -> Result<()> {
    let a: Vec<usize> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let (steps, rows, h, c, threads) = (a[0], a[1], a[2], a[3], a[4]);
    let mut tape = Tape::new();
    let t = &mut tape;
    let f = DType::F32;
    let w = t.param("w", f, [c, 4 * h])?;
    let u = t.param("u", f, [h, 4 * h])?;
    let b = t.param("b", f, [4 * h])?;
    let x = t.input("x", f, Shape::sequence([c]))?;
    let zero = core_ops::fill(t, Ty::new(f, Shape::rows([h])), 0.0)?;
    let ((hl, _), ()) = scan(t, (zero, zero), x, |t, (hh, cc), x| {
        let wx = matmul(t, x, w)?;
        let uh = matmul(t, hh, u)?;
        let z = core_ops::add(t, wx, uh)?;
        let z = core_ops::add(t, z, b)?;
        let sl = |t: &mut Tape, k: usize| {
            layout::layout(t, z, layout::Layout::Slice { axis: 0, start: k * h, len: h })
        };
        let (zi, zf, zg, zo) = (sl(t, 0)?, sl(t, 1)?, sl(t, 2)?, sl(t, 3)?);
        let i = ops::sigmoid(t, zi)?;
        let ff = ops::sigmoid(t, zf)?;
        let g = ops::tanh(t, zg)?;
        let o = ops::sigmoid(t, zo)?;
        let fc = ops::mul(t, ff, cc)?;
        let ig = ops::mul(t, i, g)?;
        let c2 = core_ops::add(t, fc, ig)?;
        let tc = ops::tanh(t, c2)?;
        let h2 = ops::mul(t, o, tc)?;
        Ok(((h2, c2), ()))
    })?;
    let sq = ops::mul(t, hl, hl)?;
    let s = core_ops::sum_rows(t, sq)?;
    let loss = core_ops::sum_dims(t, s, &[])?;
    let g = grad(t, loss, &[w, u, b])?;
    let mut p = Params::new();
    let mut seed = 1u64;
    let mut rnd = |d: &[usize], s: f64| {
        let mut t = Tensor::zeros(f, d).unwrap();
        t.fill_with(|_| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            num_complex::Complex64::new(((seed >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0) * s, 0.0)
        });
        t
    };
    p.insert("w", rnd(&[c, 4 * h], 0.1));
    p.insert("u", rnd(&[h, 4 * h], 0.1));
    p.insert("b", rnd(&[4 * h], 0.1));
    p.insert("x", rnd(&[steps, rows, c], 1.0));
    for (name, outs) in [("fwd", vec![loss]), ("fwd+bwd", vec![loss, g[0], g[1], g[2]])] {
        let t0 = Instant::now();
        let mut prog =
            Program::new(&tape, &outs, RunOptions { threads: Some(threads), ..Default::default() })?;
        let compile = t0.elapsed();
        let mut best = f64::MAX;
        for _ in 0..5 {
            let t0 = Instant::now();
            prog.run(&[&p])?;
            best = best.min(t0.elapsed().as_secs_f64());
        }
        let plan = prog.plan(steps, rows)?;
        println!(
            "{name}: {:.1} ms, peak {:.1} MiB, compile {:?}, {:.0} GFLOP/s",
            best * 1e3,
            plan.peak_bytes() as f64 / 1048576.0,
            compile,
            plan.flops() / best * 1e-9
        );
        if std::env::var("EXPLAIN").is_ok() {
            println!("{}", plan.explain());
        }
    }
    Ok(())
}
