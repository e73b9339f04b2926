//! Random programs over random domains: against one element at a time, bit for bit, and against f64.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::expr::{Binary, Instr, Reg, Ternary, Unary};

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }
    /// In [-2, 2).
    pub(super) fn number(&mut self) -> f64 {
        self.below(1 << 30) as f64 / (1u64 << 28) as f64 - 2.0
    }
}

pub(super) const UNARY: [Unary; 15] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Sqrt,
    Unary::Recip,
    Unary::Exp,
    Unary::Expm1,
    Unary::Log,
    Unary::Log1p,
    Unary::Sin,
    Unary::Cos,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Softplus,
    Unary::Floor,
];
const BINARY: [Binary; 12] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Min,
    Binary::Pow,
    Binary::Hypot,
    Binary::RecipHypot,
    Binary::Lt,
    Binary::Le,
    Binary::Eq,
];

pub(super) fn random_program(rng: &mut Random) -> ScalarProgram {
    let mut instrs = Vec::new();
    let mut next: Reg = 0;
    let (loads, stores) = (1 + rng.below(4), 1 + rng.below(3));
    for slot in 0..loads as u16 {
        instrs.push(Instr::Load { dst: next, slot });
        next += 1;
    }
    for _ in 0..2 {
        instrs.push(Instr::Const { dst: next, value: rng.number() });
        next += 1;
    }
    for _ in 0..rng.below(25) {
        let [a, b, c] = [(); 3].map(|()| rng.below(usize::from(next)) as Reg);
        let dst = next;
        instrs.push(match rng.below(3) {
            0 => Instr::Unary { op: UNARY[rng.below(UNARY.len())], dst, a },
            1 => Instr::Binary { op: BINARY[rng.below(BINARY.len())], dst, a, b },
            _ if rng.below(2) == 0 => Instr::Ternary { op: Ternary::Select, dst, a, b, c },
            _ if rng.below(2) == 0 => Instr::Ternary { op: Ternary::NegMulAdd, dst, a, b, c },
            _ => Instr::Ternary { op: Ternary::MulAdd, dst, a, b, c },
        });
        next += 1;
    }
    for slot in 0..stores as u16 {
        instrs.push(Instr::Store { slot, src: rng.below(usize::from(next)) as Reg });
    }
    ScalarProgram { instrs, registers: usize::from(next), loads, stores }
}

/// One element by the definition of the instructions, in f64.
fn evaluate(program: &ScalarProgram, ins: &[f64]) -> Vec<f64> {
    let mut r = vec![0.0; program.registers];
    let mut out = vec![0.0; program.stores];
    let truth = |b: bool| if b { 1.0 } else { 0.0 };
    for instr in &program.instrs {
        match *instr {
            Instr::Const { dst, value } => r[usize::from(dst)] = value,
            Instr::Load { dst, slot } => r[usize::from(dst)] = ins[usize::from(slot)],
            Instr::Store { slot, src } => out[usize::from(slot)] = r[usize::from(src)],
            Instr::Unary { op, dst, a } => {
                let x: f64 = r[usize::from(a)];
                r[usize::from(dst)] = match op {
                    Unary::Neg => -x,
                    Unary::Abs => x.abs(),
                    Unary::Sign if x == 0.0 => 0.0,
                    Unary::Sign => x.signum(),
                    Unary::Sqrt => x.sqrt(),
                    Unary::Recip => 1.0 / x,
                    Unary::Exp => x.exp(),
                    Unary::Expm1 => x.exp_m1(),
                    Unary::Log => x.ln(),
                    Unary::Log1p => x.ln_1p(),
                    Unary::Sin => x.sin(),
                    Unary::Cos => x.cos(),
                    Unary::Tanh => x.tanh(),
                    Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                    Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p() + x * 0.0,
                    Unary::Floor => x.floor(),
                };
            }
            Instr::Binary { op, dst, a, b } => {
                let (x, y): (f64, f64) = (r[usize::from(a)], r[usize::from(b)]);
                let nan = x.is_nan() || y.is_nan();
                r[usize::from(dst)] = match op {
                    Binary::Add => x + y,
                    Binary::Sub => x - y,
                    Binary::Mul => x * y,
                    Binary::Div => x / y,
                    Binary::Max | Binary::Min if nan => f64::NAN,
                    Binary::Max => x.max(y),
                    Binary::Min => x.min(y),
                    Binary::Pow => x.powf(y),
                    Binary::Hypot => x.hypot(y),
                    Binary::RecipHypot => {
                        Some(1.0 / x.hypot(y)).filter(|y| *y != f64::INFINITY).unwrap_or(0.0)
                    }
                    Binary::Lt => truth(x < y),
                    Binary::Le => truth(x <= y),
                    Binary::Eq => truth(x == y),
                };
            }
            Instr::Ternary { op, dst, a, b, c } => {
                let (x, y, z) = (r[usize::from(a)], r[usize::from(b)], r[usize::from(c)]);
                r[usize::from(dst)] = match op {
                    Ternary::MulAdd => x.mul_add(y, z),
                    Ternary::NegMulAdd => (-x).mul_add(y, z),
                    Ternary::Select => {
                        if x == 0.0 {
                            z
                        } else {
                            y
                        }
                    }
                };
            }
        }
    }
    out
}

pub(super) fn same<R: Real>(a: R, b: R) -> bool {
    let (a, b) = (a.to_f64(), b.to_f64());
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Strides of an operand over `rows` × `width`, with room for all of it.
pub(super) fn strides(rng: &mut Random, width: usize) -> (usize, usize) {
    match rng.below(5) {
        0 => (0, 0),
        1 => (0, 1),
        2 => (1 + rng.below(3), 0),
        3 => (width, 1),
        _ => (width + rng.below(5), 1),
    }
}

fn random_domains<R: Real>(isa: Isa, seed: u64) {
    let mut rng = Random(seed * 2 + 1);
    for case in 0..300 {
        let program = random_program(&mut rng);
        let compiled = Compiled::new(&program);
        let width = [1, 2, 3, 5, 8, 16, 17, 31, 48, 64, 100, 128, 255, 256, 257, 600][rng.below(16)];
        let rows = [1, 2, 3, 7, 40][rng.below(5)];
        let layout: Vec<_> = (0..program.loads).map(|_| strides(&mut rng, width)).collect();
        let data: Vec<Vec<R>> = layout
            .iter()
            .map(|&(rs, _)| (0..rows * rs + width).map(|_| R::from_f64(rng.number())).collect())
            .collect();
        let gap = if rng.below(2) == 0 { 0 } else { 3 };
        let out_stride = width + gap;
        let mut results = vec![vec![R::from_f64(7.5); rows * out_stride]; program.stores];
        let ins: Vec<_> = data
            .iter()
            .zip(&layout)
            .map(|(d, &(row_stride, col_stride))| In { ptr: d.as_ptr(), row_stride, col_stride })
            .collect();
        let outs: Vec<_> = results
            .iter_mut()
            .map(|d| Out { ptr: d.as_mut_ptr(), row_stride: out_stride, stream: false })
            .collect();
        let mut scratch = vec![R::from_f64(f64::NAN); compiled.scratch_len()];
        // SAFETY: the vectors are as long as the strides need, and distinct.
        unsafe { compiled.run(isa, rows, width, &ins, &outs, &mut scratch) };
        for r in 0..rows {
            for c in 0..width {
                let here: Vec<R> =
                    data.iter().zip(&layout).map(|(d, &(rs, cs))| d[r * rs + c * cs]).collect();
                let slices: Vec<&[R]> = here.iter().map(std::slice::from_ref).collect();
                let mut alone = vec![R::ZERO; program.stores];
                compiled.run_slices(
                    isa,
                    &slices,
                    &mut alone.iter_mut().map(std::slice::from_mut).collect::<Vec<_>>(),
                );
                for (s, &y) in alone.iter().enumerate() {
                    let got = results[s][r * out_stride + c];
                    assert!(
                        same(got, y),
                        "{isa} case {case} [{rows},{width}] at {r},{c} result {s}: {got}, alone {y}"
                    );
                }
            }
            for (s, result) in results.iter().enumerate() {
                let beyond = &result[r * out_stride + width..][..gap];
                assert!(
                    beyond.iter().all(|x| x.to_f64() == 7.5),
                    "{isa} case {case}: result {s} wrote beyond its row"
                );
            }
        }
    }
}

#[test]
fn an_element_does_not_depend_on_its_place() {
    for isa in Isa::available() {
        random_domains::<f32>(isa, 11);
        random_domains::<f64>(isa, 12);
    }
}

#[test]
fn programs_do_what_their_instructions_say() {
    let mut rng = Random(77);
    for _ in 0..400 {
        let program = random_program(&mut rng);
        let compiled = Compiled::new(&program);
        let ins: Vec<f64> = (0..program.loads).map(|_| rng.number()).collect();
        // Programs may amplify errors without bound: compare only where a disturbed input gives about the same.
        let disturbed: Vec<f64> = ins.iter().map(|x| x * (1.0 + 1e-13)).collect();
        let (expected, moved) = (evaluate(&program, &ins), evaluate(&program, &disturbed));
        for isa in Isa::available() {
            let slices: Vec<&[f64]> = ins.iter().map(std::slice::from_ref).collect();
            let mut got = vec![0.0; program.stores];
            compiled.run_slices(
                isa,
                &slices,
                &mut got.iter_mut().map(std::slice::from_mut).collect::<Vec<_>>(),
            );
            for ((&g, &e), &m) in got.iter().zip(&expected).zip(&moved) {
                let stable = (e - m).abs() <= 1e-10 * e.abs();
                let close = g == e || (g.is_nan() && e.is_nan()) || (g - e).abs() <= 1e-9 * e.abs();
                assert!(close || !stable, "{isa} {program:?} of {ins:?}: {g}, expected {e}");
            }
        }
    }
}

/// `h = tanh(a) + b`, `a` stored after `h` has overwritten the operand.
#[test]
fn a_result_may_be_an_operand() {
    let program = ScalarProgram {
        instrs: vec![
            Instr::Load { dst: 0, slot: 0 },
            Instr::Load { dst: 1, slot: 1 },
            Instr::Unary { op: Unary::Neg, dst: 2, a: 0 },
            Instr::Store { slot: 0, src: 2 },
            Instr::Store { slot: 1, src: 0 },
            Instr::Binary { op: Binary::Add, dst: 3, a: 0, b: 1 },
            Instr::Store { slot: 2, src: 3 },
        ],
        registers: 4,
        loads: 2,
        stores: 3,
    };
    let compiled = Compiled::new(&program);
    for isa in Isa::available() {
        for (rows, width) in [(1, 700), (5, 3), (4, 64), (3, 300)] {
            let n = rows * width;
            let mut x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let mut y = vec![0.5f32; n];
            let mut z = vec![0f32; n];
            let (px, py) = (x.as_mut_ptr(), y.as_mut_ptr());
            let at = |ptr: *const f32| In { ptr, row_stride: width, col_stride: 1 };
            let to = |ptr: *mut f32| Out { ptr, row_stride: width, stream: false };
            let mut scratch = vec![0.0; compiled.scratch_len()];
            // SAFETY: the vectors have `n` elements; results are operands or distinct.
            unsafe {
                let outs = [to(px), to(py), to(z.as_mut_ptr())];
                compiled.run(isa, rows, width, &[at(px), at(py)], &outs, &mut scratch);
            }
            for i in 0..n {
                assert_eq!(
                    (x[i], y[i], z[i]),
                    (-(i as f32), i as f32, i as f32 + 0.5),
                    "{isa} {rows}x{width} {i}"
                );
            }
        }
    }
}

#[test]
fn registers_share_slots() {
    let mut instrs = vec![Instr::Load { dst: 0, slot: 0 }];
    for i in 0..40 {
        instrs.push(Instr::Unary { op: Unary::Tanh, dst: i + 1, a: i });
    }
    instrs.push(Instr::Unary { op: Unary::Exp, dst: 41, a: 3 }); // not used
    instrs.push(Instr::Store { slot: 0, src: 40 });
    let compiled = Compiled::new(&ScalarProgram { instrs, registers: 42, loads: 1, stores: 1 });
    // One for all that is not stored, one for the result.
    assert_eq!((compiled.slots, compiled.steps.len()), (2, 41));
}

/// The gates of an LSTM from pre-activations `[rows, 4H]` and `c [rows, H]`, storing gates, `c` and `h`.
fn lstm() -> ScalarProgram {
    let mut instrs: Vec<_> = (0..6).map(|i| Instr::Load { dst: i, slot: i }).collect();
    let unary = |op, dst, a| Instr::Unary { op, dst, a };
    let binary = |op, dst, a, b| Instr::Binary { op, dst, a, b };
    instrs.extend([
        unary(Unary::Sigmoid, 6, 0),
        unary(Unary::Sigmoid, 7, 1),
        unary(Unary::Tanh, 8, 2),
        binary(Binary::Add, 15, 3, 5),
        unary(Unary::Sigmoid, 9, 15),
        binary(Binary::Mul, 10, 6, 8),
        binary(Binary::Mul, 11, 7, 4),
        binary(Binary::Add, 12, 10, 11),
        unary(Unary::Tanh, 13, 12),
        binary(Binary::Mul, 14, 9, 13),
    ]);
    for (slot, src) in [6, 7, 8, 9, 12, 14].into_iter().enumerate() {
        instrs.push(Instr::Store { slot: slot as u16, src });
    }
    ScalarProgram { instrs, registers: 16, loads: 6, stores: 6 }
}

/// Prints times; `cargo test --release -p retrograd-engine pointwise_rates -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn pointwise_rates() {
    fn best(n: usize, mut f: impl FnMut()) -> f64 {
        (0..200)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..20).for_each(|_| f());
                start.elapsed().as_secs_f64() / 20.0 / n as f64 * 1e9
            })
            .fold(f64::INFINITY, f64::min)
    }
    for isa in Isa::available() {
        for op in UNARY {
            let program = ScalarProgram {
                instrs: vec![
                    Instr::Load { dst: 0, slot: 0 },
                    Instr::Unary { op, dst: 1, a: 0 },
                    Instr::Store { slot: 0, src: 1 },
                ],
                registers: 2,
                loads: 1,
                stores: 1,
            };
            let compiled = Compiled::new(&program);
            let x: Vec<f32> = (0..4096).map(|i| i as f32 / 1000.0).collect();
            let mut y = vec![0f32; x.len()];
            let single = best(x.len(), || compiled.run_slices(isa, &[&x], &mut [&mut y]));
            let x: Vec<f64> = (0..4096).map(|i| f64::from(i) / 1000.0).collect();
            let mut y = vec![0f64; x.len()];
            let double = best(x.len(), || compiled.run_slices(isa, &[&x], &mut [&mut y]));
            println!("{isa} {op:?}: {single:.3} ns an element in f32, {double:.3} in f64");
        }
        for (rows, h) in [(50, 128), (50, 100), (50, 10), (1, 128), (200, 1)] {
            let compiled = Compiled::new(&lstm());
            let z: Vec<f32> = (0..rows * 4 * h).map(|i| (i % 97) as f32 / 30.0 - 1.5).collect();
            let c = vec![0.3f32; rows * h];
            let bias = vec![0.2f32; h];
            let mut gates = vec![0f32; rows * 4 * h];
            let mut states = vec![0f32; rows * 2 * h];
            let mut scratch = vec![0f32; compiled.scratch_len()];
            let spent = best(rows * h, || {
                let gate = |i: usize| In { ptr: z[i * h..].as_ptr(), row_stride: 4 * h, col_stride: 1 };
                let ins = [
                    gate(0),
                    gate(1),
                    gate(2),
                    gate(3),
                    In { ptr: c.as_ptr(), row_stride: h, col_stride: 1 },
                    In { ptr: bias.as_ptr(), row_stride: 0, col_stride: 1 },
                ];
                let mut outs: Vec<_> = (0..4)
                    .map(|i| Out { ptr: gates[i * h..].as_mut_ptr(), row_stride: 4 * h, stream: false })
                    .collect();
                outs.extend((0..2).map(|i| Out {
                    ptr: states[i * rows * h..].as_mut_ptr(),
                    row_stride: h,
                    stream: false,
                }));
                // SAFETY: the vectors are as long as the strides need.
                unsafe { compiled.run(isa, rows, h, &ins, &outs, &mut scratch) };
            });
            println!("{isa} lstm f32 rows={rows} H={h}: {spent:.2} ns an element");
        }
    }
}
