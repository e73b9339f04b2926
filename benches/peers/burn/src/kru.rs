//! The Kronecker recurrent unit on pairs of real numbers, as burn's autodiff has no complex ones.
//!
//! The recurrent matrix is applied as it is, in two groups of factors, each formed once a call: `W h` of the state as
//! a matrix `h [P,Q]` is `O h Iᵀ`. A product with a complex matrix `M` is one of rows `[Re, Im]` with the real matrix
//! `[[Re M, Im M], [−Im M, Re M]]`. Both parts of a row therefore lie side by side: `[N,P,2,Q]` before the product with
//! `Iᵀ`, `[N,Q,2,P]` before that with `Oᵀ`.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use crate::worker::Fallible;
use crate::{Builder, Features};

/// Both parts of `[m,n,2]`.
fn parts(z: Tensor<3>) -> (Tensor<2>, Tensor<2>) {
    let [m, n, _] = z.dims();
    (z.clone().narrow(2, 0, 1).reshape([m, n]), z.narrow(2, 1, 1).reshape([m, n]))
}

/// The Kronecker product of real matrices.
fn kron(a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
    let ([m, n], [p, q]) = (a.dims(), b.dims());
    (a.clone().reshape([m, 1, n, 1]) * b.clone().reshape([1, p, 1, q])).reshape([m * p, n * q])
}

/// The Kronecker product of all factors, transposed, as a real matrix for rows `[Re, Im]`.
fn formed(factors: &[Tensor<3>]) -> Tensor<2> {
    let (mut re, mut im) = parts(factors[0].clone());
    for factor in &factors[1..] {
        let (c, d) = parts(factor.clone());
        (re, im) = (kron(&re, &c) - kron(&im, &d), kron(&re, &d) + kron(&im, &c));
    }
    let (re, im) = (re.transpose(), im.transpose());
    let below = Tensor::cat(vec![im.clone().neg(), re.clone()], 1);
    Tensor::cat(vec![Tensor::cat(vec![re, im], 1), below], 0)
}

impl Builder<'_> {
    pub(crate) fn kru(&mut self) -> Fallible<Features> {
        let (u, b) = (self.leaf::<3>("layer0.U")?, self.leaf::<1>("layer0.b")?);
        let mut factors = Vec::new();
        while self.data.has(&format!("layer0.W.{}", factors.len())) {
            factors.push(self.leaf::<3>(&format!("layer0.W.{}", factors.len()))?);
        }
        let (rows, hidden, input) = (self.case.rows, self.case.hidden, self.case.input);
        let outer_factors = factors.len() / 2;
        let p: usize = factors[..outer_factors].iter().map(|factor| factor.dims()[0]).product();
        let q = hidden / p;
        let (xs, first) = (self.steps(false), self.zeros(2 * hidden));
        Ok(Box::new(move || {
            let (outer, inner) = (formed(&factors[..outer_factors]), formed(&factors[outer_factors..]));
            // Inputs and biases in the layout after both products, [N,Q,2,P].
            let u = u.clone().reshape([input, p, q, 2]).permute([0, 2, 3, 1]).reshape([input, 2 * hidden]);
            let b = b.clone().reshape([p, q]).transpose().reshape([1, q, 1, p]);
            let mut h = first.clone().reshape([rows, p, 2, q]);
            for x in &xs {
                let y = h.reshape([rows * p, 2 * q]).matmul(inner.clone()).reshape([rows, p, 2, q]);
                let y = y.permute([0, 3, 2, 1]).reshape([rows * q, 2 * p]).matmul(outer.clone());
                let z = y.reshape([rows, 2 * hidden]) + x.clone().matmul(u.clone());
                let z = z.reshape([rows, q, 2, p]);
                let size = (z.clone() * z.clone()).sum_dim(2).sqrt();
                let scale = relu(b.clone() / size + 1.0);
                h = (z * scale).permute([0, 3, 2, 1]);
            }
            h.permute([0, 2, 1, 3]).reshape([rows, 2 * hidden])
        }))
    }
}
