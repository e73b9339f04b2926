//! Kernels of the engine as PTX.

use std::fmt::{self, Write};

use retrograd_engine::device::{Kernel, Op, Products, Space, Statement, Type, Value};

/// Most threads of a block of a generated kernel.
pub(crate) const MOST_THREADS: u32 = 256;

/// What kernel `i` of a module is called there.
pub(crate) fn entry_name(kernel: &Kernel, i: usize) -> String {
    format!("{}_{i}", kernel.name)
}

/// A module of kernels.
pub(crate) fn module(kernels: &[Kernel]) -> String {
    let mut out = String::from(".version 7.8\n.target sm_80\n.address_size 64\n");
    if kernels.iter().any(|k| k.shared_bytes > 0) {
        out.push_str(".extern .shared .align 16 .b8 dynamic[];\n");
    }
    for (i, kernel) in kernels.iter().enumerate() {
        let mut printer = Printer { out: &mut out, kernel, labels: 0 };
        // Writing to a string does not fail.
        let _ = printer.kernel(&entry_name(kernel, i));
    }
    out
}

struct Printer<'a> {
    out: &'a mut String,
    kernel: &'a Kernel,
    labels: usize,
}

/// First letters of a register's name, and the type it is declared with.
fn register(ty: Type) -> (&'static str, &'static str) {
    match ty {
        Type::Int => ("%r", "b32"),
        Type::Address => ("%a", "b64"),
        Type::F32 => ("%f", "f32"),
        Type::F64 => ("%d", "f64"),
        Type::Half => ("%h", "b16"),
        Type::Truth => ("%p", "pred"),
    }
}

/// A type in arithmetic, and as bits.
fn names(ty: Type) -> (&'static str, &'static str) {
    match ty {
        Type::Int => ("s32", "b32"),
        Type::Address => ("u64", "b64"),
        Type::F32 => ("f32", "b32"),
        Type::F64 => ("f64", "b64"),
        Type::Half => ("b16", "b16"),
        Type::Truth => ("pred", "pred"),
    }
}

struct Text(Value);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Register(id, ty) => write!(f, "{}{id}", register(ty).0),
            Value::Int(v) => write!(f, "{v}"),
            Value::Address(v) => write!(f, "{}", v as i64),
            Value::Real(bits, Type::F64) => write!(f, "0d{bits:016X}"),
            Value::Real(bits, _) => write!(f, "0f{bits:08X}"),
        }
    }
}

impl Printer<'_> {
    fn kernel(&mut self, name: &str) -> fmt::Result {
        let kernel = self.kernel;
        write!(self.out, "\n.visible .entry {name}(")?;
        for (i, ty) in kernel.arguments.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(self.out, "{comma}\n\t.param .{} {name}_{i}", names(*ty).0.replace('s', "u"))?;
        }
        writeln!(self.out, "\n)\n.maxntid {MOST_THREADS}, 1, 1")?;
        // Without a word the assembler saves registers for more blocks, and spills.
        writeln!(self.out, ".minnctapersm {}\n{{", kernel.beside)?;
        for (id, ty) in kernel.registers.iter().enumerate() {
            let (letters, ty) = register(*ty);
            writeln!(self.out, "\t.reg .{ty} {letters}{id};")?;
        }
        for ty in [Type::Int, Type::Address, Type::F32, Type::F64] {
            let (letters, ty) = register(ty);
            writeln!(self.out, "\t.reg .{ty} {letters}_put;")?;
        }
        writeln!(self.out, "\t.reg .pred %p_done;\n\t.reg .b32 %r_shared;")?;
        if kernel.team > 1 {
            writeln!(self.out, "\t.reg .b32 %r_here;\n\t.reg .b32 %r_come;")?;
        }
        self.statements(name, &kernel.body)?;
        writeln!(self.out, "\tret;\n}}")
    }

    fn label(&mut self) -> usize {
        self.labels += 1;
        self.labels
    }

    /// The name of a register with the value.
    fn in_register(&mut self, value: Value) -> Result<String, fmt::Error> {
        if let Value::Register(..) = value {
            return Ok(Text(value).to_string());
        }
        let (letters, ty) = register(value.ty());
        let name = format!("{letters}_put");
        writeln!(self.out, "\tmov.{ty} {name}, {};", Text(value))?;
        Ok(name)
    }

    fn statements(&mut self, name: &str, list: &[Statement]) -> fmt::Result {
        for statement in list {
            match statement {
                Statement::Op { op, to, args } => self.op(name, *op, *to, args)?,
                Statement::Load { to, space, address, offset } => {
                    let (ty, address) = (names(to.ty()).0, self.address(*space, *address)?);
                    let space = space_name(*space);
                    writeln!(self.out, "\tld.{space}.{ty} {}, [{address}+{offset}];", Text(*to))?;
                }
                Statement::LoadRun { to, space, address, offset } => {
                    let ty = to.first().map_or("b32", |v| names(v.ty()).0);
                    let (words, address) = (vector(to), self.address(*space, *address)?);
                    let (space, count) = (space_name(*space), to.len());
                    writeln!(self.out, "\tld.{space}.v{count}.{ty} {words}, [{address}+{offset}];")?;
                }
                Statement::Store { value, space, address, offset } => {
                    let (ty, address) = (names(value.ty()).0, self.address(*space, *address)?);
                    let (space, value) = (space_name(*space), self.in_register(*value)?);
                    writeln!(self.out, "\tst.{space}.{ty} [{address}+{offset}], {value};")?;
                }
                Statement::StoreRun { values, space, address, offset } => {
                    let ty = values.first().map_or("b32", |v| names(v.ty()).0);
                    let (words, address) = (vector(values), self.address(*space, *address)?);
                    let (space, count) = (space_name(*space), values.len());
                    writeln!(self.out, "\tst.{space}.v{count}.{ty} [{address}+{offset}], {words};")?;
                }
                Statement::Loop { var, from, to, by, body } => {
                    let label = self.label();
                    let (var, to) = (Text(*var), Text(*to));
                    writeln!(self.out, "\tmov.b32 {var}, {};", Text(*from))?;
                    writeln!(self.out, "\tsetp.ge.s32 %p_done, {var}, {to};")?;
                    writeln!(self.out, "\t@%p_done bra END{label}_{name};")?;
                    writeln!(self.out, "LOOP{label}_{name}:")?;
                    self.statements(name, body)?;
                    writeln!(self.out, "\tadd.s32 {var}, {var}, {};", Text(*by))?;
                    writeln!(self.out, "\tsetp.lt.s32 %p_done, {var}, {to};")?;
                    writeln!(self.out, "\t@%p_done bra LOOP{label}_{name};")?;
                    writeln!(self.out, "END{label}_{name}:")?;
                }
                Statement::If { truth, then } => {
                    let label = self.label();
                    writeln!(self.out, "\t@!{} bra ELSE{label}_{name};", Text(*truth))?;
                    self.statements(name, then)?;
                    writeln!(self.out, "ELSE{label}_{name}:")?;
                }
                Statement::Barrier => writeln!(self.out, "\tbar.sync 0;")?,
                Statement::Meet { counter, blocks } => self.meet(name, *counter, *blocks)?,
                Statement::Tensor { products, sums, left, right } => {
                    let shape = match products {
                        Products::Bf16 => "m16n8k16.row.col.f32.bf16.bf16.f32",
                        _ => "m16n8k8.row.col.f32.tf32.tf32.f32",
                    };
                    let (sums, left, right) = (vector(sums), vector(left), vector(right));
                    writeln!(self.out, "\tmma.sync.aligned.{shape} {sums}, {left}, {right}, {sums};")?;
                }
            }
        }
        Ok(())
    }

    /// The first thread of each block counts it in and waits until all of its team have come. Arrivals are numbered from the
    /// last time that the counter was cleared, over all launches since, each of which leaves a multiple of the team.
    fn meet(&mut self, name: &str, counter: Value, blocks: u32) -> fmt::Result {
        let (label, at) = (self.label(), Text(counter));
        let out = &mut *self.out;
        writeln!(out, "\tbar.sync 0;")?;
        writeln!(out, "\tmov.u32 %r_here, %tid.x;")?;
        writeln!(out, "\tsetp.ne.s32 %p_done, %r_here, 0;")?;
        writeln!(out, "\t@%p_done bra MET{label}_{name};")?;
        // What this block wrote comes before its arrival ...
        writeln!(out, "\tfence.acq_rel.gpu;")?;
        writeln!(out, "\tatom.relaxed.gpu.global.add.u32 %r_here, [{at}], 1;")?;
        writeln!(out, "\tor.b32 %r_here, %r_here, {};", blocks - 1)?;
        writeln!(out, "AWAIT{label}_{name}:")?;
        writeln!(out, "\tld.relaxed.gpu.global.u32 %r_come, [{at}];")?;
        // More have come than the number of the last of these; the difference wraps with the counter.
        writeln!(out, "\tsub.s32 %r_come, %r_come, %r_here;")?;
        writeln!(out, "\tsetp.le.s32 %p_done, %r_come, 0;")?;
        writeln!(out, "\t@%p_done bra AWAIT{label}_{name};")?;
        // ... and theirs before what it reads from now on.
        writeln!(out, "\tfence.acq_rel.gpu;")?;
        writeln!(out, "MET{label}_{name}:")?;
        writeln!(out, "\tbar.sync 0;")
    }

    /// What stands in the brackets of an access before its offset.
    fn address(&mut self, space: Space, address: Value) -> Result<String, fmt::Error> {
        if space == Space::Global {
            return Ok(Text(address).to_string());
        }
        writeln!(self.out, "\tmov.u32 %r_shared, dynamic;")?;
        writeln!(self.out, "\tadd.s32 %r_shared, %r_shared, {};", Text(address))?;
        Ok("%r_shared".into())
    }

    fn op(&mut self, name: &str, op: Op, to: Value, args: &[Value; 3]) -> fmt::Result {
        let ty = to.ty();
        let real = matches!(ty, Type::F32 | Type::F64);
        let (number, bits) = names(ty);
        let rounded = if real { format!("rn.{number}") } else { number.to_owned() };
        let [a, b, c] = args.map(Text);
        let d = Text(to);
        let out = &mut *self.out;
        match op {
            Op::Copy => writeln!(out, "\tmov.{} {d}, {a};", register(ty).1),
            Op::Thread => writeln!(out, "\tmov.u32 {d}, %tid.x;"),
            Op::Threads => writeln!(out, "\tmov.u32 {d}, %ntid.x;"),
            Op::Block => writeln!(out, "\tmov.u32 {d}, %ctaid.x;"),
            Op::Blocks => writeln!(out, "\tmov.u32 {d}, %nctaid.x;"),
            Op::Argument(i) => writeln!(out, "\tld.param.{} {d}, [{name}_{i}];", number.replace('s', "u")),
            // With a rounding that is said, sums and products stay two operations.
            Op::Add => writeln!(out, "\tadd.{rounded} {d}, {a}, {b};"),
            Op::Sub => writeln!(out, "\tsub.{rounded} {d}, {a}, {b};"),
            Op::Mul if real => writeln!(out, "\tmul.{rounded} {d}, {a}, {b};"),
            Op::Mul => writeln!(out, "\tmul.lo.{number} {d}, {a}, {b};"),
            Op::MulHigh => writeln!(out, "\tmul.hi.{} {d}, {a}, {b};", number.replace('s', "u")),
            Op::Div => writeln!(out, "\tdiv.{rounded} {d}, {a}, {b};"),
            Op::Rem => writeln!(out, "\trem.{number} {d}, {a}, {b};"),
            Op::Min => writeln!(out, "\tmin.{number} {d}, {a}, {b};"),
            Op::Max => writeln!(out, "\tmax.{number} {d}, {a}, {b};"),
            Op::Fma => writeln!(out, "\tfma.{rounded} {d}, {a}, {b}, {c};"),
            Op::Sqrt => writeln!(out, "\tsqrt.{rounded} {d}, {a};"),
            Op::Floor => writeln!(out, "\tcvt.rmi.{number}.{number} {d}, {a};"),
            Op::Round => writeln!(out, "\tcvt.rni.{number}.{number} {d}, {a};"),
            Op::And | Op::Or | Op::Xor | Op::Shl | Op::Shr => {
                let word = match op {
                    Op::And => "and",
                    Op::Or => "or",
                    Op::Xor => "xor",
                    Op::Shl => "shl",
                    _ => "shr",
                };
                writeln!(out, "\t{word}.{bits} {d}, {}, {};", Bits(args[0]), Bits(args[1]))
            }
            Op::Lt | Op::Le | Op::Eq => {
                let word = match op {
                    Op::Lt => "lt",
                    Op::Le => "le",
                    _ => "eq",
                };
                writeln!(out, "\tsetp.{word}.{} {d}, {a}, {b};", names(args[0].ty()).0)
            }
            Op::Select => writeln!(out, "\tselp.{} {d}, {b}, {c}, {a};", register(ty).1),
            Op::Convert => {
                let from = args[0].ty();
                let how = match (ty, from) {
                    (Type::Address, Type::Int) => "s64.s32".to_owned(),
                    (Type::Int, Type::Address) => "u32.u64".to_owned(),
                    (Type::F64, Type::F32) => "f64.f32".to_owned(),
                    (Type::F32 | Type::F64, _) => format!("rn.{number}.{}", names(from).0),
                    _ => format!("rzi.{number}.{}", names(from).0),
                };
                writeln!(out, "\tcvt.{how} {d}, {a};")
            }
            Op::Bits => writeln!(out, "\tmov.{bits} {d}, {a};"),
            Op::Offset => writeln!(out, "\tmad.wide.s32 {d}, {b}, {c}, {a};"),
            Op::Across(by) => writeln!(out, "\tshfl.sync.bfly.b32 {d}, {a}, {by}, 31, -1;"),
            Op::Tf32 => writeln!(out, "\tcvt.rna.tf32.f32 {d}, {a};"),
            // The first operand is the high half.
            Op::PackBf16 => writeln!(out, "\tcvt.rn.bf16x2.f32 {d}, {b}, {a};"),
            Op::ToBf16 => writeln!(out, "\tcvt.rn.bf16.f32 {d}, {a};"),
            Op::ToF16 => writeln!(out, "\tcvt.rn.f16.f32 {d}, {a};"),
            // A conversion of its own is there from sm_90 on; these are the upper half of the bits.
            Op::FromBf16 => {
                writeln!(out, "\tcvt.u32.u16 %r_put, {a};\n\tshl.b32 %r_put, %r_put, 16;")?;
                writeln!(out, "\tmov.b32 {d}, %r_put;")
            }
            Op::FromF16 => writeln!(out, "\tcvt.f32.f16 {d}, {a};"),
        }
    }
}

/// Registers beside each other.
fn vector(values: &[Value]) -> String {
    let words: Vec<String> = values.iter().map(|v| Text(*v).to_string()).collect();
    format!("{{{}}}", words.join(", "))
}

/// A value among bits: real numbers as integers.
struct Bits(Value);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Real(bits, _) => write!(f, "0x{bits:X}"),
            value => Text(value).fmt(f),
        }
    }
}

fn space_name(space: Space) -> &'static str {
    match space {
        Space::Global => "global",
        Space::Shared => "shared",
    }
}

#[cfg(test)]
mod tests {
    use retrograd_engine::device::Code;

    use super::*;

    #[test]
    fn a_kernel_as_text() {
        let mut code = Code::new();
        let table = code.op(Op::Argument(0), Type::Address, &[]);
        let thread = code.op(Op::Thread, Type::Int, &[]);
        let x = code.load(Type::F32, table, thread);
        let one = Code::real(Type::F32, 1.0);
        let y = code.add(x, one);
        code.store(table, thread, y);
        let text = module(&[code.finish("example", vec![Type::Address], 0)]);
        for line in [
            ".visible .entry example_0(",
            "\tld.param.u64 %a0, [example_0_0];",
            "\tmad.wide.s32 %a2, %r1, 4, %a0;",
            "\tld.global.f32 %f3, [%a2+0];",
            "\tadd.rn.f32 %f4, %f3, 0f3F800000;",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
