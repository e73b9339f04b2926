//! Cells written from burn's operations, with this engine's parameters.
//!
//! The gradient of a part of a tensor is as large as the whole in burn, so that a product with all inputs at once,
//! cut into steps, would cost the square of their number. Each step therefore multiplies its own input, which is no
//! leaf, and its state at once: `[x, 1, h] [U; b; W]`, biases included. For the same reason it is not clear whether one
//! product for all gates of a state, then cut, or one for each gate is faster: both are there.

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid};

use crate::worker::Fallible;
use crate::{Builder, Features};

/// `a` beside `b`.
fn beside(a: &Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    Tensor::cat(vec![a.clone(), b], 1)
}

/// `[U; b; W]`, for `[x, 1, h]`.
fn stacked(u: Tensor<2>, b: Tensor<1>, w: Tensor<2>) -> Tensor<2> {
    Tensor::cat(vec![u, b.unsqueeze(), w], 0)
}

/// `2 σ(2z) − 1`: burn's own computes itself once more for its gradient, and both times number by number.
fn tanh(z: Tensor<2>) -> Tensor<2> {
    sigmoid(z * 2.0) * 2.0 - 1.0
}

/// `a + t (b - a)`.
fn lerp(a: Tensor<2>, b: Tensor<2>, t: Tensor<2>) -> Tensor<2> {
    a.clone() + t * (b - a)
}

/// The recurrent matrix of several gates.
enum Gates<const G: usize> {
    /// One product for all, cut afterwards.
    Joined(Tensor<2>),
    /// A product for each.
    Apart([Tensor<2>; G]),
}

impl<const G: usize> Gates<G> {
    fn new(apart: bool, whole: Tensor<2>) -> Self {
        if apart { Gates::Apart(cut(whole)) } else { Gates::Joined(whole) }
    }

    /// Each gate's share of `[x, 1, h]`.
    fn apply(&self, z: Tensor<2>) -> [Tensor<2>; G] {
        match self {
            Gates::Joined(whole) => cut(z.matmul(whole.clone())),
            Gates::Apart(parts) => parts.each_ref().map(|part| z.clone().matmul(part.clone())),
        }
    }
}

/// `G` parts of as many columns.
fn cut<const G: usize>(z: Tensor<2>) -> [Tensor<2>; G] {
    let width = z.dims()[1] / G;
    std::array::from_fn(|part| z.clone().narrow(1, part * width, width))
}

impl Builder<'_> {
    pub(crate) fn rnn(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf::<2>("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first) = (self.steps(true), self.zeros(self.case.hidden));
        Ok(Box::new(move || {
            let (whole, mut h) = (stacked(u.clone(), b.clone(), w.clone()), first.clone());
            for x in &xs {
                h = tanh(beside(x, h).matmul(whole.clone()));
            }
            h
        }))
    }

    pub(crate) fn lstm(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf::<2>("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first, apart) = (self.steps(true), self.zeros(self.case.hidden), self.apart);
        Ok(Box::new(move || {
            let whole = Gates::<4>::new(apart, stacked(u.clone(), b.clone(), w.clone()));
            let (mut h, mut c) = (first.clone(), first.clone());
            for x in &xs {
                let [i, f, g, o] = whole.apply(beside(x, h));
                c = sigmoid(f) * c + sigmoid(i) * tanh(g);
                h = sigmoid(o) * tanh(c.clone());
            }
            h
        }))
    }

    /// Reset after the product: the proposal's shares of state and input are apart.
    pub(crate) fn gru(&mut self) -> Fallible<Features> {
        let (u, w, b) =
            (self.leaf::<2>("layer0.U")?, self.leaf::<2>("layer0.W")?, self.leaf::<1>("layer0.b")?);
        let (d, hidden) = (self.leaf::<1>("layer0.d")?, self.case.hidden);
        let (xs, first, apart) = (self.steps(true), self.zeros(hidden), self.apart);
        Ok(Box::new(move || {
            let part = |start, width| (u.clone().narrow(1, start, width), b.clone().narrow(0, start, width));
            let ((gates_u, gates_b), (proposal_u, proposal_b)) =
                (part(0, 2 * hidden), part(2 * hidden, hidden));
            let zero = proposal_u.zeros_like();
            let whole = stacked(beside(&gates_u, zero), Tensor::cat(vec![gates_b, d.clone()], 0), w.clone());
            let whole = Gates::<3>::new(apart, whole);
            let proposal = Tensor::cat(vec![proposal_u, proposal_b.unsqueeze()], 0);
            let mut h = first.clone();
            for x in &xs {
                let [r, z, n] = whole.apply(beside(x, h.clone()));
                let n = tanh(x.clone().matmul(proposal.clone()) + sigmoid(r) * n);
                h = lerp(n, h, sigmoid(z));
            }
            h
        }))
    }

    pub(crate) fn mgu(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf::<2>("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let (xs, first) = (self.steps(true), self.zeros(self.case.hidden));
        Ok(Box::new(move || {
            let [gate, proposal] = cut(stacked(u.clone(), b.clone(), w.clone()));
            let mut h = first.clone();
            for x in &xs {
                let f = sigmoid(beside(x, h.clone()).matmul(gate.clone()));
                let a = beside(x, f.clone() * h.clone()).matmul(proposal.clone());
                let n = a.clone() / (a.abs() + 1.0);
                h = lerp(h, n, f);
            }
            h
        }))
    }

    pub(crate) fn irnn(&mut self) -> Fallible<Features> {
        let (u, w, b) = (self.leaf::<2>("layer0.U")?, self.leaf("layer0.W")?, self.leaf("layer0.b")?);
        let eta = self.leaf::<1>("layer0.eta")?;
        let (xs, first) = (self.steps(true), self.zeros(self.case.hidden));
        Ok(Box::new(move || {
            let (etas, whole) = (eta.clone().split(1, 0), stacked(u.clone(), b.clone(), w.clone()));
            let mut h = first.clone();
            for x in &xs {
                let mut g = h.clone();
                for rate in &etas {
                    let total = g.clone() + h.clone();
                    let change = relu(beside(x, total.clone()).matmul(whole.clone())) - total;
                    g = g + change * rate.clone().unsqueeze();
                }
                h = g;
            }
            h
        }))
    }

    /// Reset before the product; the low-rank matrices with their diagonals formed once a call.
    pub(crate) fn gru_lrd(&mut self) -> Fallible<Features> {
        let (u, b) = (self.leaf::<2>("layer0.U")?, self.leaf::<1>("layer0.b")?);
        let (left, right) = (self.leaf::<2>("layer0.W.L")?, self.leaf::<2>("layer0.W.R")?);
        let (delta, hidden) = (self.leaf::<1>("layer0.W.delta")?, self.case.hidden);
        let (xs, first, apart) = (self.steps(true), self.zeros(hidden), self.apart);
        let one = Tensor::<2>::eye(hidden, &self.device);
        Ok(Box::new(move || {
            let (left, right): ([_; 3], [_; 3]) = (cut(left.clone()), cut(right.clone()));
            let delta: [Tensor<2>; 3] = cut(delta.clone().unsqueeze());
            let form = |gate: usize| {
                right[gate].clone().matmul(left[gate].clone()) + one.clone() * delta[gate].clone()
            };
            let formed = Tensor::cat(vec![form(0), form(1), form(2)], 1);
            let whole = stacked(u.clone(), b.clone(), formed);
            let gates = Gates::<2>::new(apart, whole.clone().narrow(1, 0, 2 * hidden));
            let proposal = whole.narrow(1, 2 * hidden, hidden);
            let mut h = first.clone();
            for x in &xs {
                let [r, z] = gates.apply(beside(x, h.clone()));
                let n = tanh(beside(x, sigmoid(r) * h.clone()).matmul(proposal.clone()));
                h = lerp(n, h, sigmoid(z));
            }
            h
        }))
    }

    /// The 5-norm by products.
    pub(crate) fn nru(&mut self) -> Fallible<Features> {
        let setting = |key: &str| -> Fallible<usize> {
            Ok(self.case.cell_settings.get(key).ok_or_else(|| format!("no setting `{key}`"))?.parse()?)
        };
        let (k, m, rows) = (setting("heads")?, setting("memory")?, self.case.rows);
        let s = (k * m).isqrt();
        let (u, b) = (self.leaf::<2>("layer0.U")?, self.leaf::<1>("layer0.b")?);
        let (w, w_m) = (self.leaf::<2>("layer0.W")?, self.leaf::<2>("layer0.W_m")?);
        let (a, a_b) = (self.leaf::<2>("layer0.A")?, self.leaf::<1>("layer0.a")?);
        let (xs, first, memory) = (self.steps(true), self.zeros(self.case.hidden), self.zeros(m));
        let share: Vec<f32> = (0..2 * k).map(|head| if head < k { 1.0 } else { -1.0 } / k as f32).collect();
        let share = Tensor::<1>::from_floats(share.as_slice(), &self.device).unsqueeze::<2>();
        Ok(Box::new(move || {
            let whole = stacked(u.clone(), b.clone(), Tensor::cat(vec![w.clone(), w_m.clone()], 0));
            let (mut h, mut memory) = (first.clone(), memory.clone());
            for x in &xs {
                h = relu(Tensor::cat(vec![x.clone(), h, memory.clone()], 1).matmul(whole.clone()));
                let heads = beside(&h, memory.clone()).matmul(a.clone()) + a_b.clone().unsqueeze();
                let strength = heads.clone().narrow(1, 0, 2 * k);
                let p = heads.clone().narrow(1, 2 * k, 2 * s).reshape([rows, 2, s, 1]);
                let r = heads.narrow(1, 2 * k + 2 * s, 2 * s).reshape([rows, 2, 1, s]);
                let v = (p * r).reshape([rows, 2 * k, m]);
                let square = v.clone() * v.clone();
                let fifth = square.clone() * square * v.clone().abs();
                let norm = fifth.sum_dim(2).powf_scalar(0.2).clamp_min(1e-12).reshape([rows, 2 * k]);
                let strength = strength * share.clone() / norm;
                memory = memory + strength.unsqueeze_dim::<3>(1).matmul(v).reshape([rows, m]);
            }
            h
        }))
    }
}
