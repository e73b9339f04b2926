//! Products of Householder reflections, one for each gate: what the orthogonal operators have in common.
//!
//! For every gate `g`, `H_g = H(u_1) ⋯ H(u_m)` with `H(u) = I − 2 u uᴴ / ‖u‖²`, and `u_j` zero above entry `j`: column `j`
//! of a lower trapezoidal matrix `U_g`. Their product is one step, not `m`: the UT transform (Joffrain, Low,
//! Quintana-Ortí, van de Geijn, Van Zee, 2006, "Accumulating Householder transformations, revisited", ACM TOMS 32(2))
//!
//! ```text
//! H h  = h − U T⁻¹ Uᴴ h      T = strictly upper part of Uᴴ U, plus half of its diagonal     (1)
//! Hᴴ h = h − U T⁻ᴴ Uᴴ h                                                                    (2)
//! ```
//!
//! is a product of two thin matrices beside the identity, `4·N·m` operations a row. `U T⁻¹` is made of parameters
//! alone, once a call. Lengths of the `u_j` do not matter; one of length 0 is no reflection.

use num_complex::Complex64;
use rand_chacha::ChaCha8Rng;
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::{DType, Tape, Tensor, Var};
use retrograd_ops::{self as ops, MatMulFlags, Triangle};

use crate::cell::block;
use crate::declare::Declare;
use crate::error::{Error, Result};
use crate::init::Init;
use crate::low_rank::LowRank;
use crate::operator::Recurrence;
use crate::settings::{OptionDoc, Options};

/// Documentation of the option for the number of reflections.
pub(crate) const REFLECTIONS: OptionDoc = OptionDoc {
    key: "reflections",
    default: "auto",
    doc: "number of reflections, at most the hidden size; auto: a quarter of it, at least 1",
};

/// Added to the diagonal of `T`: a vector of zeros is no reflection then, and nothing is divided by 0. Lost in rounding
/// beside a vector that is longer than 1e-10.
const NO_REFLECTION: f64 = 1e-30;

/// Reads [`REFLECTIONS`]; `None` is `auto`. Errors: what is neither `auto` nor a number of at least 1.
pub(crate) fn reflections_option(options: &Options<'_>) -> Result<Option<usize>> {
    match options.text(REFLECTIONS.key) {
        "auto" => Ok(None),
        text => match text.parse() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(options.bad(REFLECTIONS.key, "a whole number of at least 1, or auto")),
        },
    }
}

/// Number of reflections for a hidden size. Errors: more than it.
pub(crate) fn reflections(operator: &str, asked: Option<usize>, n: usize) -> Result<usize> {
    let count = asked.unwrap_or_else(|| (n / 4).max(1));
    if count > n {
        return Err(Error::model(format!("{operator}: {count} reflections, at most the hidden size {n}")));
    }
    Ok(count)
}

/// Declares `[N, G·m]`, blocks `U_g` of unit columns that begin on the diagonal. What is above it stays 0 in training:
/// nothing reads it.
pub(crate) fn declare(
    ctx: &mut Declare<'_>,
    name: &str,
    r: &Recurrence<'_>,
    count: usize,
    init: Init,
) -> Result<Var> {
    let (dtype, gates) = (ctx.dtype(r.complex), r.gates.len());
    let dims = [r.n, gates * count];
    ctx.with(name, &dims, dtype, |rng| {
        let blocks: Result<Vec<_>> = (0..gates).map(|_| trapezoid(init, [r.n, count], dtype, rng)).collect();
        let blocks = blocks?;
        let mut joined = Tensor::zeros(dtype, dims)?;
        joined.fill_with(|i| {
            let (row, column) = (i / dims[1], i % dims[1]);
            blocks[column / count][row * count + column % count]
        });
        Ok(joined)
    })
}

/// The lower trapezoid of a first value, its columns divided by their lengths; row by row.
fn trapezoid(init: Init, dims: [usize; 2], dtype: DType, rng: &mut ChaCha8Rng) -> Result<Vec<Complex64>> {
    let drawn = match (init, dims) {
        // The identity of as many columns as there are.
        (Init::Identity, [n, _]) => init.tensor(&[n, n], dtype, rng)?,
        _ => init.tensor(&dims, dtype, rng)?,
    };
    let ([n, count], stride) = (dims, drawn.dims()[1]);
    let at = |row: usize, column: usize| match row >= column {
        true => drawn.get(row * stride + column),
        false => Complex64::ZERO,
    };
    let length = |column: usize| (0..n).map(|row| at(row, column).norm_sqr()).sum::<f64>().sqrt();
    let lengths: Vec<f64> = (0..count).map(length).map(|l| if l > 0.0 { l } else { 1.0 }).collect();
    Ok((0..n * count).map(|i| at(i / count, i % count) / lengths[i % count]).collect())
}

/// The thin matrices `L_g`, `R_g` with `H_g = I + L_g R_g`, from [`declare`]d vectors: eq. (1); of `H_gᴴ` if `adjoint`:
/// eq. (2).
pub(crate) fn thin(
    tape: &mut Tape,
    u: Var,
    r: &Recurrence<'_>,
    count: usize,
    adjoint: bool,
) -> retrograd_engine::Result<LowRank> {
    let (n, gates) = (r.n, r.gates.len());
    let real = tape.dtype(u)?.real();
    let mut constant = |dims: [usize; 2], f: &dyn Fn(usize, usize) -> f64| -> retrograd_engine::Result<Var> {
        let mut t = Tensor::zeros(real, dims)?;
        t.fill_with(|i| f(i / dims[1], i % dims[1]).into());
        Ok(tape.constant(t))
    };
    let trapezoid = constant([n, gates * count], &|row, column| f64::from(u8::from(row >= column % count)))?;
    let half_diagonal = constant([count, count], &|row, column| if row == column { 0.5 } else { 1.0 })?;
    let smallest = constant([count, count], &|row, column| if row == column { NO_REFLECTION } else { 0.0 })?;

    let all = ops::mul(tape, u, trapezoid)?;
    let (mut first, mut last) = (Vec::with_capacity(gates), Vec::with_capacity(gates));
    for gate in 0..gates {
        let u = block(tape, all, gate, count)?;
        let adjoint_u = MatMulFlags { transpose_a: true, conj_a: true, ..MatMulFlags::default() };
        let t = ops::matmul_with(tape, u, u, adjoint_u)?;
        let t = ops::mul(tape, t, half_diagonal)?;
        let t = ops::add(tape, t, smallest)?;
        let u_t = layout(tape, u, Layout::Permute { order: [1, 0].into_iter().collect() })?;
        // (U T⁻¹)ᵀ = T⁻ᵀ Uᵀ, the triangle that is read being the upper one.
        let read = Triangle { upper: true, transpose: true, conj: false };
        let ut = ops::triangular_solve(tape, t, u_t, read)?;
        // Rows are multiplied from the right: R_gᵀ and L_gᵀ.
        let (r, l) = match adjoint {
            false => (ops::conj(tape, u)?, ut),
            true => {
                let ut = layout(tape, ut, Layout::Permute { order: [1, 0].into_iter().collect() })?;
                (ops::conj(tape, ut)?, u_t)
            }
        };
        first.push(r);
        last.push(ops::neg(tape, l)?);
    }
    let (first, last) = (ops::concat(tape, &first, 1)?, ops::concat(tape, &last, 1)?);
    Ok(LowRank { last, first, n, rank: count, tied: false })
}
