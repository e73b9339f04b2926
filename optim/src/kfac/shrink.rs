//! A covariance from few samples, made fit to be inverted.
//!
//! The gradient of a batch is one sample of a full block, of rank one. A moving average of a dozen of them has hardly any
//! curvature in most directions of a block of fifty numbers, and the inverse would go far along exactly those, as far as
//! damping lets it. What is known after a dozen samples is the diagonal.

use faer::Mat;

/// Independent samples that an average with this decay is worth, from its running weight `1 − decay^k`:
/// `(Σ w)² / Σ w²`, 1 after the first, at last `(1 + decay) / (1 − decay)`.
pub(crate) fn samples(decay: f64, weight: f64) -> f64 {
    weight * (1.0 + decay) / ((1.0 - decay) * (2.0 - weight))
}

/// `(1 − ρ) S + ρ diag(S)` for the second moments `S` of `n` normal samples of mean 0, with the `ρ` of the least expected
/// squared error (Schäfer, Strimmer 2005, "A shrinkage approach to large-scale covariance matrix estimation", target D),
/// the variance of an element being `(F_ij² + F_ii F_jj) / n`.
pub(crate) fn towards_diagonal(s: &Mat<f64>, n: f64) -> Mat<f64> {
    let size = s.nrows();
    let (mut squares, mut products) = (0.0, 0.0);
    for j in 0..size {
        for i in (0..size).filter(|&i| i != j) {
            squares += s[(i, j)] * s[(i, j)];
            products += s[(i, i)] * s[(j, j)];
        }
    }
    // The mean of `squares` is (1 + 1/n) Σ F_ij² + products / n.
    let true_squares = ((squares - products / n) / (1.0 + 1.0 / n)).max(0.0);
    let noise = (true_squares + products) / n;
    let rho = if squares > 0.0 { (noise / squares).clamp(0.0, 1.0) } else { 0.0 };
    Mat::from_fn(size, size, |i, j| if i == j { s[(i, j)] } else { (1.0 - rho) * s[(i, j)] })
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use faer::Side;

    use super::*;

    /// Reproducible normal numbers.
    fn normals(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        let mut unit = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        move || (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()
    }

    fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_l2()
    }

    #[test]
    fn averages_are_worth_what_their_weights_say() {
        let decay: f64 = 0.95;
        let (mut weight, mut squares) = (0.0, 0.0);
        for k in 1..=400 {
            weight = decay * weight + 1.0 - decay;
            squares = decay * decay * squares + (1.0 - decay) * (1.0 - decay);
            let exact = weight * weight / squares;
            assert!((samples(decay, weight) - exact).abs() < 1e-9 * exact, "after {k}");
        }
        assert!((samples(0.0, 1.0) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn few_samples_are_nearer_to_the_truth_when_shrunk_and_many_stay_as_they_are() {
        let size = 30;
        // Correlations that fall off, and scales over a decade.
        let truth = Mat::from_fn(size, size, |i, j| {
            let scale = |i: usize| 10f64.powf(i as f64 / size as f64);
            scale(i) * scale(j) * 0.6f64.powi(i.abs_diff(j) as i32)
        });
        let root = truth.llt(Side::Lower).map(|l| l.L().to_owned());
        let Ok(root) = root else { panic!("the truth is positive definite") };
        let mut normal = normals(1);
        let mut error = |n: usize| -> (f64, f64, f64) {
            let noise = Mat::from_fn(size, n, |_, _| normal());
            let x = &root * noise;
            let s = faer::Scale(1.0 / n as f64) * (&x * x.transpose());
            let shrunk = towards_diagonal(&s, n as f64);
            let least = shrunk.self_adjoint_eigenvalues(Side::Lower).map_or(f64::NAN, |e| e[0]);
            (distance(&s, &truth), distance(&shrunk, &truth), least)
        };
        for n in [5, 12, 30] {
            let (raw, shrunk, least) = error(n);
            assert!(shrunk < 0.97 * raw, "{n} samples: {shrunk}, as they are {raw}");
            assert!(least > 1e-3, "{n} samples: least eigenvalue {least}");
        }
        let (raw, shrunk, _) = error(20_000);
        assert!((shrunk - raw).abs() < 0.1 * raw, "many samples: {shrunk}, as they are {raw}");
    }

    #[test]
    fn one_sample_is_its_diagonal() {
        let g = [1.0, -2.0, 3.0];
        let s = Mat::from_fn(3, 3, |i, j| g[i] * g[j]);
        let shrunk = towards_diagonal(&s, 1.0);
        assert_eq!(shrunk, Mat::from_fn(3, 3, |i, j| if i == j { g[i] * g[i] } else { 0.0 }));
        let nothing = Mat::<f64>::zeros(3, 3);
        assert_eq!(towards_diagonal(&nothing, 4.0), nothing);
    }
}
