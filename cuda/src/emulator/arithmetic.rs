//! What operations on registers compute, by name.
//!
//! A register is 64 bits of which an operation uses the low ones its type has. The approximations of the special
//! function unit (`ex2.approx`, `rcp.approx`, …) are computed in double precision and rounded once, which is closer to
//! the exact value than a chip is; denormal numbers are not flushed where `.ftz` would allow it.

use half::{bf16, f16};

use super::program::{Factors, Instruction};

/// An operation on the registers of a thread.
pub(super) type Alu = fn(&mut [u64], &Instruction);

/// A type that lives in the low bits of a register.
trait Slot: Copy {
    fn get(bits: u64) -> Self;
    fn put(self) -> u64;
}

macro_rules! slots {
    ($($ty:ty: |$bits:ident| $get:expr, |$value:ident| $put:expr;)*) => {$(
        impl Slot for $ty {
            #[inline(always)]
            fn get($bits: u64) -> $ty { $get }
            #[inline(always)]
            fn put(self) -> u64 { let $value = self; $put }
        }
    )*};
}

slots! {
    f32: |b| f32::from_bits(b as u32), |v| u64::from(v.to_bits());
    f64: |b| f64::from_bits(b), |v| v.to_bits();
    u8: |b| b as u8, |v| u64::from(v);
    u16: |b| b as u16, |v| u64::from(v);
    u32: |b| b as u32, |v| u64::from(v);
    u64: |b| b, |v| v;
    i8: |b| b as i8, |v| v as u64;
    i16: |b| b as i16, |v| v as u64;
    i32: |b| b as i32, |v| u64::from(v as u32);
    i64: |b| b as i64, |v| v as u64;
    bool: |b| b != 0, |v| u64::from(v);
}

/// A function of one to four registers into one, as a function pointer.
macro_rules! op {
    (|$a:ident: $A:ty| $e:expr) => {{
        fn run(r: &mut [u64], i: &Instruction) {
            let $a = <$A>::get(r[i.a as usize]);
            r[i.d as usize] = ($e).put();
        }
        Some(run as Alu)
    }};
    (|$a:ident: $A:ty, $b:ident: $B:ty| $e:expr) => {{
        fn run(r: &mut [u64], i: &Instruction) {
            let ($a, $b) = (<$A>::get(r[i.a as usize]), <$B>::get(r[i.b as usize]));
            r[i.d as usize] = ($e).put();
        }
        Some(run as Alu)
    }};
    (|$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| $e:expr) => {{
        fn run(r: &mut [u64], i: &Instruction) {
            let ($a, $b) = (<$A>::get(r[i.a as usize]), <$B>::get(r[i.b as usize]));
            let $c = <$C>::get(r[i.c as usize]);
            r[i.d as usize] = ($e).put();
        }
        Some(run as Alu)
    }};
}

/// The function of an operation without its rounding, `None` if there is none.
pub(super) fn alu(op: &str) -> Option<Alu> {
    let parts: Vec<&str> = op.split('.').collect();
    let ty = *parts.last()?;
    let has = |word: &str| parts[1..].contains(&word);
    match parts[0] {
        "mov" | "cvta" => match ty {
            "pred" => op!(|a: bool| a),
            "f32" | "b32" | "u32" | "s32" => op!(|a: u32| a),
            "b16" | "u16" | "s16" => op!(|a: u16| a),
            _ => op!(|a: u64| a),
        },
        "setp" if has("and") || has("or") || has("xor") => None,
        "setp" => compare(parts[1], ty),
        "selp" => match ty {
            "f32" | "b32" | "u32" | "s32" => op!(|a: u32, b: u32, p: bool| if p { a } else { b }),
            "b16" | "u16" | "s16" => op!(|a: u16, b: u16, p: bool| if p { a } else { b }),
            _ => op!(|a: u64, b: u64, p: bool| if p { a } else { b }),
        },
        "cvt" => convert(&parts),
        _ if ty == "f32" => float32(parts[0], has("sat")),
        _ if ty == "f64" => float64(parts[0]),
        _ if ty == "pred" => match parts[0] {
            "and" => op!(|a: bool, b: bool| a & b),
            "or" => op!(|a: bool, b: bool| a | b),
            "xor" => op!(|a: bool, b: bool| a ^ b),
            "not" => op!(|a: bool| !a),
            _ => None,
        },
        name => integer(name, ty, has("wide"), has("hi")),
    }
}

fn float32(name: &str, saturate: bool) -> Option<Alu> {
    if saturate {
        return match name {
            "add" => op!(|a: f32, b: f32| (a + b).clamp(0.0, 1.0)),
            "mul" => op!(|a: f32, b: f32| (a * b).clamp(0.0, 1.0)),
            "fma" => op!(|a: f32, b: f32, c: f32| a.mul_add(b, c).clamp(0.0, 1.0)),
            _ => None,
        };
    }
    match name {
        "add" => op!(|a: f32, b: f32| a + b),
        "sub" => op!(|a: f32, b: f32| a - b),
        "mul" => op!(|a: f32, b: f32| a * b),
        "div" => op!(|a: f32, b: f32| a / b),
        "fma" => op!(|a: f32, b: f32, c: f32| a.mul_add(b, c)),
        "neg" => op!(|a: f32| -a),
        "abs" => op!(|a: f32| a.abs()),
        "min" => op!(|a: f32, b: f32| a.min(b)),
        "max" => op!(|a: f32, b: f32| a.max(b)),
        "sqrt" => op!(|a: f32| a.sqrt()),
        "rcp" => op!(|a: f32| (1.0 / f64::from(a)) as f32),
        "rsqrt" => op!(|a: f32| (1.0 / f64::from(a).sqrt()) as f32),
        "ex2" => op!(|a: f32| f64::from(a).exp2() as f32),
        "lg2" => op!(|a: f32| f64::from(a).log2() as f32),
        "tanh" => op!(|a: f32| f64::from(a).tanh() as f32),
        "sin" => op!(|a: f32| f64::from(a).sin() as f32),
        "cos" => op!(|a: f32| f64::from(a).cos() as f32),
        "copysign" => op!(|a: f32, b: f32| b.copysign(a)),
        _ => None,
    }
}

fn float64(name: &str) -> Option<Alu> {
    match name {
        "add" => op!(|a: f64, b: f64| a + b),
        "sub" => op!(|a: f64, b: f64| a - b),
        "mul" => op!(|a: f64, b: f64| a * b),
        "div" => op!(|a: f64, b: f64| a / b),
        "fma" => op!(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
        "neg" => op!(|a: f64| -a),
        "abs" => op!(|a: f64| a.abs()),
        "min" => op!(|a: f64, b: f64| a.min(b)),
        "max" => op!(|a: f64, b: f64| a.max(b)),
        "sqrt" => op!(|a: f64| a.sqrt()),
        "rcp" => op!(|a: f64| 1.0 / a),
        _ => None,
    }
}

/// An operation of one kind on integers of 16, 32 and 64 bits.
macro_rules! ints {
    ($ty:expr, |$a:ident| $e:expr) => {
        match $ty {
            "u16" | "b16" => op!(|$a: u16| $e),
            "s16" => op!(|$a: i16| $e),
            "u32" | "b32" => op!(|$a: u32| $e),
            "s32" => op!(|$a: i32| $e),
            "u64" | "b64" => op!(|$a: u64| $e),
            "s64" => op!(|$a: i64| $e),
            _ => None,
        }
    };
    ($ty:expr, |$a:ident, $b:ident| $e:expr) => {
        match $ty {
            "u16" | "b16" => op!(|$a: u16, $b: u16| $e),
            "s16" => op!(|$a: i16, $b: i16| $e),
            "u32" | "b32" => op!(|$a: u32, $b: u32| $e),
            "s32" => op!(|$a: i32, $b: i32| $e),
            "u64" | "b64" => op!(|$a: u64, $b: u64| $e),
            "s64" => op!(|$a: i64, $b: i64| $e),
            _ => None,
        }
    };
    ($ty:expr, |$a:ident, $b:ident, $c:ident| $e:expr) => {
        match $ty {
            "u16" | "b16" => op!(|$a: u16, $b: u16, $c: u16| $e),
            "s16" => op!(|$a: i16, $b: i16, $c: i16| $e),
            "u32" | "b32" => op!(|$a: u32, $b: u32, $c: u32| $e),
            "s32" => op!(|$a: i32, $b: i32, $c: i32| $e),
            "u64" | "b64" => op!(|$a: u64, $b: u64, $c: u64| $e),
            "s64" => op!(|$a: i64, $b: i64, $c: i64| $e),
            _ => None,
        }
    };
}

fn integer(name: &str, ty: &str, wide: bool, high: bool) -> Option<Alu> {
    match (name, wide, high) {
        ("mul", true, _) => match ty {
            "s32" => op!(|a: i32, b: i32| i64::from(a) * i64::from(b)),
            "u32" => op!(|a: u32, b: u32| u64::from(a) * u64::from(b)),
            "s16" => op!(|a: i16, b: i16| i32::from(a) * i32::from(b)),
            "u16" => op!(|a: u16, b: u16| u32::from(a) * u32::from(b)),
            _ => None,
        },
        ("mad", true, _) => match ty {
            "s32" => op!(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
            "u32" => op!(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
            _ => None,
        },
        ("mul", _, true) => match ty {
            "s32" => op!(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
            "u32" => op!(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
            "s64" => op!(|a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
            "u64" => op!(|a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
            _ => None,
        },
        ("add", ..) => ints!(ty, |a, b| a.wrapping_add(b)),
        ("sub", ..) => ints!(ty, |a, b| a.wrapping_sub(b)),
        ("mul", ..) => ints!(ty, |a, b| a.wrapping_mul(b)),
        ("mad", ..) => ints!(ty, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        // Of a division by 0 PTX leaves the result open; all bits set is what chips give.
        ("div", ..) => ints!(ty, |a, b| a.checked_div(b).unwrap_or(!0)),
        ("rem", ..) => ints!(ty, |a, b| a.checked_rem(b).unwrap_or(!0)),
        ("neg", ..) => ints!(ty, |a| a.wrapping_neg()),
        ("min", ..) => ints!(ty, |a, b| a.min(b)),
        ("max", ..) => ints!(ty, |a, b| a.max(b)),
        ("and", ..) => ints!(ty, |a, b| a & b),
        ("or", ..) => ints!(ty, |a, b| a | b),
        ("xor", ..) => ints!(ty, |a, b| a ^ b),
        ("not", ..) => ints!(ty, |a| !a),
        ("abs", ..) => match ty {
            "s32" => op!(|a: i32| a.wrapping_abs()),
            "s64" => op!(|a: i64| a.wrapping_abs()),
            _ => None,
        },
        // Shifts by the width or more leave nothing, or the sign.
        ("shl", ..) => match ty {
            "b16" => op!(|a: u16, b: u32| a.checked_shl(b).unwrap_or(0)),
            "b32" => op!(|a: u32, b: u32| a.checked_shl(b).unwrap_or(0)),
            "b64" => op!(|a: u64, b: u32| a.checked_shl(b).unwrap_or(0)),
            _ => None,
        },
        ("shr", ..) => match ty {
            "u16" | "b16" => op!(|a: u16, b: u32| a.checked_shr(b).unwrap_or(0)),
            "u32" | "b32" => op!(|a: u32, b: u32| a.checked_shr(b).unwrap_or(0)),
            "u64" | "b64" => op!(|a: u64, b: u32| a.checked_shr(b).unwrap_or(0)),
            "s32" => op!(|a: i32, b: u32| a >> b.min(31)),
            "s64" => op!(|a: i64, b: u32| a >> b.min(63)),
            _ => None,
        },
        ("popc", ..) => match ty {
            "b32" => op!(|a: u32| a.count_ones()),
            "b64" => op!(|a: u64| a.count_ones()),
            _ => None,
        },
        ("clz", ..) => match ty {
            "b32" => op!(|a: u32| a.leading_zeros()),
            "b64" => op!(|a: u64| a.leading_zeros()),
            _ => None,
        },
        _ => None,
    }
}

/// Comparisons: of numbers with NaN all but `ne` are false, those with `u` in front true.
fn compare(relation: &str, ty: &str) -> Option<Alu> {
    macro_rules! floats {
        ($F:ty) => {
            match relation {
                "eq" => op!(|a: $F, b: $F| a == b),
                "ne" => op!(|a: $F, b: $F| a != b && !a.is_nan() && !b.is_nan()),
                "lt" => op!(|a: $F, b: $F| a < b),
                "le" => op!(|a: $F, b: $F| a <= b),
                "gt" => op!(|a: $F, b: $F| a > b),
                "ge" => op!(|a: $F, b: $F| a >= b),
                "equ" => op!(|a: $F, b: $F| a == b || a.is_nan() || b.is_nan()),
                "neu" => op!(|a: $F, b: $F| a != b),
                "ltu" => op!(|a: $F, b: $F| a < b || a.is_nan() || b.is_nan()),
                "leu" => op!(|a: $F, b: $F| a <= b || a.is_nan() || b.is_nan()),
                "gtu" => op!(|a: $F, b: $F| a > b || a.is_nan() || b.is_nan()),
                "geu" => op!(|a: $F, b: $F| a >= b || a.is_nan() || b.is_nan()),
                "num" => op!(|a: $F, b: $F| !a.is_nan() && !b.is_nan()),
                "nan" => op!(|a: $F, b: $F| a.is_nan() || b.is_nan()),
                _ => None,
            }
        };
    }
    match (ty, relation) {
        ("f32", _) => floats!(f32),
        ("f64", _) => floats!(f64),
        (_, "eq") => ints!(ty, |a, b| a == b),
        (_, "ne") => ints!(ty, |a, b| a != b),
        (_, "lt" | "lo") => ints!(ty, |a, b| a < b),
        (_, "le" | "ls") => ints!(ty, |a, b| a <= b),
        (_, "gt" | "hi") => ints!(ty, |a, b| a > b),
        (_, "ge" | "hs") => ints!(ty, |a, b| a >= b),
        _ => None,
    }
}

/// `cvt[.rounding].to.from`
fn convert(parts: &[&str]) -> Option<Alu> {
    let (to, from) = (parts[parts.len() - 2], parts[parts.len() - 1]);
    let has = |word: &str| parts.contains(&word);
    macro_rules! into {
        ($a:ident: $A:ty) => {
            match to {
                "u8" => op!(|$a: $A| $a as u8),
                "s8" => op!(|$a: $A| $a as i8),
                "u16" => op!(|$a: $A| $a as u16),
                "s16" => op!(|$a: $A| $a as i16),
                "u32" => op!(|$a: $A| $a as u32),
                "s32" => op!(|$a: $A| $a as i32),
                "u64" => op!(|$a: $A| $a as u64),
                "s64" => op!(|$a: $A| $a as i64),
                "f32" => op!(|$a: $A| $a as f32),
                "f64" => op!(|$a: $A| $a as f64),
                _ => None,
            }
        };
    }
    match (from, to) {
        ("f32", "f32") if has("sat") => op!(|a: f32| a.clamp(0.0, 1.0)),
        ("f32", "f32") if has("rni") => op!(|a: f32| a.round_ties_even()),
        ("f32", "f32") if has("rzi") => op!(|a: f32| a.trunc()),
        ("f32", "f32") if has("rmi") => op!(|a: f32| a.floor()),
        ("f32", "f32") if has("rpi") => op!(|a: f32| a.ceil()),
        ("f32", "s32") if has("rni") => op!(|a: f32| a.round_ties_even() as i32),
        ("f32", "s32") if has("rmi") => op!(|a: f32| a.floor() as i32),
        ("f32", "s32" | "u32" | "s64" | "u64") if !has("rzi") => None,
        ("f32", "tf32") if has("rna") => op!(|a: u32| tf32(a)),
        ("f32", "bf16x2") if has("rn") => {
            op!(|a: f32, b: f32| {
                u32::from(bf16::from_f32(a).to_bits()) << 16 | u32::from(bf16::from_f32(b).to_bits())
            })
        }
        ("f32", "bf16") if has("rn") => op!(|a: f32| bf16::from_f32(a).to_bits()),
        ("f32", "f16") if has("rn") => op!(|a: f32| f16::from_f32(a).to_bits()),
        ("f16", "f32") => op!(|a: u16| f16::from_bits(a).to_f32()),
        ("f32", _) => into!(a: f32),
        ("f64", "f64") if has("rni") => op!(|a: f64| a.round_ties_even()),
        ("f64", "f64") if has("rmi") => op!(|a: f64| a.floor()),
        ("f64", "f64") if has("rzi") => op!(|a: f64| a.trunc()),
        ("f64", "f64") if has("rpi") => op!(|a: f64| a.ceil()),
        ("f64", "s32" | "u32" | "s64" | "u64") if !has("rzi") => None,
        ("f64", _) => into!(a: f64),
        ("u8" | "b8", _) => into!(a: u8),
        ("s8", _) => into!(a: i8),
        ("u16" | "b16", _) => into!(a: u16),
        ("s16", _) => into!(a: i16),
        ("u32" | "b32", _) => into!(a: u32),
        ("s32", _) => into!(a: i32),
        ("u64" | "b64", _) => into!(a: u64),
        ("s64", _) => into!(a: i64),
        _ => None,
    }
}

/// Bits of a number in single precision that TF32 has not.
const DROPPED: u32 = (1 << 13) - 1;

/// Bits of a number in single precision, rounded to 10 bits of mantissa, ties away from zero.
fn tf32(bits: u32) -> u32 {
    let finite = bits >> 23 & 0xff != 0xff;
    let rounded = if finite { bits + DROPPED / 2 + 1 } else { bits };
    rounded & !DROPPED
}

/// The terms that lane `lane` of a warp holds in register `i` of a row of a factor: their numbers and values. In TF32 it
/// is one term, twice.
fn terms(factors: Factors, lane: usize, i: usize, bits: u32) -> [(usize, f64); 2] {
    let place = lane % 4;
    match factors {
        Factors::Tf32 => [(place + 4 * i, f64::from(f32::from_bits(bits & !DROPPED))); 2],
        Factors::Bf16 => {
            let half = |bits: u32| f64::from(bf16::from_bits(bits as u16));
            [(2 * place + 8 * i, half(bits)), (2 * place + 8 * i + 1, half(bits >> 16))]
        }
    }
}

/// `mma.sync`: sums of each lane, from the registers of all: of the left factor four, of the right one two, and four sums.
/// Products are exact, added up in double precision and rounded once, which is closer than a chip is.
pub(super) fn tensor(factors: Factors, lanes: &[([u32; 4], [u32; 2], [u32; 4])]) -> Vec<[u32; 4]> {
    const DEPTH: usize = 16;
    let (mut left, mut right) = ([[0.0; DEPTH]; 16], [[0.0; DEPTH]; 8]);
    for (lane, (a, b, _)) in lanes.iter().enumerate() {
        for (i, bits) in a.iter().enumerate() {
            for (k, value) in terms(factors, lane, i / 2, *bits) {
                left[lane / 4 + 8 * (i % 2)][k] = value;
            }
        }
        for (i, bits) in b.iter().enumerate() {
            for (k, value) in terms(factors, lane, i, *bits) {
                right[lane / 4][k] = value;
            }
        }
    }
    let sum = |row: usize, column: usize| -> f64 {
        left[row].iter().zip(right[column]).map(|(a, b): (&f64, f64)| a * b).sum()
    };
    (lanes.iter().enumerate())
        .map(|(lane, (_, _, c))| {
            std::array::from_fn(|i| {
                let (row, column) = (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
                ((f64::from(f32::from_bits(c[i])) + sum(row, column)) as f32).to_bits()
            })
        })
        .collect()
}
