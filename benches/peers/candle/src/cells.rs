//! Cells written from candle's operations, with this engine's parameters.
//!
//! The gradient of a part of a tensor is as large as the whole in candle, so that a product with all inputs at once,
//! cut into steps, would cost the square of their number. Each step therefore multiplies its own input, which is no
//! leaf, and its state at once: `[x, 1, h] [U; b; W]`, one product for all gates of a state, biases included.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::sigmoid;

use crate::worker::Fallible;
use crate::{Builder, Features};

/// `a` beside `b`.
fn beside(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], 1)
}

/// `[U; b; W]`, for `[x, 1, h]`.
fn stacked(u: &Tensor, b: &Tensor, w: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[u, &b.unsqueeze(0)?, w], 0)
}

/// `a + t (b - a)`.
fn lerp(a: &Tensor, b: &Tensor, t: &Tensor) -> Result<Tensor> {
    a + (t * (b - a)?)?
}

impl Builder<'_> {
    pub(crate) fn rnn(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first) = (self.steps(true)?, self.zeros(self.case.hidden)?);
        Ok(Box::new(move || {
            let (whole, mut h) = (stacked(&u, &b, &w)?, first.clone());
            for x in &xs {
                h = beside(x, &h)?.matmul(&whole)?.tanh()?;
            }
            Ok(h)
        }))
    }

    pub(crate) fn lstm(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first) = (self.steps(true)?, self.zeros(self.case.hidden)?);
        Ok(Box::new(move || {
            let (whole, mut h, mut c) = (stacked(&u, &b, &w)?, first.clone(), first.clone());
            for x in &xs {
                let gates = beside(x, &h)?.matmul(&whole)?.chunk(4, 1)?;
                let (i, f, o) = (sigmoid(&gates[0])?, sigmoid(&gates[1])?, sigmoid(&gates[3])?);
                c = ((f * c)? + (i * gates[2].tanh()?)?)?;
                h = (o * c.tanh()?)?;
            }
            Ok(h)
        }))
    }

    /// Reset after the product: the proposal's shares of state and input are apart.
    pub(crate) fn gru(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (d, hidden) = (self.leaf("layer0.d")?, self.case.hidden);
        let (xs, first) = (self.steps(true)?, self.zeros(hidden)?);
        Ok(Box::new(move || {
            let (gates_u, proposal_u) = (u.narrow(1, 0, 2 * hidden)?, u.narrow(1, 2 * hidden, hidden)?);
            let (gates_b, proposal_b) = (b.narrow(0, 0, 2 * hidden)?, b.narrow(0, 2 * hidden, hidden)?);
            let (whole_u, whole_b) =
                (beside(&gates_u, &proposal_u.zeros_like()?)?, Tensor::cat(&[&gates_b, &d], 0)?);
            let whole = stacked(&whole_u, &whole_b, &w)?;
            let proposal = Tensor::cat(&[proposal_u, proposal_b.unsqueeze(0)?], 0)?;
            let mut h = first.clone();
            for x in &xs {
                let shares = beside(x, &h)?.matmul(&whole)?.chunk(3, 1)?;
                let (r, z) = (sigmoid(&shares[0])?, sigmoid(&shares[1])?);
                let n = (x.matmul(&proposal)? + (r * &shares[2])?)?.tanh()?;
                h = lerp(&n, &h, &z)?;
            }
            Ok(h)
        }))
    }

    pub(crate) fn mgu(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first) = (self.steps(true)?, self.zeros(self.case.hidden)?);
        Ok(Box::new(move || {
            let (u, w, b) = (u.chunk(2, 1)?, w.chunk(2, 1)?, b.chunk(2, 0)?);
            let (gate, proposal) = (stacked(&u[0], &b[0], &w[0])?, stacked(&u[1], &b[1], &w[1])?);
            let mut h = first.clone();
            for x in &xs {
                let f = sigmoid(&beside(x, &h)?.matmul(&gate)?)?;
                let a = beside(x, &(&f * &h)?)?.matmul(&proposal)?;
                let n = (&a / (a.abs()? + 1.0)?)?;
                h = lerp(&h, &n, &f)?;
            }
            Ok(h)
        }))
    }

    pub(crate) fn irnn(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let eta = self.leaf("layer0.eta")?;
        let (xs, first) = (self.steps(true)?, self.zeros(self.case.hidden)?);
        Ok(Box::new(move || {
            let (etas, whole, mut h) = (eta.chunk(eta.elem_count(), 0)?, stacked(&u, &b, &w)?, first.clone());
            for x in &xs {
                let mut g = h.clone();
                for rate in &etas {
                    let total = (&g + &h)?;
                    let change = (beside(x, &total)?.matmul(&whole)?.relu()? - total)?;
                    g = (g + change.broadcast_mul(rate)?)?;
                }
                h = g;
            }
            Ok(h)
        }))
    }

    /// Reset before the product; the low-rank matrices with their diagonals formed once a call.
    pub(crate) fn gru_lrd(&mut self) -> Fallible<Features> {
        let (u, b) = (self.leaf("layer0.U")?, self.leaf("layer0.b")?);
        let (left, right) = (self.leaf("layer0.W.L")?, self.leaf("layer0.W.R")?);
        let (delta, hidden) = (self.leaf("layer0.W.delta")?, self.case.hidden);
        let (xs, first) = (self.steps(true)?, self.zeros(hidden)?);
        Ok(Box::new(move || {
            let (left, right, delta) = (left.chunk(3, 1)?, right.chunk(3, 1)?, delta.chunk(3, 0)?);
            let one = Tensor::eye(hidden, DType::F32, &Device::Cpu)?;
            let form = |gate: usize| right[gate].matmul(&left[gate])? + one.broadcast_mul(&delta[gate])?;
            let formed = Tensor::cat(&[form(0)?, form(1)?, form(2)?], 1)?;
            let whole = stacked(&u, &b, &formed)?;
            let gates = whole.narrow(1, 0, 2 * hidden)?.contiguous()?;
            let proposal = whole.narrow(1, 2 * hidden, hidden)?.contiguous()?;
            let mut h = first.clone();
            for x in &xs {
                let rz = sigmoid(&beside(x, &h)?.matmul(&gates)?)?.chunk(2, 1)?;
                let n = beside(x, &(&rz[0] * &h)?)?.matmul(&proposal)?.tanh()?;
                h = lerp(&n, &h, &rz[1])?;
            }
            Ok(h)
        }))
    }

    /// The 5-norm by products.
    pub(crate) fn nru(&mut self) -> Fallible<Features> {
        let setting = |key: &str| -> Fallible<usize> {
            Ok(self.case.cell_settings.get(key).ok_or_else(|| format!("no setting `{key}`"))?.parse()?)
        };
        let (k, m, rows) = (setting("heads")?, setting("memory")?, self.case.rows);
        let s = (k * m).isqrt();
        let (u, w, w_m) = (self.leaf("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.W_m")?);
        let (b, a, a_b) = (self.leaf("layer0.b")?, self.leaf("layer0.A")?, self.leaf("layer0.a")?);
        let (xs, first, memory) = (self.steps(true)?, self.zeros(self.case.hidden)?, self.zeros(m)?);
        let share: Vec<f32> = (0..2 * k).map(|head| if head < k { 1.0 } else { -1.0 } / k as f32).collect();
        let share = Tensor::new(share, &Device::Cpu)?;
        Ok(Box::new(move || {
            let whole = stacked(&u, &b, &Tensor::cat(&[&w, &w_m], 0)?)?;
            let (mut h, mut memory) = (first.clone(), memory.clone());
            for x in &xs {
                h = Tensor::cat(&[x, &h, &memory], 1)?.matmul(&whole)?.relu()?;
                let heads = beside(&h, &memory)?.matmul(&a)?.broadcast_add(&a_b)?;
                let strength = heads.narrow(1, 0, 2 * k)?;
                let p = heads.narrow(1, 2 * k, 2 * s)?.reshape((rows, 2, s, 1))?;
                let r = heads.narrow(1, 2 * k + 2 * s, 2 * s)?.reshape((rows, 2, 1, s))?;
                let v = p.broadcast_mul(&r)?.reshape((rows, 2 * k, m))?;
                let square = v.sqr()?;
                let fifth = (square.sqr()? * v.abs()?)?;
                let norm = fifth.sum(D::Minus1)?.powf(0.2)?.maximum(1e-12)?;
                let strength = (strength.broadcast_mul(&share)? / norm)?;
                memory = (memory + strength.unsqueeze(1)?.matmul(&v)?.squeeze(1)?)?;
            }
            Ok(h)
        }))
    }
}
