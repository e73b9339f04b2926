//! Code against the loops over blocks, bit for bit.

use super::super::tests::{Random, UNARY, random_program, same, strides};
use super::super::{Compiled, In, Out};
use super::*;
use crate::cpu::real::hooks::Hooks;
use crate::expr::{Binary, Instr, ScalarProgram, Unary};

/// Mostly in [-2, 2), sometimes from the ends of the range.
fn number<R: Real>(rng: &mut Random) -> R {
    let ends = [0.0, -0.0, 1.0, -1.0, 1e-310, -1e-40, 1e-39, 1e30, -3e38, 1e300, 7e4, 88.0, -104.0, 1e6];
    let special = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    R::from_f64(match rng.below(12) {
        0 => ends[rng.below(ends.len())],
        1 if rng.below(4) == 0 => special[rng.below(3)],
        _ => rng.number(),
    })
}

/// Operands over a domain, and results before they are written.
struct Domain<R> {
    rows: usize,
    width: usize,
    layout: Vec<(usize, usize)>,
    data: Vec<Vec<R>>,
    out_stride: usize,
    stores: usize,
    stream: bool,
}

impl<R: Real> Domain<R> {
    fn random(rng: &mut Random, program: &ScalarProgram) -> Domain<R> {
        let width = [8, 9, 16, 17, 31, 48, 64, 100, 128, 255, 256, 257, 600, 1300][rng.below(14)];
        let rows = [1, 2, 3, 7, 40][rng.below(5)];
        let layout: Vec<_> = (0..program.loads).map(|_| strides(rng, width)).collect();
        let room = |rs: usize| rows * rs + width;
        let data = layout.iter().map(|&(rs, _)| (0..room(rs)).map(|_| number(rng)).collect()).collect();
        let out_stride = width + [0, 3][rng.below(2)];
        let stream = rng.below(2) == 0;
        Domain { rows, width, layout, data, out_stride, stores: program.stores, stream }
    }

    /// Results, each with its gaps, after `run` has done with the program.
    fn results(&self, program: &Compiled, mut run: impl FnMut(&mut RunArgs<'_, R>)) -> Vec<Vec<R>> {
        // Aligned, so that streaming stores are tried too.
        let len = self.rows * self.out_stride;
        let mut room = vec![vec![R::from_f64(7.5); len + VECTOR]; self.stores];
        let mut results: Vec<&mut [R]> = room
            .iter_mut()
            .map(|v| {
                let at = v.as_ptr().align_offset(VECTOR);
                &mut v[at..at + len]
            })
            .collect();
        let ins: Vec<_> = self
            .data
            .iter()
            .zip(&self.layout)
            .map(|(d, &(row_stride, col_stride))| In { ptr: d.as_ptr(), row_stride, col_stride })
            .collect();
        let outs: Vec<_> = results
            .iter_mut()
            .map(|d| Out { ptr: d.as_mut_ptr(), row_stride: self.out_stride, stream: self.stream })
            .collect();
        let mut scratch = vec![R::ZERO; program.scratch_len()];
        let (rows, width) = (self.rows, self.width);
        run(&mut RunArgs { program, rows, width, ins: &ins, outs: &outs, scratch: &mut scratch });
        results.into_iter().map(|r| r.to_vec()).collect()
    }
}

/// By the loops over blocks.
fn blocks<R: Real>(domain: &Domain<R>, program: &Compiled) -> Vec<Vec<R>> {
    domain.results(program, |args| {
        let RunArgs { program, rows, width, ins, outs, ref mut scratch } = *args;
        // SAFETY: the vectors are as long as the strides need, and distinct.
        unsafe { R::pointwise(Isa::Avx512, RunArgs { program, rows, width, ins, outs, scratch }) }
    })
}

/// By code, and whether there was some.
fn code<R: Real>(domain: &Domain<R>, program: &Compiled) -> (Vec<Vec<R>>, bool) {
    let mut ran = false;
    let results = domain.results(program, |args| {
        // SAFETY: the vectors are as long as the strides need, and distinct. The first call only makes the code.
        ran = unsafe { run_code(Isa::Avx512, args) || run_code(Isa::Avx512, args) };
    });
    (results, ran)
}

fn compare<R: Real>(what: &str, domain: &Domain<R>, program: &Compiled) -> bool {
    let (got, ran) = code(domain, program);
    if ran {
        for (s, (got, expected)) in got.iter().zip(blocks(domain, program)).enumerate() {
            for (i, (&g, e)) in got.iter().zip(expected).enumerate() {
                let (row, column) = (i / domain.out_stride, i % domain.out_stride);
                assert!(same(g, e), "{what} result {s} at {row},{column}: {g}, by blocks {e}");
            }
        }
    }
    ran
}

fn random_programs<R: Real>(seed: u64) {
    let mut rng = Random(seed);
    let mut by_code = 0;
    for case in 0..1500 {
        let program = random_program(&mut rng);
        let compiled = Compiled::new(&program);
        let domain = Domain::<R>::random(&mut rng, &program);
        by_code += usize::from(compare(&format!("case {case} {program:?}"), &domain, &compiled));
    }
    assert!(by_code > 700, "only {by_code} of 1500 programs became code");
}

#[test]
fn code_gives_the_bits_of_the_loops_over_blocks() {
    if Isa::Avx512.is_available() {
        random_programs::<f32>(5);
        random_programs::<f64>(6);
    }
}

/// More values at once than there are registers, more operands than pointers have registers.
#[test]
fn values_without_a_register_are_kept_in_memory() {
    if !Isa::Avx512.is_available() {
        return;
    }
    let n: u16 = 50;
    let mut instrs: Vec<_> = (0..n).map(|slot| Instr::Load { dst: slot, slot }).collect();
    // All of them, before any of them is read.
    instrs.extend((0..n).map(|i| Instr::Binary { op: Binary::Mul, dst: n + i, a: i, b: (i + 1) % n }));
    instrs.extend((0..n).map(|i| Instr::Binary {
        op: Binary::Sub,
        dst: 2 * n + i,
        a: n + i,
        b: if i == 0 { 2 * n - 1 } else { 2 * n + i - 1 },
    }));
    instrs.push(Instr::Store { slot: 0, src: 3 * n - 1 });
    let program = ScalarProgram { instrs, registers: usize::from(3 * n), loads: usize::from(n), stores: 1 };
    let compiled = Compiled::new(&program);
    let mut rng = Random(9);
    for _ in 0..20 {
        let domain = Domain::<f32>::random(&mut rng, &program);
        assert!(compare("many values", &domain, &compiled));
    }
    let mut versions = compiled.jit.0.versions.iter().filter_map(|v| v.get());
    assert!(versions.any(|v| v.code.as_ref().is_some_and(|m| m.spills > 0)), "nothing was spilled");
}

/// Every function alone; roots of sums of squares that leave the range stop the code at their guard.
#[test]
fn every_function_becomes_code_but_powers() {
    if !Isa::Avx512.is_available() {
        return;
    }
    let mut rng = Random(21);
    for op in UNARY {
        let instrs = vec![
            Instr::Load { dst: 0, slot: 0 },
            Instr::Unary { op, dst: 1, a: 0 },
            Instr::Store { slot: 0, src: 1 },
        ];
        let program = ScalarProgram { instrs, registers: 2, loads: 1, stores: 1 };
        let compiled = Compiled::new(&program);
        let domain = Domain::<f32>::random(&mut rng, &program);
        assert!(compare(&format!("{op:?}"), &domain, &compiled));
        let domain = Domain::<f64>::random(&mut rng, &program);
        assert!(compare(&format!("{op:?}"), &domain, &compiled));
    }
    for (op, becomes) in [(Binary::Hypot, true), (Binary::RecipHypot, true), (Binary::Pow, false)] {
        let instrs = vec![
            Instr::Load { dst: 0, slot: 0 },
            Instr::Load { dst: 1, slot: 1 },
            Instr::Binary { op, dst: 2, a: 0, b: 1 },
            Instr::Unary { op: Unary::Sin, dst: 3, a: 2 },
            Instr::Store { slot: 0, src: 3 },
        ];
        let program = ScalarProgram { instrs, registers: 4, loads: 2, stores: 1 };
        let compiled = Compiled::new(&program);
        for _ in 0..30 {
            let domain = Domain::<f32>::random(&mut rng, &program);
            assert_eq!(compare(&format!("{op:?}"), &domain, &compiled), becomes, "{op:?}");
        }
    }
}

/// A result over its operand, where a guard stops the code in the middle: nothing is read after it was overwritten.
#[test]
fn what_a_guard_stops_is_not_half_written() {
    if !Isa::Avx512.is_available() {
        return;
    }
    let instrs = vec![
        Instr::Load { dst: 0, slot: 0 },
        Instr::Load { dst: 1, slot: 1 },
        Instr::Binary { op: Binary::Add, dst: 2, a: 0, b: 1 },
        Instr::Binary { op: Binary::Hypot, dst: 3, a: 2, b: 1 },
        Instr::Store { slot: 0, src: 2 },
        Instr::Store { slot: 1, src: 3 },
    ];
    let compiled = Compiled::new(&ScalarProgram { instrs, registers: 4, loads: 2, stores: 2 });
    let n = 2000;
    let run = |by_code: bool| {
        let mut x: Vec<f32> = (0..n).map(|i| if i % 301 == 7 { 1e-33 } else { i as f32 }).collect();
        let mut y = vec![1e-34f32; n];
        let mut scratch = vec![0f32; compiled.scratch_len()];
        let (px, py) = (x.as_mut_ptr(), y.as_mut_ptr());
        let at = |ptr: *const f32| In { ptr, row_stride: n, col_stride: 1 };
        let to = |ptr: *mut f32| Out { ptr, row_stride: n, stream: false };
        let (ins, outs) = ([at(px), at(py)], [to(px), to(py)]);
        let mut args =
            RunArgs { program: &compiled, rows: 1, width: n, ins: &ins, outs: &outs, scratch: &mut scratch };
        // SAFETY: the vectors have `n` elements; results are operands. The first call only makes the code.
        unsafe {
            if by_code {
                assert!(!run_code(Isa::Avx512, &mut args) && run_code(Isa::Avx512, &mut args));
            } else {
                <f32 as Hooks>::pointwise(Isa::Avx512, args);
            }
        }
        (x, y)
    };
    assert_eq!(run(true), run(false));
}
