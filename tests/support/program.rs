//! Random programs: a step made of random operations, read ahead of and after the loop, looped once or twice, with
//! its loss and gradients.
//!
//! A program is plain data, so that a failing one shrinks: an [`Instruction`] names an operation and its operands by
//! number, modulo whatever there is, and every list of instructions is a program.

use num_complex::Complex64;
use proptest::prelude::*;
use retrograd_engine::core_ops::{sum_dims, sum_rows, sum_steps};
use retrograd_engine::matmul::{MatMul, matmul_with};
use retrograd_engine::{DType, Horizon, Lead, Params, Result, Scan, Shape, Tape, Tensor, Var, grad, matmul};
use retrograd_ops as ops;

/// One operation on values of a pool; see [`apply`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    op: u8,
    a: u8,
    b: u8,
    c: u8,
}

/// A random program.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    /// `F32` or `F64`; complex values are of the same precision.
    pub(crate) dtype: DType,
    /// Sizes of the real state, the complex state and the input.
    pub(crate) widths: [usize; 3],
    /// On sequences, in front of the loop.
    pub(crate) ahead: Vec<Instruction>,
    /// The step.
    pub(crate) step: Vec<Instruction>,
    /// On sequences, behind the loop.
    pub(crate) after: Vec<Instruction>,
    /// A second loop, the other way, over what the first one returns.
    pub(crate) second: Vec<Instruction>,
    /// Walks from the last step to the first.
    pub(crate) reverse: bool,
    /// Whether rows end early.
    pub(crate) lengths: bool,
    /// Truncation.
    pub(crate) horizon: Option<usize>,
    /// Whether outputs of every step are returned; no budget can shrink those.
    pub(crate) stacked: bool,
    /// Whether gradients of gradients are among the outputs.
    pub(crate) second_order: bool,
    /// Seed of the values.
    pub(crate) seed: u64,
}

fn instructions(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Instruction>> {
    let one = any::<(u8, u8, u8, u8)>().prop_map(|(op, a, b, c)| Instruction { op, a, b, c });
    proptest::collection::vec(one, n)
}

/// Random programs on values of these widths.
pub(crate) fn random(width: std::ops::Range<usize>) -> impl Strategy<Value = Random> {
    let widths = [width.clone(), width.clone(), width];
    let shape = (prop_oneof![Just(DType::F64), Just(DType::F32)], widths);
    let code = (instructions(0..4), instructions(1..12), instructions(0..4), instructions(0..6));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2));
    let rest = (proptest::option::weighted(0.3, 1..9usize), any::<u64>());
    (shape, code, flags, rest).prop_map(|(shape, code, flags, rest)| {
        let ((dtype, widths), (ahead, step, after, second)) = (shape, code);
        let ((reverse, lengths, stacked, second_order), (horizon, seed)) = (flags, rest);
        Random {
            dtype,
            widths,
            ahead,
            step,
            after,
            second,
            reverse,
            lengths,
            horizon,
            stacked,
            second_order,
            seed,
        }
    })
}

/// What instructions work on besides each other's results.
struct Context {
    dtype: DType,
    widths: [usize; 3],
    /// Real matrices from every width to every width.
    matrices: Vec<Var>,
    /// A complex matrix for each width.
    complex: Vec<Var>,
    /// A vector for each width.
    vectors: Vec<Var>,
    /// A row for each index, for each width.
    tables: Vec<Var>,
    seed: Var,
}

/// Rows of the tables.
const SYMBOLS: usize = 5;

impl Context {
    fn declare(tape: &mut Tape, dtype: DType, widths: [usize; 3]) -> Result<Context> {
        let (mut matrices, mut complex, mut vectors, mut tables) = (vec![], vec![], vec![], vec![]);
        let c = dtype.complex().unwrap_or(dtype);
        for (i, &w) in widths.iter().enumerate() {
            for (j, &to) in widths.iter().enumerate() {
                matrices.push(tape.param(&format!("w{i}{j}"), dtype, [w, to])?);
            }
            complex.push(tape.param(&format!("m{i}"), c, [w, w])?);
            vectors.push(tape.param(&format!("v{i}"), dtype, [w])?);
            tables.push(tape.param(&format!("table{i}"), dtype, [SYMBOLS, w])?);
        }
        let seed = tape.input("seed", DType::I32, Shape::shared([]))?;
        Ok(Context { dtype, widths, matrices, complex, vectors, tables, seed })
    }

    /// Which of the widths a value has.
    fn width(&self, tape: &Tape, v: Var) -> Result<usize> {
        let w = tape.last_dim("test", v)?;
        Ok(self.widths.iter().position(|x| *x == w).unwrap_or(0))
    }

    /// The value brought to a width: a part of it, or with copies of it behind it.
    fn fit(&self, tape: &mut Tape, v: Var, to: usize, c: u8) -> Result<Var> {
        let from = tape.last_dim("test", v)?;
        let to = self.widths[to];
        if from == 1 && to > 1 && c.is_multiple_of(2) {
            return ops::broadcast(tape, v, &[to]);
        }
        let copies = vec![v; to.div_ceil(from)];
        let wide = if copies.len() > 1 { ops::concat(tape, &copies, -1)? } else { v };
        let start = c as usize % (from * copies.len() - to + 1);
        if from * copies.len() == to { Ok(wide) } else { ops::slice(tape, wide, start..start + to, -1) }
    }

    /// Real values as they are, of complex ones the real or imaginary part.
    fn real(&self, tape: &mut Tape, v: Var, c: u8) -> Result<Var> {
        match tape.dtype(v)?.is_complex() {
            false => Ok(v),
            true if c.is_multiple_of(2) => ops::real(tape, v),
            true => ops::imag(tape, v),
        }
    }

    /// Keeps numbers of any size within 1 without a kink: `x / sqrt(1 + |x|²)`.
    fn tame(&self, tape: &mut Tape, v: Var) -> Result<Var> {
        let size = ops::abs2(tape, v)?;
        let size = ops::shift(tape, size, 1.0)?;
        let size = ops::sqrt(tape, size)?;
        ops::div(tape, v, size)
    }
}

/// Applies an instruction to the pool. Every value has one axis of one of the three widths. No operation is taken
/// near a kink: comparisons are of `raw` values, and other kinks lie at odd places.
fn apply(tape: &mut Tape, cx: &Context, pool: &[Var], raw: Var, i: Instruction) -> Result<Var> {
    let pick = |n: u8| pool[pool.len() - 1 - n as usize % pool.len()];
    let (a, c) = (pick(i.a), i.c);
    let wa = cx.width(tape, a)?;
    let b = cx.fit(tape, pick(i.b), wa, c)?;
    let complex = tape.dtype(a)?.is_complex();
    match i.op % 29 {
        0 => ops::add(tape, a, b),
        1 => {
            let y = ops::mul(tape, a, b)?;
            cx.tame(tape, y)
        }
        2 => {
            let x = cx.real(tape, a, c)?;
            ops::tanh(tape, x)
        }
        3 => {
            let x = cx.real(tape, a, c)?;
            ops::sigmoid(tape, x)
        }
        4 | 5 => matmul(tape, a, cx.matrices[wa * 3 + c as usize % 3]),
        6 => {
            let on = |bit: u8| c >> bit & 1 == 1;
            let flags = MatMul { transpose_b: on(0), conj_a: on(1), conj_b: on(2) };
            let matrix = if on(3) { cx.matrices[4 * wa] } else { cx.complex[wa] };
            matmul_with(tape, a, matrix, flags)
        }
        7 => {
            let x = cx.real(tape, a, c)?;
            ops::complex(tape, x, x)
        }
        8 => {
            let (x, y) = (cx.real(tape, a, c)?, cx.real(tape, b, c / 2)?);
            ops::complex(tape, x, y)
        }
        9 => ops::conj(tape, a),
        10 => ops::flip(tape, a, -1),
        11 => {
            // Outer product, transposed, summed.
            let m = cx.widths[wa];
            let table = ops::outer(tape, a, b)?;
            let table = ops::transpose(tape, table, &[1, 0])?;
            let sum = sum_dims(tape, table, &[1, m])?;
            let sum = ops::reshape(tape, sum, &[m as isize])?;
            cx.tame(tape, sum)
        }
        12 => {
            let sum = sum_dims(tape, a, &[1])?;
            let sum = cx.tame(tape, sum)?;
            ops::broadcast(tape, sum, &[cx.widths[wa]])
        }
        13 => {
            let (a, b) = match tape.dtype(a)? == tape.dtype(b)? {
                true => (a, b),
                false => (ops::to_complex(tape, a)?, ops::to_complex(tape, b)?),
            };
            let both = ops::concat(tape, &[a, b], -1)?;
            cx.fit(tape, both, c as usize % 3, c / 3)
        }
        14 => {
            let x = cx.fit(tape, raw, wa, c)?;
            let zero = tape.scalar(x, 0.0)?;
            let condition = ops::gt(tape, x, zero)?;
            ops::where_(tape, condition, a, b)
        }
        15 => ops::dropout(tape, a, 0.7, cx.seed, c as u64),
        16 => ops::affine(tape, a, -0.6, 0.2),
        17 => {
            let x = cx.tame(tape, a)?;
            ops::sin(tape, x)
        }
        18 => {
            let x = cx.tame(tape, a)?;
            ops::exp(tape, x)
        }
        19 => {
            let x = cx.real(tape, a, c)?;
            let x = ops::shift(tape, x, 0.123_456_7)?;
            ops::relu(tape, x)
        }
        20 => {
            let (x, y) = (cx.real(tape, a, c)?, cx.real(tape, b, c)?);
            let y = ops::shift(tape, y, 0.123_456_7)?;
            ops::maximum(tape, x, y)
        }
        21 if complex => ops::modrelu(tape, a, cx.vectors[wa], ops::ModReluForm::FcUrnn),
        21 => ops::softplus(tape, a),
        22 => {
            let x = cx.real(tape, a, c)?;
            ops::softmax(tape, x)
        }
        23 => {
            let x = cx.real(tape, a, c)?;
            ops::layer_norm(tape, x, cx.vectors[wa], cx.vectors[wa], 0.1)
        }
        24 => {
            let factors = kron_factors(cx.widths[wa]);
            kron(tape, cx, a, wa, factors)
        }
        25 => {
            let x = cx.real(tape, a, c)?;
            let y = ops::logsumexp(tape, x)?;
            let y = ops::reshape(tape, y, &[1])?;
            cx.fit(tape, y, c as usize % 3, 0)
        }
        26 => ops::stop_gradient(tape, a),
        27 => {
            // Away from the zero vector, where the norm has a kink.
            let x = ops::shift(tape, a, 2.5)?;
            ops::normalize(tape, x, 2.0, -1, 0.1)
        }
        _ => ops::add(tape, a, cx.vectors[wa]),
    }
}

/// Two factors whose product is the width, the first as small as can be but 1.
fn kron_factors(width: usize) -> [usize; 2] {
    let first = (2..=width / 2).find(|p| width.is_multiple_of(*p)).unwrap_or(1);
    [first, width / first]
}

/// The Kronecker product of the corners of the complex and the real matrix of a width.
fn kron(tape: &mut Tape, cx: &Context, x: Var, w: usize, [p, q]: [usize; 2]) -> Result<Var> {
    let corner = |tape: &mut Tape, m: Var, n: usize| {
        let rows = ops::slice(tape, m, 0..n, 0)?;
        ops::slice(tape, rows, 0..n, 1)
    };
    let (a, b) = (corner(tape, cx.complex[w], p)?, corner(tape, cx.matrices[w * 3 + w], q)?);
    ops::kron_apply(tape, x, &[a, b])
}

/// A recorded program.
pub(crate) struct Built {
    pub(crate) tape: Tape,
    /// Loss, last states, outputs of the steps if wanted, gradients.
    pub(crate) outputs: Vec<Var>,
    /// What each output is.
    pub(crate) names: Vec<String>,
}

fn run_all(tape: &mut Tape, cx: &Context, pool: &mut Vec<Var>, raw: Var, code: &[Instruction]) -> Result<()> {
    for &i in code {
        let v = apply(tape, cx, pool, raw, i)?;
        pool.push(v);
    }
    Ok(())
}

/// The sum over everything of a real part, weighted unevenly.
fn total(tape: &mut Tape, cx: &Context, v: Var) -> Result<Var> {
    let v = cx.tame(tape, v)?;
    let shape = tape.shape(v)?.clone();
    let mut weights = Tensor::zeros(tape.dtype(v)?, &shape.dims)?;
    weights.fill_with(|i| Complex64::new(0.3 + 0.1 * i as f64, 0.2 - 0.15 * i as f64));
    let weights = tape.constant(weights);
    let v = ops::mul(tape, v, weights)?;
    let v = cx.real(tape, v, 0)?;
    let mut v = sum_dims(tape, v, &[])?;
    if shape.lead.has_t() {
        v = sum_steps(tape, v)?;
    }
    if shape.lead.has_n() { sum_rows(tape, v) } else { Ok(v) }
}

impl Random {
    /// Records the program.
    pub(crate) fn build(&self) -> Result<Built> {
        let mut tape = Tape::new();
        let t = &mut tape;
        let (real, complex) = (self.dtype, self.dtype.complex().unwrap_or(self.dtype));
        let [h, z, i] = self.widths;
        let cx = Context::declare(t, self.dtype, self.widths)?;
        let x = t.input("x", real, Shape::sequence([i]))?;
        let shared = t.input("shared", complex, Shape::steps([z]))?;
        let row = t.input("row", real, Shape::rows([h]))?;
        let symbols = t.input("symbols", DType::I32, Shape::sequence([]))?;
        let h0 = t.param("h0", real, [h])?;
        let z0 = t.input("z0", complex, Shape::rows([z]))?;
        let lengths = match self.lengths {
            true => Some(t.input("lengths", DType::I32, Shape::rows([]))?),
            false => None,
        };
        let outer = vec![row, cx.vectors[0], cx.vectors[1]];

        let mut sequences = vec![shared, x];
        run_all(t, &cx, &mut sequences, x, &self.ahead)?;
        let ahead = sequences[sequences.len() - 1];
        let horizon = self.horizon.map_or(Horizon::Full, Horizon::Steps);
        let scan = |reverse: bool| Scan::new().reverse(reverse).lengths(lengths).horizon(horizon);
        let step = |tape: &mut Tape, [h, z]: [Var; 2], xs: Vec<Var>, code: &[Instruction]| {
            let symbol = ops::gather(tape, cx.tables[2], xs[0])?;
            let mut pool = outer.clone();
            pool.extend([symbol, z, h]);
            pool.extend(&xs[1..]);
            run_all(tape, &cx, &mut pool, xs[1], code)?;
            let last = pool[pool.len() - 1];
            // Both states mix the old one with something new, and stay within 1.
            let new = cx.fit(tape, last, 0, 1)?;
            let new = cx.real(tape, new, 1)?;
            let new = ops::tanh(tape, new)?;
            let old = ops::scale(tape, h, 0.4)?;
            let new_h = ops::add(tape, old, new)?;
            let new_h = cx.tame(tape, new_h)?;
            let mixed = cx.fit(tape, pool[pool.len() - 1 - pool.len() / 3], 1, 0)?;
            let old = ops::times_i(tape, z)?;
            let new_z = ops::add(tape, mixed, old)?;
            let new_z = cx.tame(tape, new_z)?;
            let new_z = ops::to_complex(tape, new_z)?;
            Ok(([new_h, new_z], [last, new_z]))
        };
        let xs = vec![symbols, x, shared, ahead];
        let (last, ys) = scan(self.reverse).run(t, [h0, z0], xs, |t, s, xs| step(t, s, xs, &self.step))?;
        let mut finals = last.to_vec();
        let mut all = ys.to_vec();
        if !self.second.is_empty() {
            let xs = vec![symbols, ys[1], ys[0]];
            // What a comparison sees must not be computed: the first sequence in is.
            let xs = [xs.as_slice(), &[x]].concat();
            let (last, ys) = scan(!self.reverse)
                .run(t, last, xs, |t, s, xs| step(t, s, vec![xs[0], xs[3], xs[1], xs[2]], &self.second))?;
            finals.extend(last);
            all.extend(ys);
        }
        run_all(t, &cx, &mut all, x, &self.after)?;

        let mut loss = t.constant(Tensor::full(real, [], 0.0)?);
        for &v in finals.iter().chain(&all[all.len().saturating_sub(3)..]) {
            let term = total(t, &cx, v)?;
            loss = ops::add(t, loss, term)?;
        }
        let wanted: Vec<(String, Var)> = t
            .params()
            .chain(t.inputs())
            .filter(|(name, _, ty)| {
                ty.dtype.is_differentiable() && (self.stacked || !ty.shape.lead.has_t()) && !name.is_empty()
            })
            .map(|(name, v, _)| (name.to_string(), v))
            .collect();
        let wrt: Vec<Var> = wanted.iter().map(|(_, v)| *v).collect();
        let gradients = grad(t, loss, &wrt)?;
        let mut outputs = vec![loss];
        let mut names = vec!["loss".to_string()];
        for (k, v) in finals.iter().enumerate() {
            outputs.push(*v);
            names.push(format!("state {k}"));
        }
        if self.stacked {
            for (k, v) in all.iter().enumerate() {
                outputs.push(*v);
                names.push(format!("sequence {k}"));
            }
        }
        for (&g, (name, _)) in gradients.iter().zip(&wanted) {
            outputs.push(g);
            names.push(format!("gradient of {name}"));
        }
        if self.second_order {
            let mut product = t.constant(Tensor::full(real, [], 0.0)?);
            for &g in &gradients {
                let term = total(t, &cx, g)?;
                product = ops::add(t, product, term)?;
            }
            for (&g, (name, _)) in grad(t, product, &wrt)?.iter().zip(&wanted) {
                outputs.push(g);
                names.push(format!("second derivative by {name}"));
            }
        }
        Ok(Built { tape, outputs, names })
    }

    /// Values for it, of these extents.
    pub(crate) fn values(&self, built: &Built, steps: usize, rows: usize) -> Result<Params> {
        let mut state = self.seed;
        let mut next = || {
            // SplitMix64 (Steele, Lea, Flood 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut values = Params::new();
        for (name, _, ty) in built.tape.params().chain(built.tape.inputs()) {
            let mut tensor = Tensor::zeros(ty.dtype, ty.shape.concrete(steps, rows))?;
            let below = match name {
                "lengths" => steps + 1,
                "seed" => 1 << 20,
                _ => SYMBOLS,
            };
            let scale = match ty.shape.lead {
                Lead::Shared => 1.0 / (ty.shape.dims.first().copied().unwrap_or(1) as f64).sqrt(),
                _ => 1.0,
            };
            tensor.fill_with(|_| match ty.dtype {
                DType::I32 => Complex64::new((next() * below as f64).floor(), 0.0),
                _ => Complex64::new((2.0 * next() - 1.0) * scale, (2.0 * next() - 1.0) * scale),
            });
            values.insert(name, tensor);
        }
        Ok(values)
    }
}
