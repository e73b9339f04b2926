//! Kernels as data: what a device has to be able to do, and a builder for it.
//!
//! A kernel is run by blocks of threads. It is a list of [`Statement`]s over registers of a type, with counted loops,
//! branches and barriers: little enough that a backend prints it in its own language in one pass.

use super::tensor::Products;

/// Type of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Signed, 32 bits: numbers of things, indices. Also bits of 32.
    Int,
    /// Unsigned, 64 bits: addresses, and products of sizes. Also bits of 64.
    Address,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// A real number rounded to 16 bits: it is read, written, and [widened](Op::FromBf16).
    Half,
    /// True or false.
    Truth,
}

impl Type {
    /// Bytes in memory; 0 for what never lies there.
    pub const fn bytes(self) -> usize {
        match self {
            Type::Int | Type::F32 => 4,
            Type::Address | Type::F64 => 8,
            Type::Half => 2,
            Type::Truth => 0,
        }
    }
}

/// A register, or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Register `id` of a kernel, of its type.
    Register(u32, Type),
    /// An integer of 32 bits.
    Int(i32),
    /// An integer of 64 bits.
    Address(u64),
    /// A real number by its bits, those of an `f32` in the low ones.
    Real(u64, Type),
}

impl Value {
    /// Its type.
    pub fn ty(self) -> Type {
        match self {
            Value::Register(_, ty) | Value::Real(_, ty) => ty,
            Value::Int(_) => Type::Int,
            Value::Address(_) => Type::Address,
        }
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Int(value as i32)
    }
}

/// Operations on registers. Arguments have the type of the result unless it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The argument.
    Copy,
    /// Number of the thread in its block, of threads in a block, of the block, of blocks.
    Thread,
    #[allow(missing_docs)]
    Threads,
    #[allow(missing_docs)]
    Block,
    #[allow(missing_docs)]
    Blocks,
    /// Argument number so-and-so of the kernel.
    Argument(u32),
    /// Sum; integers wrap.
    Add,
    /// Difference; integers wrap.
    Sub,
    /// Product; of integers the low bits.
    Mul,
    /// High bits of a product of integers without sign.
    MulHigh,
    /// Quotient, rounded once; of integers towards zero.
    Div,
    /// Remainder of integers; without sign for [`Type::Address`].
    Rem,
    /// The smaller integer.
    Min,
    /// The larger integer.
    Max,
    /// `a·b + c` of real numbers, rounded once.
    Fma,
    /// Square root, rounded once.
    Sqrt,
    /// The largest integral number that is not larger.
    Floor,
    /// The nearest integral number, the even one of two.
    Round,
    /// Bits.
    And,
    #[allow(missing_docs)]
    Or,
    #[allow(missing_docs)]
    Xor,
    /// Bits shifted to the left by an [`Type::Int`].
    Shl,
    /// Bits shifted to the right by an [`Type::Int`], zeros from the left.
    Shr,
    /// Comparisons of two of one type to a truth; false with a NaN.
    Lt,
    #[allow(missing_docs)]
    Le,
    #[allow(missing_docs)]
    Eq,
    /// Of a truth, the second where it is true, else the third.
    Select,
    /// An integer or a real number as another type: real to `Int` towards zero; `Int` to `Address` with its sign;
    /// `Address` to `Int` by its low bits.
    Convert,
    /// The same bits as another type of the same size.
    Bits,
    /// Address `a` and `b` (an `Int`, with its sign) times `c` (a constant `Int`) bytes.
    Offset,
    /// What the thread of the warp has whose number differs in these bits; all threads of the warp ask together. In 32 bits.
    Across(u32),
    /// A number in single precision rounded to 10 bits of mantissa, ties away from zero: as bits that [`Statement::Tensor`]
    /// takes.
    Tf32,
    /// Two numbers in single precision rounded to 7 bits of mantissa, ties to even, the first in the low half of the bits.
    PackBf16,
    /// A number in single precision rounded to 7 bits of mantissa (bfloat16), ties to even, as [`Type::Half`].
    ToBf16,
    /// The same to IEEE half precision.
    ToF16,
    /// The number in single precision that was rounded to 7 bits of mantissa.
    FromBf16,
    /// The same of IEEE half precision.
    FromF16,
}

/// Memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Of the device.
    Global,
    /// Of a block; addresses are offsets, of type [`Type::Int`].
    Shared,
}

impl Space {
    /// Which one an address is of.
    fn of(address: Value) -> Space {
        if address.ty() == Type::Int { Space::Shared } else { Space::Global }
    }
}

/// A step of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `to = op(args)`.
    Op {
        /// What is done.
        op: Op,
        /// Register of the result.
        to: Value,
        /// Arguments; those the operation does not have are [`Value::Int`] 0.
        args: [Value; 3],
    },
    /// Reads `to` at `address` and `offset` bytes.
    Load {
        /// A register.
        to: Value,
        /// Where.
        space: Space,
        /// Its address.
        address: Value,
        /// Bytes beyond.
        offset: i32,
    },
    /// Reads 2 or 4 registers of one type, which lie beside each other at a multiple of the bytes of all.
    LoadRun {
        /// Registers.
        to: Vec<Value>,
        /// Where.
        space: Space,
        /// Its address.
        address: Value,
        /// Bytes beyond.
        offset: i32,
    },
    /// Writes `value` at `address` and `offset` bytes.
    Store {
        /// What.
        value: Value,
        /// Where.
        space: Space,
        /// Its address.
        address: Value,
        /// Bytes beyond.
        offset: i32,
    },
    /// Writes 2 or 4 registers of one type beside each other, at a multiple of the bytes of all.
    StoreRun {
        /// Registers.
        values: Vec<Value>,
        /// Where.
        space: Space,
        /// Its address.
        address: Value,
        /// Bytes beyond.
        offset: i32,
    },
    /// `for (var = from; var < to; var += by)`, with `by` above 0.
    Loop {
        /// A register of type `Int`.
        var: Value,
        /// First.
        from: Value,
        /// One past the last.
        to: Value,
        /// Step.
        by: Value,
        /// What is done each time.
        body: Vec<Statement>,
    },
    /// The one or the other.
    If {
        /// A truth.
        truth: Value,
        /// Where it is true.
        then: Vec<Statement>,
    },
    /// All threads of the block wait for each other, and see what the others wrote.
    Barrier,
    /// All threads of so many blocks beside each other (a power of two: the first of them is a multiple of it) wait for
    /// each other, and see what the others wrote. At the address the blocks count their arrivals, from a multiple of their
    /// number on. They have to run at once: see [`Kernel::team`].
    Meet {
        /// Where they count, in 32 bits.
        counter: Value,
        /// How many blocks.
        blocks: u32,
    },
    /// All threads of a [warp](super::tensor::WARP) add the product of a left and a right factor to sums, which they have
    /// among them: thread `4 g + p` has rows `g` and `g + 8` of the left factor and of the sums (16 rows), column `g` of
    /// the right factor and columns `2 p` and `2 p + 1` of the sums (8 columns). Terms are `p` and `p + 4` of 8, or in
    /// halves of a register `2 p`, `2 p + 1`, `2 p + 8` and `2 p + 9` of 16.
    Tensor {
        /// How factors are rounded; not [`Products::Exact`].
        products: Products,
        /// Registers of single precision: of row `g`, two columns, then of row `g + 8`.
        sums: [Value; 4],
        /// Registers of bits: rows `g` and `g + 8` at the first terms, then at the others.
        left: [Value; 4],
        /// Registers of bits: the first terms, then the others.
        right: [Value; 2],
    },
}

/// A kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Its name in errors: a word.
    pub name: &'static str,
    /// Types of its arguments, `Int` or `Address`.
    pub arguments: Vec<Type>,
    /// Type of each register.
    pub registers: Vec<Type>,
    /// What it does.
    pub body: Vec<Statement>,
    /// Bytes of shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks that [wait for each other](Statement::Meet), so that all blocks of a launch have to run at once; 1 where
    /// each runs by itself.
    pub team: u32,
    /// Blocks of a multiprocessor that its registers have to do for.
    pub beside: u32,
}

/// Builds a kernel.
#[derive(Debug, Default)]
pub struct Code {
    registers: Vec<Type>,
    open: Vec<Vec<Statement>>,
    team: u32,
}

/// Integers whose value is known.
fn known(value: Value) -> Option<i64> {
    match value {
        Value::Int(v) => Some(i64::from(v)),
        Value::Address(v) => Some(v as i64),
        _ => None,
    }
}

fn constant(value: i64, ty: Type) -> Option<Value> {
    match ty {
        Type::Int => i32::try_from(value).ok().map(Value::Int),
        Type::Address => Some(Value::Address(value as u64)),
        _ => None,
    }
}

impl Code {
    /// Nothing yet.
    pub fn new() -> Code {
        Code { registers: Vec::new(), open: vec![Vec::new()], team: 1 }
    }

    /// The kernel.
    pub fn finish(mut self, name: &'static str, arguments: Vec<Type>, shared_bytes: usize) -> Kernel {
        let body = self.open.pop().unwrap_or_default();
        let (registers, team) = (self.registers, self.team);
        // Numbers in double precision take two registers.
        let beside = if registers.contains(&Type::F64) { 1 } else { 2 };
        Kernel { name, arguments, registers, body, shared_bytes, team, beside }
    }

    /// A new register.
    pub fn register(&mut self, ty: Type) -> Value {
        self.registers.push(ty);
        Value::Register(self.registers.len() as u32 - 1, ty)
    }

    fn push(&mut self, statement: Statement) {
        if let Some(block) = self.open.last_mut() {
            block.push(statement);
        }
    }

    /// The result of an operation in a new register.
    pub fn op(&mut self, op: Op, ty: Type, args: &[Value]) -> Value {
        let to = self.register(ty);
        self.op_into(to, op, args);
        to
    }

    /// An operation into a register that there is.
    pub fn op_into(&mut self, to: Value, op: Op, args: &[Value]) {
        let mut all = [Value::Int(0); 3];
        all[..args.len()].copy_from_slice(args);
        self.push(Statement::Op { op, to, args: all });
    }

    /// A real number.
    pub fn real(ty: Type, value: f64) -> Value {
        match ty {
            Type::F64 => Value::Real(value.to_bits(), ty),
            _ => Value::Real(u64::from((value as f32).to_bits()), Type::F32),
        }
    }

    fn binary(&mut self, op: Op, a: Value, b: Value) -> Value {
        let ty = a.ty();
        let folded = match (op, known(a), known(b)) {
            (Op::Add, Some(a), Some(b)) => constant(a + b, ty),
            (Op::Sub, Some(a), Some(b)) => constant(a - b, ty),
            (Op::Mul, Some(a), Some(b)) => constant(a * b, ty),
            (Op::Div, Some(a), Some(b)) if b > 0 => constant(a / b, ty),
            (Op::Rem, Some(a), Some(b)) if b > 0 => constant(a % b, ty),
            (Op::Min, Some(a), Some(b)) => constant(a.min(b), ty),
            (Op::Max, Some(a), Some(b)) => constant(a.max(b), ty),
            (Op::Add, Some(0), _) => Some(b),
            (Op::Add | Op::Sub, _, Some(0)) => Some(a),
            (Op::Mul | Op::Div, _, Some(1)) => Some(a),
            (Op::Mul, Some(1), _) => Some(b),
            (Op::Mul, Some(0), _) | (Op::Mul, _, Some(0)) | (Op::Rem, _, Some(1)) => constant(0, ty),
            _ => None,
        };
        folded.unwrap_or_else(|| self.op(op, ty, &[a, b]))
    }

    /// `a + b`.
    pub fn add(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Add, a.into(), b.into())
    }

    /// `a − b`.
    pub fn sub(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Sub, a.into(), b.into())
    }

    /// `a b`.
    pub fn mul(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Mul, a.into(), b.into())
    }

    /// `a / b`.
    pub fn div(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Div, a.into(), b.into())
    }

    /// The remainder of integers.
    pub fn rem(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Rem, a.into(), b.into())
    }

    /// The smaller integer.
    pub fn min(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Min, a.into(), b.into())
    }

    /// The larger integer.
    pub fn max(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.binary(Op::Max, a.into(), b.into())
    }

    /// `a b + c` of real numbers.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.op(Op::Fma, c.ty(), &[a, b, c])
    }

    /// `−a` of a real number: the sign bit turned.
    pub fn neg(&mut self, a: Value) -> Value {
        let sign = Code::real(a.ty(), -0.0);
        self.op(Op::Xor, a.ty(), &[a, sign])
    }

    /// `|a|` of a real number: the sign bit cleared.
    pub fn abs(&mut self, a: Value) -> Value {
        let rest = match a.ty() {
            Type::F64 => Value::Real(u64::MAX >> 1, Type::F64),
            _ => Value::Real(u64::from(u32::MAX >> 1), Type::F32),
        };
        self.op(Op::And, a.ty(), &[a, rest])
    }

    /// `a < b`.
    pub fn lt(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.op(Op::Lt, Type::Truth, &[a.into(), b.into()])
    }

    /// `a ≤ b`.
    pub fn le(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.op(Op::Le, Type::Truth, &[a.into(), b.into()])
    }

    /// `a = b`.
    pub fn eq(&mut self, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        self.op(Op::Eq, Type::Truth, &[a.into(), b.into()])
    }

    /// `a` where it is true, else `b`.
    pub fn select(&mut self, truth: Value, a: impl Into<Value>, b: impl Into<Value>) -> Value {
        let (a, b) = (a.into(), b.into());
        self.op(Op::Select, a.ty(), &[truth, a, b])
    }

    /// As another type.
    pub fn convert(&mut self, a: Value, ty: Type) -> Value {
        match (known(a), ty) {
            _ if a.ty() == ty => a,
            (Some(v), Type::Address) => Value::Address(v as u64),
            (Some(v), Type::F32 | Type::F64) => Code::real(ty, v as f64),
            _ => self.op(Op::Convert, ty, &[a]),
        }
    }

    /// The address `index` elements of `size` bytes further on. An address of type `Int` is one in shared memory.
    pub fn offset(&mut self, address: Value, index: impl Into<Value>, size: usize) -> Value {
        let index = index.into();
        if address.ty() == Type::Int {
            let skip = self.mul(index, size);
            return self.add(address, skip);
        }
        match known(index) {
            Some(0) => address,
            Some(i) => self.add(address, Value::Address((i * size as i64) as u64)),
            None => self.op(Op::Offset, Type::Address, &[address, index, Value::Int(size as i32)]),
        }
    }

    /// What the thread of the warp has whose number differs from this one's in the bits of `by`. All threads of a warp ask.
    pub fn across(&mut self, value: Value, by: u32) -> Value {
        if value.ty().bytes() == 4 {
            return self.op(Op::Across(by), value.ty(), &[value]);
        }
        let half = Value::Int(32);
        let bits = self.op(Op::Bits, Type::Address, &[value]);
        let high = self.op(Op::Shr, Type::Address, &[bits, half]);
        let [low, high] = [bits, high].map(|half| {
            let half = self.op(Op::Convert, Type::Int, &[half]);
            let half = self.op(Op::Across(by), Type::Int, &[half]);
            let half = self.op(Op::Convert, Type::Address, &[half]);
            self.op(Op::And, Type::Address, &[half, Value::Address(u64::from(u32::MAX))])
        });
        let high = self.op(Op::Shl, Type::Address, &[high, half]);
        let bits = self.op(Op::Or, Type::Address, &[low, high]);
        self.op(Op::Bits, value.ty(), &[bits])
    }

    /// A register that is changed later, with its first value.
    pub fn variable(&mut self, first: Value) -> Value {
        self.op(Op::Copy, first.ty(), &[first])
    }

    /// Gives a variable a value.
    pub fn set(&mut self, variable: Value, value: Value) {
        self.op_into(variable, Op::Copy, &[value]);
    }

    /// Moves a variable that is an address by so many bytes.
    pub fn advance(&mut self, address: Value, bytes: usize) {
        let by = match address.ty() {
            Type::Int => Value::from(bytes),
            _ => Value::Address(bytes as u64),
        };
        self.op_into(address, Op::Add, &[address, by]);
    }

    /// Element `index` at an address; in shared memory if that is of type `Int`.
    pub fn load(&mut self, ty: Type, address: Value, index: impl Into<Value>) -> Value {
        let (address, offset) = self.place(address, index.into(), ty.bytes());
        let to = self.register(ty);
        self.push(Statement::Load { to, space: Space::of(address), address, offset });
        to
    }

    /// So many elements, `bytes` beyond an address that is a multiple of 16, as `bytes` is.
    pub fn load_run(&mut self, ty: Type, address: Value, bytes: usize, count: usize) -> Vec<Value> {
        let (at_once, space) = (16 / ty.bytes().max(4), Space::of(address));
        let to: Vec<Value> = (0..count).map(|_| self.register(ty)).collect();
        for (i, to) in to.chunks(at_once).enumerate() {
            let offset = (bytes + 16 * i) as i32;
            if to.len() == at_once {
                self.push(Statement::LoadRun { to: to.to_vec(), space, address, offset });
                continue;
            }
            for (j, to) in to.iter().enumerate() {
                let offset = offset + (j * ty.bytes()) as i32;
                self.push(Statement::Load { to: *to, space, address, offset });
            }
        }
        to
    }

    /// Writes element `index` at an address; in shared memory if that is of type `Int`.
    pub fn store(&mut self, address: Value, index: impl Into<Value>, value: Value) {
        let (address, offset) = self.place(address, index.into(), value.ty().bytes());
        self.push(Statement::Store { value, space: Space::of(address), address, offset });
    }

    fn place(&mut self, address: Value, index: Value, size: usize) -> (Value, i32) {
        match known(index).and_then(|i| i32::try_from(i * size as i64).ok()) {
            Some(offset) => (address, offset),
            None => (self.offset(address, index, size), 0),
        }
    }

    /// Element `index` of shared memory, `base` bytes from its start.
    pub fn load_shared(&mut self, ty: Type, base: usize, index: impl Into<Value>) -> Value {
        let address = self.mul(index, ty.bytes());
        let to = self.register(ty);
        self.push(Statement::Load { to, space: Space::Shared, address, offset: base as i32 });
        to
    }

    /// Writes element `index` of shared memory.
    pub fn store_shared(&mut self, base: usize, index: impl Into<Value>, value: Value) {
        let address = self.mul(index, value.ty().bytes());
        self.push(Statement::Store { value, space: Space::Shared, address, offset: base as i32 });
    }

    /// Writes elements beside each other, 16 bytes in all, from element `index` of shared memory on; the place is a multiple
    /// of 16.
    pub fn store_shared_run(&mut self, base: usize, index: impl Into<Value>, values: &[Value]) {
        let size = values.first().map_or(0, |v| v.ty().bytes());
        let address = self.mul(index, size);
        let (space, offset) = (Space::Shared, base as i32);
        self.push(Statement::StoreRun { values: values.to_vec(), space, address, offset });
    }

    /// Adds a product of factors that a warp has among it, see [`Statement::Tensor`].
    pub fn tensor(&mut self, products: Products, sums: [Value; 4], left: [Value; 4], right: [Value; 2]) {
        self.push(Statement::Tensor { products, sums, left, right });
    }

    /// All threads meet.
    pub fn barrier(&mut self) {
        self.push(Statement::Barrier);
    }

    /// The threads of so many blocks meet: see [`Statement::Meet`].
    pub fn meet(&mut self, counter: Value, blocks: u32) {
        self.team = self.team.max(blocks);
        self.push(Statement::Meet { counter, blocks });
    }

    /// Opens a body; [`Code::close`] gives it.
    pub(super) fn open(&mut self) {
        self.open.push(Vec::new());
    }

    /// See [`Code::open`].
    pub(super) fn close(&mut self) -> Vec<Statement> {
        self.open.pop().unwrap_or_default()
    }

    pub(super) fn push_loop(&mut self, var: Value, from: Value, to: Value, by: Value, body: Vec<Statement>) {
        self.push(Statement::Loop { var, from, to, by, body });
    }

    pub(super) fn push_if(&mut self, truth: Value, then: Vec<Statement>) {
        self.push(Statement::If { truth, then });
    }
}

/// What has a [`Code`] in it: loops and branches whose bodies are written by closures over the whole.
pub trait Building {
    /// The code.
    fn code(&mut self) -> &mut Code;

    /// `body` for every number from `from` to before `to`, in steps of `by`.
    fn each_by(
        &mut self,
        from: impl Into<Value>,
        to: impl Into<Value>,
        by: impl Into<Value>,
        body: impl FnOnce(&mut Self, Value),
    ) where
        Self: Sized,
    {
        let (from, to, by) = (from.into(), to.into(), by.into());
        if let (Some(a), Some(b), Some(s)) = (known(from), known(to), known(by))
            && b <= a + s
        {
            if b > a {
                body(self, from);
            }
            return;
        }
        let var = self.code().register(Type::Int);
        self.code().open();
        body(self, var);
        let body = self.code().close();
        self.code().push_loop(var, from, to, by, body);
    }

    /// `body` for every number from `from` to before `to`.
    fn each(&mut self, from: impl Into<Value>, to: impl Into<Value>, body: impl FnOnce(&mut Self, Value))
    where
        Self: Sized,
    {
        self.each_by(from, to, 1, body);
    }

    /// `body` where `truth` holds.
    fn when(&mut self, truth: Value, body: impl FnOnce(&mut Self))
    where
        Self: Sized,
    {
        self.code().open();
        body(self);
        let then = self.code().close();
        self.code().push_if(truth, then);
    }
}

impl Building for Code {
    fn code(&mut self) -> &mut Code {
        self
    }
}
