//! Random steps: which operations they consist of, the scans over them with all derivatives, and values for these.
#![allow(dead_code)]

use retrograd_engine::core_ops::{
    add, concat, conj, imag, neg, real, select, stop_gradient, sum_dims, sum_rows, sum_steps, times_i,
    to_complex,
};
use retrograd_engine::layout::{Layout, layout};
use retrograd_engine::matmul::{MatMul, matmul_with};
use retrograd_engine::{DType, Params, Result, Scan, Shape, Tape, Tensor, Var, grad};
use smallvec::smallvec;

use crate::common::{mul, params, random, tanh};

pub(crate) const R: DType = DType::F64;
pub(crate) const C: DType = DType::C64;

/// Choices of a program, the same each time it is built.
#[derive(Clone)]
pub(crate) struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What a step may read; every value has three elements an entry but for the matrices.
pub(crate) struct Outer {
    real_matrix: Var,
    complex_matrix: Var,
    values: Vec<Var>,
}

/// One random operation on values of the pool.
pub(crate) fn operation(tape: &mut Tape, pool: &[Var], outer: &Outer, c: &mut Choices) -> Result<Var> {
    let a = pool[c.below(pool.len())];
    let b = pool[c.below(pool.len())];
    let small = |tape: &mut Tape, x: Var| {
        let by = tape.scalar(x, 0.4)?;
        mul(tape, x, by)
    };
    match c.below(14) {
        0 => add(tape, a, b).and_then(|y| small(tape, y)),
        1 => mul(tape, a, b),
        2 => {
            let x = real(tape, a)?;
            tanh(tape, x)
        }
        3 => {
            let flags =
                MatMul { transpose_b: c.below(2) == 1, conj_a: c.below(2) == 1, conj_b: c.below(2) == 1 };
            let matrix = if c.below(2) == 1 { outer.real_matrix } else { outer.complex_matrix };
            // Sometimes a product of matrices, which leaves the loop.
            let matrix = if c.below(2) == 1 { matmul_with(tape, matrix, matrix, flags)? } else { matrix };
            let y = matmul_with(tape, a, matrix, flags)?;
            small(tape, y)
        }
        4 => neg(tape, a),
        5 => conj(tape, a),
        6 => imag(tape, a),
        7 => times_i(tape, a),
        8 => {
            // Chosen by a value that does not move: its sign would be a kink.
            let (fixed, zero) = (real(tape, outer.values[0])?, tape.scalar(a, 0.0)?);
            let fixed = stop_gradient(tape, fixed)?;
            let condition = select(tape, fixed, fixed, zero)?;
            select(tape, condition, a, b)
        }
        9 => {
            let left = layout(tape, a, Layout::Slice { axis: 0, start: 1, len: 2 })?;
            let right = layout(tape, a, Layout::Slice { axis: 0, start: 0, len: 1 })?;
            concat(tape, &[left, right], 0)
        }
        10 => layout(tape, a, Layout::Flip { axis: 0 }),
        11 => {
            let part = layout(tape, a, Layout::Slice { axis: 0, start: 0, len: 2 })?;
            let wide = layout(tape, part, Layout::Pad { axis: 0, before: 1, total: 4 })?;
            layout(tape, wide, Layout::Slice { axis: 0, start: 0, len: 3 })
        }
        12 => {
            // An outer product, transposed and summed.
            let column = layout(tape, a, Layout::Reshape { dims: smallvec![3, 1] })?;
            let table = mul(tape, column, b)?;
            let table = layout(tape, table, Layout::Permute { order: smallvec![1, 0] })?;
            let sum = sum_dims(tape, table, &[1, 3])?;
            let sum = layout(tape, sum, Layout::Reshape { dims: smallvec![3] })?;
            small(tape, sum)
        }
        _ => {
            let sum = sum_dims(tape, a, &[1])?;
            let sum = layout(tape, sum, Layout::Broadcast { dims: smallvec![3] })?;
            small(tape, sum)
        }
    }
}

/// A real and a complex state, a sequence for each row and a shared one.
pub(crate) fn step(
    tape: &mut Tape,
    [h, z]: [Var; 2],
    [x, s]: [Var; 2],
    outer: &Outer,
    seed: u64,
) -> Result<([Var; 2], [Var; 2])> {
    let mut c = Choices(seed);
    let mut pool = vec![h, z, x, s];
    pool.extend(&outer.values);
    for _ in 0..3 + c.below(8) {
        let v = operation(tape, &pool, outer, &mut c)?;
        pool.push(v);
    }
    let pick = |c: &mut Choices| pool[pool.len() - 1 - c.below(6)];
    let (mut new_h, new_z) = (pick(&mut c), pick(&mut c));
    new_h = real(tape, new_h)?;
    new_h = tanh(tape, new_h)?;
    let by = tape.scalar(new_z, 0.5)?;
    let mut new_z = mul(tape, new_z, by)?;
    new_z = to_complex(tape, new_z)?;
    Ok(([new_h, new_z], [pick(&mut c), pick(&mut c)]))
}

pub(crate) fn outer(tape: &mut Tape) -> Result<(Outer, [Var; 2], Vec<Var>)> {
    let real_matrix = tape.param("real_matrix", R, [3, 3])?;
    let complex_matrix = tape.param("complex_matrix", C, [3, 3])?;
    let row = tape.input("row", R, Shape::rows([3]))?;
    let bias = tape.param("bias", C, [3])?;
    let h0 = tape.param("h0", R, [3])?;
    let z0 = tape.input("z0", C, Shape::rows([3]))?;
    let wrt = vec![real_matrix, complex_matrix, row, bias, h0, z0];
    Ok((Outer { real_matrix, complex_matrix, values: vec![row, bias] }, [h0, z0], wrt))
}

/// `Σ Re(v · x)` over every axis there is.
pub(crate) fn weighted(tape: &mut Tape, x: Var, v: Var) -> Result<Var> {
    let product = mul(tape, x, v)?;
    let mut sum = real(tape, product)?;
    sum = sum_dims(tape, sum, &[])?;
    if tape.shape(sum)?.lead.has_t() {
        sum = sum_steps(tape, sum)?;
    }
    if tape.shape(sum)?.lead.has_n() { sum_rows(tape, sum) } else { Ok(sum) }
}

/// The loss, its gradients, and the gradients of the gradients' product with fixed vectors.
pub(crate) fn derivatives(tape: &mut Tape, terms: &[(Var, Var)], wrt: &[Var]) -> Result<Vec<Var>> {
    let total = |tape: &mut Tape, terms: &[(Var, Var)]| -> Result<Var> {
        let mut loss = None;
        for &(x, v) in terms {
            let term = weighted(tape, x, v)?;
            loss = Some(match loss {
                Some(loss) => add(tape, loss, term)?,
                None => term,
            });
        }
        Ok(loss.unwrap())
    };
    let loss = total(tape, terms)?;
    let gradients = grad(tape, loss, wrt)?;
    let mut products = Vec::new();
    for (&g, &w) in gradients.iter().zip(wrt) {
        let name = tape.inputs().chain(tape.params()).find(|(_, v, _)| *v == w).unwrap().0.to_string();
        let ty = tape.ty(w)?.clone();
        products.push((g, tape.input(&format!("v_{name}"), ty.dtype, ty.shape)?));
    }
    let projected = total(tape, &products)?;
    let seconds = grad(tape, projected, wrt)?;
    Ok(std::iter::once(loss).chain(gradients).chain(seconds).collect())
}

pub(crate) fn at_step(all: &Tensor, t: usize) -> Tensor {
    let mut part = Tensor::zeros(all.dtype(), &all.dims()[1..]).unwrap();
    let len = part.len();
    part.fill_with(|i| all.get(t * len + i));
    part
}

pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) rows: usize,
    pub(crate) reverse: bool,
    pub(crate) lengths: Option<Vec<i32>>,
}

pub(crate) fn case(seed: u64) -> Case {
    let mut c = Choices(seed ^ 0x5eed);
    let (steps, rows) = (1 + c.below(4), 1 + c.below(3));
    let reverse = c.below(3) == 0;
    let lengths = (c.below(2) == 0).then(|| (0..rows).map(|_| c.below(steps + 1) as i32).collect());
    Case { seed, steps, rows, reverse, lengths }
}

pub(crate) fn looped(case: &Case) -> Result<(Tape, Vec<Var>, Vec<Var>, Vec<Var>)> {
    let mut tape = Tape::new();
    let (o, start, mut wrt) = outer(&mut tape)?;
    let x = tape.input("x", R, Shape::sequence([3]))?;
    let s = tape.input("s", C, Shape::steps([3]))?;
    let lengths = match case.lengths {
        Some(_) => Some(tape.input("lengths", DType::I32, Shape::rows([]))?),
        None => None,
    };
    let scan = Scan::new().reverse(case.reverse).lengths(lengths);
    let ([h, z], ys) = scan.run(&mut tape, start, [x, s], |t, h, x| step(t, h, x, &o, case.seed))?;
    wrt.extend([x, s]);
    let mut outputs = vec![h, z];
    outputs.extend(ys);
    let mut terms = Vec::new();
    for (&v, name) in outputs.iter().zip(["u_h", "u_z", "u_y0", "u_y1"]) {
        // Stacked outputs may lack the row axis, or be real.
        let ty = tape.ty(v)?.clone();
        terms.push((v, tape.input(&format!("{name}_{}", ty.shape.lead.has_n()), C, ty.shape)?));
    }
    let d = derivatives(&mut tape, &terms, &wrt)?;
    Ok((tape, outputs, wrt, d))
}

pub(crate) fn bindings(case: &Case) -> Result<Params> {
    let (t, n) = (case.steps, case.rows);
    let mut data = params([]);
    for (i, (name, dtype, shape)) in [
        ("real_matrix", R, Shape::shared([3, 3])),
        ("complex_matrix", C, Shape::shared([3, 3])),
        ("row", R, Shape::rows([3])),
        ("bias", C, Shape::shared([3])),
        ("h0", R, Shape::shared([3])),
        ("z0", C, Shape::rows([3])),
        ("x", R, Shape::sequence([3])),
        ("s", C, Shape::steps([3])),
        ("u_h_true", C, Shape::rows([3])),
        ("u_z_true", C, Shape::rows([3])),
        ("u_y0_true", C, Shape::sequence([3])),
        ("u_y1_true", C, Shape::sequence([3])),
        ("u_y0_false", C, Shape::steps([3])),
        ("u_y1_false", C, Shape::steps([3])),
    ]
    .into_iter()
    .enumerate()
    {
        data.insert(name, random(dtype, &shape.concrete(t, n), case.seed * 100 + i as u64 + 1)?);
        if i < 8 {
            data.insert(
                format!("v_{name}"),
                random(dtype, &shape.concrete(t, n), case.seed * 100 + i as u64 + 51)?,
            );
        }
    }
    if let Some(lengths) = &case.lengths {
        data.insert("lengths", Tensor::from_slice([n], lengths)?);
    }
    for t in 0..t {
        for name in ["x", "s", "v_x", "v_s", "u_y0_true", "u_y1_true", "u_y0_false", "u_y1_false"] {
            let part = at_step(data.require(name)?, t);
            data.insert(format!("{name}_{t}"), part);
        }
        let running = |n: usize| case.lengths.as_ref().is_none_or(|l| (t as i32) < l[n]);
        let mut mask = Tensor::zeros(R, [n, 1])?;
        mask.fill_with(|i| (running(i) as i32 as f64).into());
        data.insert(format!("mask_{t}"), mask);
    }
    Ok(data)
}
