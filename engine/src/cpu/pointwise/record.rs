//! Vectors that write down what is done to them.
//!
//! [`Trace`] is a [`Vector`] without numbers: running the code of a program over it, with all functions of
//! [`crate::cpu::math`], leaves the list of machine operations that the code consists of. So there is one definition
//! of every function, and what is assembled from the list does to every element what the loops over blocks do. A
//! [`Thread`] of a device is recorded in the same way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;

use super::compile::Place;
use super::{Compiled, ops};
use crate::cpu::real::Real;
use crate::cpu::simd::Vector;

/// Index of a node of a [`Recording`].
pub(crate) type Id = u32;

/// A machine operation over vectors; what it means is said at the method of [`Vector`] of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Prim {
    /// An operand of the program.
    In(u16),
    /// A number, by its bits.
    Constant(u64),
    Add,
    Sub,
    Mul,
    Div,
    MulAdd,
    NegMulAdd,
    Sqrt,
    Floor,
    Round,
    MaxOr,
    MinOr,
    And,
    Or,
    Xor,
    ShlMantissa,
    ShrMantissa,
    Scalef,
    RecipEstimate,
    RsqrtEstimate,
    /// A mask, as are the next two.
    Lt,
    Le,
    Eq,
    /// Of a mask and two vectors.
    Select,
    /// Nothing further holds unless the mask is empty.
    Guard,
}

impl Prim {
    /// How many arguments it has.
    pub(crate) fn arity(self) -> usize {
        match self {
            Prim::In(_) | Prim::Constant(_) => 0,
            Prim::Sqrt
            | Prim::Floor
            | Prim::Round
            | Prim::ShlMantissa
            | Prim::ShrMantissa
            | Prim::RecipEstimate
            | Prim::RsqrtEstimate
            | Prim::Guard => 1,
            Prim::MulAdd | Prim::NegMulAdd | Prim::Select => 3,
            _ => 2,
        }
    }
}

/// An operation and its arguments; those it does not have are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) prim: Prim,
    pub(crate) args: [Id; 3],
}

impl Node {
    /// The arguments it has.
    pub(crate) fn args(&self) -> &[Id] {
        &self.args[..self.prim.arity()]
    }
}

/// A program as operations, each after its arguments, none twice.
#[derive(Debug, Default)]
pub struct Recording {
    pub(crate) nodes: Vec<Node>,
    /// Results and their values, in the order in which they are stored.
    pub(crate) stores: Vec<(u16, Id)>,
}

/// What is recorded: a vector like those of an instruction set, or one thread of a device.
pub(crate) trait Model {
    /// See [`Vector`], also of the rest.
    type Scalar: Real;
    const LANES: usize;
    const FMA: bool;
    const PANEL: usize;
    const ROWS: usize;
    const ESTIMATES: bool;
    const SCALEF: bool;
    const SCALARS: bool;
}

impl<V: Vector> Model for V {
    type Scalar = V::Scalar;
    const LANES: usize = V::LANES;
    const FMA: bool = V::FMA;
    const PANEL: usize = V::PANEL;
    const ROWS: usize = V::ROWS;
    const ESTIMATES: bool = V::ESTIMATES;
    const SCALEF: bool = V::SCALEF;
    const SCALARS: bool = V::SCALARS;
}

/// A thread of a device: one lane with a fused multiply-add, no estimates, and nothing to fall back on.
pub(crate) struct Thread<R>(PhantomData<R>);

impl<R: Real> Model for Thread<R> {
    type Scalar = R;
    const LANES: usize = 1;
    const FMA: bool = true;
    const PANEL: usize = 1;
    const ROWS: usize = 1;
    const ESTIMATES: bool = false;
    const SCALEF: bool = false;
    const SCALARS: bool = false;
}

#[derive(Default)]
struct Recorder {
    nodes: Vec<Node>,
    known: HashMap<Node, Id>,
    /// Something was asked for that is no machine operation.
    failed: bool,
}

thread_local! {
    static RECORDER: RefCell<Recorder> = RefCell::default();
}

fn push(prim: Prim, args: [Id; 3]) -> Id {
    RECORDER.with_borrow_mut(|r| {
        let node = Node { prim, args };
        let next = r.nodes.len() as Id;
        let id = *r.known.entry(node).or_insert(next);
        if id == next {
            r.nodes.push(node);
        }
        id
    })
}

fn fail() {
    RECORDER.with_borrow_mut(|r| r.failed = true);
}

/// A program over vectors like `V`, or none where it needs what only numbers can tell.
pub(crate) fn record<M: Model>(program: &Compiled) -> Option<Recording> {
    RECORDER.with_borrow_mut(|r| *r = Recorder::default());
    let mut slots: Vec<Trace<M>> = vec![Trace(0, PhantomData); program.slots];
    let mut stores = Vec::new();
    for step in &program.steps {
        let [a, b, c] = step.args.map(|place| match place {
            Place::Slot(i) => slots[usize::from(i)],
            Place::In(i) => Trace(push(Prim::In(i), [0; 3]), PhantomData),
            Place::Constant(i) => constant(M::Scalar::from_f64(program.constants[usize::from(i)])),
            Place::Out(_) => Trace(0, PhantomData),
        });
        // SAFETY: a `Trace` needs no instructions, and what does not touch memory no memory.
        let y = unsafe { ops::apply(step.op, a, b, c) };
        match step.dst {
            Place::Slot(i) => slots[usize::from(i)] = y,
            Place::Out(i) => stores.push((i, y.0)),
            Place::In(_) | Place::Constant(_) => fail(),
        }
    }
    RECORDER.with_borrow_mut(|r| {
        let Recorder { nodes, failed, .. } = std::mem::take(r);
        (!failed).then_some(Recording { nodes, stores })
    })
}

fn constant<M: Model>(x: M::Scalar) -> Trace<M> {
    let mut bits = [0; 8];
    let bytes = bytemuck::bytes_of(&x);
    bits[..bytes.len()].copy_from_slice(bytes);
    Trace(push(Prim::Constant(u64::from_le_bytes(bits)), [0; 3]), PhantomData)
}

/// A vector like `V` by the number of its node.
pub(crate) struct Trace<M>(Id, PhantomData<M>);

impl<M> Clone for Trace<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Trace<M> {}

/// A mask by the number of its node.
#[derive(Clone, Copy)]
pub(crate) struct TraceMask(Id);

/// Methods that are one operation.
macro_rules! operations {
    ($($name:ident($self:ident $(, $arg:ident)*) => $prim:ident;)*) => { $(
        #[inline]
        unsafe fn $name($self $(, $arg: Self)*) -> Self {
            let ids = [$self.0 $(, $arg.0)*];
            let mut args = [0; 3];
            args[..ids.len()].copy_from_slice(&ids);
            Trace(push(Prim::$prim, args), PhantomData)
        }
    )* };
}

/// Comparisons.
macro_rules! comparisons {
    ($($name:ident => $prim:ident;)*) => { $(
        #[inline]
        unsafe fn $name(self, o: Self) -> TraceMask {
            TraceMask(push(Prim::$prim, [self.0, o.0, 0]))
        }
    )* };
}

impl<M: Model> Vector for Trace<M> {
    type Scalar = M::Scalar;
    type Mask = TraceMask;
    const LANES: usize = M::LANES;
    const FMA: bool = M::FMA;
    const PANEL: usize = M::PANEL;
    const ROWS: usize = M::ROWS;
    const ESTIMATES: bool = M::ESTIMATES;
    const SCALEF: bool = M::SCALEF;
    const SCALARS: bool = M::SCALARS;

    operations! {
        add(self, o) => Add;
        sub(self, o) => Sub;
        mul(self, o) => Mul;
        div(self, o) => Div;
        mul_add(self, b, c) => MulAdd;
        neg_mul_add(self, b, c) => NegMulAdd;
        sqrt(self) => Sqrt;
        floor(self) => Floor;
        round(self) => Round;
        max_or(self, o) => MaxOr;
        min_or(self, o) => MinOr;
        and(self, o) => And;
        or(self, o) => Or;
        xor(self, o) => Xor;
        shl_mantissa(self) => ShlMantissa;
        shr_mantissa(self) => ShrMantissa;
        scalef(self, n) => Scalef;
        recip_estimate(self) => RecipEstimate;
        rsqrt_estimate(self) => RsqrtEstimate;
    }
    comparisons! {
        lt => Lt;
        le => Le;
        eq => Eq;
    }

    unsafe fn splat(x: M::Scalar) -> Self {
        constant(x)
    }

    unsafe fn select(mask: TraceMask, a: Self, b: Self) -> Self {
        Trace(push(Prim::Select, [mask.0, a.0, b.0]), PhantomData)
    }

    /// The code goes on as if no lane were set; where one is, the vector is left to the loops over blocks. Where there are
    /// none, the code that serves every lane is recorded.
    unsafe fn any(mask: TraceMask) -> bool {
        if M::SCALARS {
            push(Prim::Guard, [mask.0, 0, 0]);
        }
        !M::SCALARS
    }

    // What goes through memory cannot be recorded.

    unsafe fn load(_: *const M::Scalar) -> Self {
        fail();
        Trace(0, PhantomData)
    }

    unsafe fn store(self, _: *mut M::Scalar) {
        fail();
    }

    unsafe fn load_n(_: *const M::Scalar, _: usize) -> Self {
        fail();
        Trace(0, PhantomData)
    }

    unsafe fn store_n(self, _: *mut M::Scalar, _: usize) {
        fail();
    }

    unsafe fn swap<const S: usize>(self) -> Self {
        fail();
        self
    }
}
