//! Soft unitary constraint on (Kronecker) factors.

use retrograd_engine::{DType, Params, Tensor};

use crate::elementwise::{Real, with_real};
use crate::error::{Error, Result};
use crate::penalty::{Penalty, selected};
use crate::select::Select;
use crate::settings::{OptionSpec, Range, Settings};
use crate::table::Entry;

/// Soft unitary constraint (Jose, Cisse, Fleuret 2017, "Kronecker recurrent units", eq. 8): every factor is drawn
/// to be unitary, and so is their Kronecker product.
///
/// ```text
/// R = λ Σ_f ‖W_fᴴ W_f − I‖²_F        g(W_f) = 4λ W_f (W_fᴴ W_f − I)        real: ᵀ for ᴴ
/// ```
///
/// Shapes: `[.., P, Q]`; leading axes count factors kept in one tensor. For a square factor it does not matter
/// whether it or its transpose is stored; for P < Q no matrix reaches 0.
/// Defaults: λ = 1e-3 on every parameter of the patterns given. The paper searched λ in 1e-7 … 1e-1 and reports
/// 1e-2 (JSB Chorales), 1e-1 (Piano-midi), 1e-5 (TIMIT).
/// **Differs from** the paper: nothing known; its equation is restored from the text around it, without
/// normalization by the size of the factor.
#[derive(Clone, Debug)]
pub struct SoftUnitary {
    /// λ.
    pub lambda: f64,
    /// The factors.
    pub select: Select,
}

impl SoftUnitary {
    /// With amplitude `lambda` on the parameters of `select`.
    pub fn new(lambda: f64, select: Select) -> SoftUnitary {
        SoftUnitary { lambda, select }
    }
}

impl Penalty for SoftUnitary {
    fn name(&self) -> &'static str {
        "soft-unitary"
    }

    fn settings(&self) -> Settings {
        Settings::new().with("lambda", self.lambda).with("params", self.select.text())
    }

    fn validate(&self) -> Result<()> {
        Range::NonNegative.check(self.name(), "lambda", self.lambda)
    }

    fn penalty(&self, params: &Params, grads: &mut Params) -> Result<f64> {
        self.validate()?;
        let factors = selected(self.name(), &self.select, params, grads)?;
        if let Some((name, factor)) = factors.iter().find(|(_, factor)| factor.dims().len() < 2) {
            let (what, expected) = (format!("soft-unitary: parameter `{name}`"), "[.., P, Q]".into());
            return Err(Error::Mismatch { what, expected, got: format!("{:?}", factor.dims()) });
        }
        let mut total = 0.0;
        for (name, factor) in factors {
            let Some(grad) = grads.get_mut(&name) else { continue };
            total += with_real!(factor, &name, R => add::<R>(factor, grad, self.lambda))?;
        }
        Ok(self.lambda * total)
    }
}

/// Adds 4λ W (WᴴW − I) to `grad`, for every matrix of the last two axes; returns Σ ‖WᴴW − I‖².
fn add<R: Real>(factor: &Tensor, grad: &mut Tensor, lambda: f64) -> Result<f64> {
    let [.., rows, cols] = *factor.dims() else { return Ok(0.0) };
    let planes = factor.dtype().planes();
    let size = rows * cols * planes;
    if size == 0 {
        return Ok(0.0);
    }
    let scale = R::of(4.0 * lambda);
    let mut total = 0.0;
    let matrices = factor.components::<R>()?.chunks_exact(size);
    for (w, g) in matrices.zip(grad.components_mut::<R>()?.chunks_exact_mut(size)) {
        let w = Planar::split(w, rows, cols, factor.dtype());
        let mut e = w.gram();
        for i in 0..cols {
            e.re[i * cols + i] = e.re[i * cols + i] - R::one();
        }
        total += e.re.iter().chain(&e.im).map(|x| x.wide() * x.wide()).sum::<f64>();
        // W E, row by row; E is Hermitian.
        for (p, g) in g.chunks_exact_mut(cols * planes).enumerate() {
            let row = p * cols..(p + 1) * cols;
            let mut re = vec![R::zero(); cols];
            combine(&mut re, &w.re[row.clone()], &e.re, cols, R::one());
            if planes == 2 {
                let mut im = vec![R::zero(); cols];
                combine(&mut re, &w.im[row.clone()], &e.im, cols, -R::one());
                combine(&mut im, &w.re[row.clone()], &e.im, cols, R::one());
                combine(&mut im, &w.im[row], &e.re, cols, R::one());
                for (g, (re, im)) in g.chunks_exact_mut(2).zip(re.into_iter().zip(im)) {
                    g[0] += scale * re;
                    g[1] += scale * im;
                }
            } else {
                g.iter_mut().zip(re).for_each(|(g, re)| *g += scale * re);
            }
        }
    }
    Ok(total)
}

/// A matrix with real and imaginary parts apart; `im` is empty for a real one.
struct Planar<R> {
    cols: usize,
    rows: usize,
    re: Vec<R>,
    im: Vec<R>,
}

impl<R: Real> Planar<R> {
    fn split(components: &[R], rows: usize, cols: usize, dtype: DType) -> Planar<R> {
        let (re, im) = if dtype.is_complex() {
            components.chunks_exact(2).map(|z| (z[0], z[1])).unzip()
        } else {
            (components.to_vec(), Vec::new())
        };
        Planar { cols, rows, re, im }
    }

    /// WᴴW.
    fn gram(&self) -> Planar<R> {
        let (rows, cols) = (self.rows, self.cols);
        let mut out = Planar { cols, rows: cols, re: vec![R::zero(); cols * cols], im: vec![] };
        let complex = !self.im.is_empty();
        if complex {
            out.im = vec![R::zero(); cols * cols];
        }
        for i in 0..cols {
            let column = |plane: &[R]| (0..rows).map(|p| plane[p * cols + i]).collect::<Vec<_>>();
            let (re, line) = (column(&self.re), i * cols..(i + 1) * cols);
            combine(&mut out.re[line.clone()], &re, &self.re, cols, R::one());
            if complex {
                let im = column(&self.im);
                combine(&mut out.re[line.clone()], &im, &self.im, cols, R::one());
                combine(&mut out.im[line.clone()], &re, &self.im, cols, R::one());
                combine(&mut out.im[line], &im, &self.re, cols, -R::one());
            }
        }
        out
    }
}

/// `out += sign · Σ_k coefficients[k] · rows[k]`, four rows at a time so that `out` is read and written less often.
fn combine<R: Real>(out: &mut [R], coefficients: &[R], rows: &[R], cols: usize, sign: R) {
    let mut coefficients = coefficients.chunks_exact(4);
    let mut rows = rows.chunks_exact(4 * cols);
    for (c, four) in (&mut coefficients).zip(&mut rows) {
        let (c0, c1, c2, c3) = (sign * c[0], sign * c[1], sign * c[2], sign * c[3]);
        let (r01, r23) = four.split_at(2 * cols);
        let ((r0, r1), (r2, r3)) = (r01.split_at(cols), r23.split_at(cols));
        for ((((o, &a), &b), &c), &d) in out.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
            *o += (c0 * a + c1 * b) + (c2 * c + c3 * d);
        }
    }
    for (&c, row) in coefficients.remainder().iter().zip(rows.remainder().chunks_exact(cols)) {
        let c = sign * c;
        out.iter_mut().zip(row).for_each(|(o, &a)| *o += c * a);
    }
}

/// Row of the table.
pub(super) const ENTRY: Entry<dyn Penalty> = Entry {
    name: "soft-unitary",
    summary: "lambda times the squared distance of every factor's Gram matrix from the identity (KRU)",
    options: &[
        OptionSpec::new("lambda", "1e-3", "amplitude: 1e-2 JSB Chorales, 1e-1 Piano-midi, 1e-5 TIMIT"),
        OptionSpec::new("params", "*", "patterns of the factors' names"),
    ],
    build: |settings| {
        let read = settings.reader(ENTRY.name, ENTRY.options)?;
        let penalty = SoftUnitary::new(read.real("lambda")?, Select::patterns(read.text("params")?));
        penalty.validate()?;
        Ok(Box::new(penalty))
    },
};
