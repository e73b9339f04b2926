//! The product and its gradients on a device: a factor is a phase, and what it leaves lies in shared memory.

use retrograd_engine::device::{Building, DeviceKernel, Entry, Piece, Value};

use super::kernel::{Chain, Stage};
use super::{KronApply, KronGrad, Stored, chain};

/// The stages, from the sizes of `x` and the matrices.
fn chain_of(factors: &[Stored], x: &Entry, matrices: &[Entry], complex: bool) -> Chain {
    chain(factors, &x.dims, matrices.iter().map(|w| &w.dims[..]), complex)
}

/// Elements of a row before a stage, and after it.
fn elements(s: &Stage) -> (usize, usize) {
    (s.outer * s.q * s.inner, s.outer * s.p * s.inner)
}

/// Elements of the longest row.
fn widest(chain: &Chain) -> usize {
    chain.stages.iter().map(|s| elements(s).0.max(elements(s).1)).max().unwrap_or(0)
}

/// Where a row lies: an input, or shared memory from an element on with so many elements a plane.
#[derive(Clone, Copy)]
enum Row {
    Input(usize),
    Shared(usize, usize),
}

impl Row {
    fn read(self, k: &mut Piece<'_, '_>, plane: usize, index: Value) -> Value {
        match self {
            Row::Input(input) => k.input(input, plane, index),
            Row::Shared(start, width) => {
                let at = k.code().add(index, start + plane * width);
                k.shared(at)
            }
        }
    }

    fn is_complex(self, k: &Piece<'_, '_>) -> bool {
        match self {
            Row::Input(input) => k.is_complex(input),
            Row::Shared(..) => k.planes() == 2,
        }
    }
}

/// `acc ± x y` of complex numbers; `minus`: of the imaginary part of `x`.
fn term(k: &mut Piece<'_, '_>, acc: &[Value], minus: bool, x: [Option<Value>; 2], y: [Option<Value>; 2]) {
    let add = |k: &mut Piece<'_, '_>, plane: usize, minus: bool, a: Option<Value>, b: Option<Value>| {
        if let (Some(a), Some(b), Some(&acc)) = (a, b, acc.get(plane)) {
            let a = if minus { k.code().neg(a) } else { a };
            let next = k.code().fma(a, b, acc);
            k.code().set(acc, next);
        }
    };
    add(k, 0, false, x[0], y[0]);
    add(k, 0, !minus, x[1], y[1]);
    add(k, 1, minus, x[1], y[0]);
    add(k, 1, false, x[0], y[1]);
}

fn zeros(k: &mut Piece<'_, '_>) -> Vec<Value> {
    let zero = k.number(0.0);
    (0..k.planes()).map(|_| k.variable(zero)).collect()
}

/// Element `piece` of what a stage makes of a row: `factor` is the input with its matrix.
fn apply(k: &mut Piece<'_, '_>, s: Stage, factor: usize, from: Row, piece: Value) -> Vec<Value> {
    let (along, i) = (k.code().div(piece, s.inner), k.code().rem(piece, s.inner));
    let (o, p) = (k.code().div(along, s.p), k.code().rem(along, s.p));
    let base = k.code().mul(o, s.q * s.inner);
    let base = k.code().add(base, i);
    let (w_p, w_q) = if s.transpose { (1, s.p) } else { (s.q, 1) };
    let row = k.code().mul(p, w_p);
    let sums = zeros(k);
    let (w_complex, x_complex) = (k.is_complex(factor), from.is_complex(k));
    k.each(0, s.q, |k, q| {
        let skip = k.code().mul(q, w_q);
        let at = k.code().add(row, skip);
        let w = [Some(k.input(factor, 0, at)), w_complex.then(|| k.input(factor, 1, at))];
        let skip = k.code().mul(q, s.inner);
        let at = k.code().add(base, skip);
        let x = [Some(from.read(k, 0, at)), x_complex.then(|| from.read(k, 1, at))];
        term(k, &sums, s.conj, w, x);
    });
    sums
}

fn leave(k: &mut Piece<'_, '_>, start: usize, width: usize, piece: Value, values: &[Value]) {
    for (plane, value) in values.iter().enumerate() {
        let at = k.code().add(piece, start + plane * width);
        k.store_shared(at, *value);
    }
}

impl DeviceKernel for KronApply {
    fn phases(&self, inputs: &[Entry], output: &Entry) -> Vec<usize> {
        let chain = chain_of(&self.factors, &inputs[0], self.matrices(inputs), output.dtype.is_complex());
        chain.stages.iter().map(|s| elements(s).1).collect()
    }

    fn shared(&self, inputs: &[Entry], output: &Entry) -> usize {
        let chain = chain_of(&self.factors, &inputs[0], self.matrices(inputs), output.dtype.is_complex());
        if chain.stages.len() == 1 { 0 } else { 2 * chain.planes * widest(&chain) }
    }

    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value) {
        let complex = k.planes() == 2;
        let chain = chain_of(&self.factors, &k.inputs[0], self.matrices(k.inputs), complex);
        // Phases take turns between two rows of shared memory.
        let (width, size) = (widest(&chain), chain.planes * widest(&chain));
        let from = match phase {
            0 => Row::Input(0),
            phase => Row::Shared((phase + 1) % 2 * size, width),
        };
        let values = apply(k, chain.stages[phase], 1 + phase, from, piece);
        if phase + 1 < chain.stages.len() {
            return leave(k, phase % 2 * size, width, piece, &values);
        }
        for (plane, value) in values.into_iter().enumerate() {
            k.store(plane, piece, value);
        }
    }
}

/// What a phase of the gradients does with factor `f`.
#[derive(Clone, Copy)]
enum Does {
    /// Applies it to the row before.
    Forward(usize),
    /// Adds to its gradient.
    Gradient(usize),
    /// Applies its conjugate transpose to the cotangent behind.
    Backward(usize),
}

impl KronGrad {
    fn order(&self) -> Vec<Does> {
        let last = self.factors.len() - 1;
        let mut order: Vec<Does> = (0..last).map(Does::Forward).collect();
        for f in (0..=last).rev() {
            if self.wanted[f] {
                order.push(Does::Gradient(f));
            }
            if f > 0 {
                order.push(Does::Backward(f));
            }
        }
        order
    }

    fn chain_on_device(&self, inputs: &[Entry], complex: bool) -> Chain {
        chain_of(&self.factors, &inputs[0], &inputs[self.first()..], complex)
    }

    /// Where the row before factor `f` lies.
    fn before(chain: &Chain, f: usize) -> Row {
        if f == 0 {
            return Row::Input(0);
        }
        let start: usize = chain.stages[1..f].iter().map(|s| chain.planes * elements(s).0).sum();
        Row::Shared(start, elements(&chain.stages[f]).0)
    }

    /// Where the cotangent behind factor `f` lies.
    fn behind(chain: &Chain, f: usize) -> Row {
        let last = chain.stages.len() - 1;
        if f == last {
            return Row::Input(1);
        }
        let kept: usize = chain.stages[1..].iter().map(|s| chain.planes * elements(s).0).sum();
        Row::Shared(kept + (last - f) % 2 * chain.planes * widest(chain), widest(chain))
    }
}

impl DeviceKernel for KronGrad {
    fn phases(&self, inputs: &[Entry], output: &Entry) -> Vec<usize> {
        let chain = self.chain_on_device(inputs, output.dtype.is_complex());
        let pieces = |does: &Does| match *does {
            Does::Forward(f) => elements(&chain.stages[f]).1,
            Does::Gradient(f) => chain.stages[f].p * chain.stages[f].q,
            Does::Backward(f) => elements(&chain.stages[f]).0,
        };
        self.order().iter().map(pieces).collect()
    }

    fn shared(&self, inputs: &[Entry], output: &Entry) -> usize {
        let chain = self.chain_on_device(inputs, output.dtype.is_complex());
        let kept: usize = chain.stages[1..].iter().map(|s| chain.planes * elements(s).0).sum();
        // At least one: a sum over the phases of a row after the other.
        (kept + 2 * chain.planes * widest(&chain)).max(1)
    }

    fn piece(&self, k: &mut Piece<'_, '_>, phase: usize, piece: Value) {
        let chain = self.chain_on_device(k.inputs, k.planes() == 2);
        let first = self.first();
        match self.order()[phase] {
            Does::Forward(f) => {
                let values = apply(k, chain.stages[f], first + f, KronGrad::before(&chain, f), piece);
                if let Row::Shared(start, width) = KronGrad::before(&chain, f + 1) {
                    leave(k, start, width, piece, &values);
                }
            }
            Does::Backward(f) => {
                let s = chain.stages[f];
                let adjoint = Stage { p: s.q, q: s.p, transpose: !s.transpose, conj: !s.conj, ..s };
                let values = apply(k, adjoint, first + f, KronGrad::behind(&chain, f), piece);
                if let Row::Shared(start, width) = KronGrad::behind(&chain, f - 1) {
                    leave(k, start, width, piece, &values);
                }
            }
            Does::Gradient(f) => {
                let s = chain.stages[f];
                // The matrix as it is stored.
                let (p, q) = match s.transpose {
                    true => (k.code().rem(piece, s.p), k.code().div(piece, s.p)),
                    false => (k.code().div(piece, s.q), k.code().rem(piece, s.q)),
                };
                let (before, behind) = (KronGrad::before(&chain, f), KronGrad::behind(&chain, f));
                let sums = zeros(k);
                let (z_complex, u_complex) = (before.is_complex(k), behind.is_complex(k));
                k.each(0, s.outer, |k, o| {
                    let of = |k: &mut Piece<'_, '_>, count: usize, along: Value| {
                        let at = k.code().mul(o, count);
                        let at = k.code().add(at, along);
                        k.code().mul(at, s.inner)
                    };
                    let (z0, u0) = (of(k, s.q, q), of(k, s.p, p));
                    k.each(0, s.inner, |k, i| {
                        let (zt, ut) = (k.code().add(z0, i), k.code().add(u0, i));
                        let z = [Some(before.read(k, 0, zt)), z_complex.then(|| before.read(k, 1, zt))];
                        let u = [Some(behind.read(k, 0, ut)), u_complex.then(|| behind.read(k, 1, ut))];
                        // u times the conjugate of z.
                        term(k, &sums, true, z, u);
                    });
                });
                let start: usize = k.inputs[first..first + f].iter().map(Entry::width).sum();
                let at = k.code().add(piece, start);
                for (plane, sum) in sums.into_iter().enumerate() {
                    let sum = if plane == 1 && s.conj { k.code().neg(sum) } else { sum };
                    k.add(plane, at, sum);
                }
            }
        }
    }
}
