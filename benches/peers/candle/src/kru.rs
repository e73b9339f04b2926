//! The Kronecker recurrent unit on pairs of real numbers, as candle has no complex ones.
//!
//! The recurrent matrix is applied as it is, in two groups of factors, each formed once a call: `W h` of the state as
//! a matrix `h [P,Q]` is `O h Iᵀ`. A product with a complex matrix `M` is one of rows `[Re, Im]` with the real matrix
//! `[[Re M, Im M], [−Im M, Re M]]`. Both parts of a row therefore lie side by side: `[N,P,2,Q]` before the product with
//! `Iᵀ`, `[N,Q,2,P]` before that with `Oᵀ`.

use candle_core::{Result, Tensor};

use crate::worker::Fallible;
use crate::{Builder, Features};

/// Real and imaginary part.
type Pair = (Tensor, Tensor);

/// Both parts of `[.., 2]`.
fn parts(z: &Tensor) -> Result<Pair> {
    let last = z.rank() - 1;
    Ok((z.narrow(last, 0, 1)?.squeeze(last)?, z.narrow(last, 1, 1)?.squeeze(last)?))
}

/// The Kronecker product of real matrices.
fn kron(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, n), (p, q)) = (a.dims2()?, b.dims2()?);
    a.reshape((m, 1, n, 1))?.broadcast_mul(&b.reshape((1, p, 1, q))?)?.reshape((m * p, n * q))
}

/// The Kronecker product of all factors, transposed, as a real matrix for rows `[Re, Im]`.
fn formed(factors: &[Tensor]) -> Result<Tensor> {
    let (mut re, mut im) = parts(&factors[0])?;
    for factor in &factors[1..] {
        let (c, d) = parts(factor)?;
        (re, im) = ((kron(&re, &c)? - kron(&im, &d)?)?, (kron(&re, &d)? + kron(&im, &c)?)?);
    }
    let (re, im) = (re.t()?, im.t()?);
    Tensor::cat(&[Tensor::cat(&[&re, &im], 1)?, Tensor::cat(&[&im.neg()?, &re], 1)?], 0)
}

impl Builder<'_> {
    pub(crate) fn kru(&mut self) -> Fallible<Features> {
        let (u, b) = (self.leaf("layer0.U")?, self.leaf("layer0.b")?);
        let mut factors = Vec::new();
        while self.data.has(&format!("layer0.W.{}", factors.len())) {
            factors.push(self.leaf(&format!("layer0.W.{}", factors.len()))?);
        }
        let (rows, hidden, input) = (self.case.rows, self.case.hidden, self.case.input);
        let outer_factors = factors.len() / 2;
        let p: usize = factors[..outer_factors].iter().map(|factor| factor.dims()[0]).product();
        let q = hidden / p;
        let (xs, first) = (self.steps(false)?, self.zeros(2 * hidden)?);
        Ok(Box::new(move || {
            let (outer, inner) = (formed(&factors[..outer_factors])?, formed(&factors[outer_factors..])?);
            // Inputs and biases in the layout after both products, [N,Q,2,P].
            let u = u.reshape((input, p, q, 2))?.permute((0, 2, 3, 1))?.reshape((input, 2 * hidden))?;
            let b = b.reshape((p, q))?.t()?.contiguous()?;
            let mut h = first.reshape((rows, p, 2, q))?;
            for x in &xs {
                let y = h.reshape((rows * p, 2 * q))?.matmul(&inner)?.reshape((rows, p, 2, q))?;
                let y = y.permute((0, 3, 2, 1))?.reshape((rows * q, 2 * p))?.matmul(&outer)?;
                let z = (y.reshape((rows, 2 * hidden))? + x.matmul(&u)?)?.reshape((rows, q, 2, p))?;
                let size = z.sqr()?.sum(2)?.sqrt()?;
                let scale = (b.broadcast_div(&size)? + 1.0)?.relu()?;
                h = z.broadcast_mul(&scale.unsqueeze(2)?)?.permute((0, 3, 2, 1))?.contiguous()?;
            }
            h.permute((0, 2, 1, 3))?.reshape((rows, 2 * hidden))
        }))
    }
}
