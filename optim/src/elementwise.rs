//! Updates that treat every real component alike: what happens to one is said once, and runs on the processor and on
//! devices.

use std::collections::HashMap;
use std::marker::PhantomData;

use num_traits::Float;
use retrograd_engine::device::{Code, Op, Type, Value};
use retrograd_engine::{DType, Element, Params, Tensor};

use crate::error::{Error, Result};
use crate::state::{Slot, State};

/// A real component: `f32` or `f64`.
pub trait Real: Element + Float + std::ops::AddAssign + std::ops::MulAssign {
    /// The nearest number of this type.
    fn of(x: f64) -> Self;
    /// The same number as `f64`.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn wide(self) -> f64 {
        self as f64
    }
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn wide(self) -> f64 {
        self
    }
}

/// Runs `$body` with the type `$R` set to the real type of `$tensor`'s components.
macro_rules! with_real {
    ($tensor:expr, $name:expr, $R:ident => $body:expr) => {
        match $tensor.dtype().real() {
            retrograd_engine::DType::F32 => {
                type $R = f32;
                $body
            }
            retrograd_engine::DType::F64 => {
                type $R = f64;
                $body
            }
            got => Err($crate::elementwise::not_differentiable($name, got)),
        }
    };
}
pub(crate) use with_real;

pub(crate) fn not_differentiable(name: &str, got: DType) -> Error {
    let what = format!("parameter `{name}`");
    Error::Mismatch { what, expected: "f32, f64, c32 or c64".into(), got: got.to_string() }
}

/// Arithmetic on real components: on the processor's numbers, or written down for a device. Every operation is rounded
/// once, so both give the same bits.
pub trait Arith {
    /// A number.
    type Number: Copy;
    /// The nearest number.
    fn number(&mut self, x: f64) -> Self::Number;
    /// `a + b`.
    fn add(&mut self, a: Self::Number, b: Self::Number) -> Self::Number;
    /// `a − b`.
    fn sub(&mut self, a: Self::Number, b: Self::Number) -> Self::Number;
    /// `a b`.
    fn mul(&mut self, a: Self::Number, b: Self::Number) -> Self::Number;
    /// `a / b`.
    fn div(&mut self, a: Self::Number, b: Self::Number) -> Self::Number;
    /// `√a`.
    fn sqrt(&mut self, a: Self::Number) -> Self::Number;
    /// `a` where it is larger, else `b`.
    fn larger(&mut self, a: Self::Number, b: Self::Number) -> Self::Number;
    /// `zero` where `x` is 0, else `other`.
    fn at_zero(&mut self, x: Self::Number, zero: Self::Number, other: Self::Number) -> Self::Number;
}

/// The processor's numbers.
struct Host<R>(PhantomData<R>);

impl<R: Real> Arith for Host<R> {
    type Number = R;
    #[inline(always)]
    fn number(&mut self, x: f64) -> R {
        R::of(x)
    }
    #[inline(always)]
    fn add(&mut self, a: R, b: R) -> R {
        a + b
    }
    #[inline(always)]
    fn sub(&mut self, a: R, b: R) -> R {
        a - b
    }
    #[inline(always)]
    fn mul(&mut self, a: R, b: R) -> R {
        a * b
    }
    #[inline(always)]
    fn div(&mut self, a: R, b: R) -> R {
        a / b
    }
    #[inline(always)]
    fn sqrt(&mut self, a: R) -> R {
        a.sqrt()
    }
    #[inline(always)]
    fn larger(&mut self, a: R, b: R) -> R {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn at_zero(&mut self, x: R, zero: R, other: R) -> R {
        if x == R::zero() { zero } else { other }
    }
}

/// The kernel of a device, in numbers of one type.
struct Written<'c> {
    code: &'c mut Code,
    ty: Type,
}

impl Arith for Written<'_> {
    type Number = Value;
    fn number(&mut self, x: f64) -> Value {
        Code::real(self.ty, x)
    }
    fn add(&mut self, a: Value, b: Value) -> Value {
        self.code.op(Op::Add, self.ty, &[a, b])
    }
    fn sub(&mut self, a: Value, b: Value) -> Value {
        self.code.op(Op::Sub, self.ty, &[a, b])
    }
    fn mul(&mut self, a: Value, b: Value) -> Value {
        self.code.op(Op::Mul, self.ty, &[a, b])
    }
    fn div(&mut self, a: Value, b: Value) -> Value {
        self.code.op(Op::Div, self.ty, &[a, b])
    }
    fn sqrt(&mut self, a: Value) -> Value {
        self.code.op(Op::Sqrt, self.ty, &[a])
    }
    fn larger(&mut self, a: Value, b: Value) -> Value {
        let larger = self.code.lt(b, a);
        self.code.select(larger, a, b)
    }
    fn at_zero(&mut self, x: Value, zero: Value, other: Value) -> Value {
        let nothing = Code::real(self.ty, 0.0);
        let is = self.code.eq(x, nothing);
        self.code.select(is, zero, other)
    }
}

/// Most numbers that the components of an update share.
pub const SHARED: usize = 8;
/// Most slots of a parameter.
pub const MOST_SLOTS: usize = 4;

/// One real component of a parameter during an update.
pub struct Component<'s, N> {
    /// The parameter.
    pub p: N,
    /// Its gradient.
    pub g: N,
    /// The slots, in the order in which the optimiser declares them; what they hold afterwards is kept.
    pub slots: &'s mut [N],
}

/// What one update does to one component of a parameter; it says so once, for the processor and for devices. Complex
/// numbers come as two components, so a second moment is kept per real component.
pub trait Rule {
    /// Numbers of this update that all components share, as rates: what changes from update to update.
    fn numbers(&self) -> [f64; SHARED];

    /// The parameter afterwards. `n`: [`Rule::numbers`], rounded to the component's type. Which operations it asks for
    /// depends on the configuration alone.
    fn apply<A: Arith>(&self, a: &mut A, n: &[A::Number; SHARED], c: Component<'_, A::Number>) -> A::Number;
}

/// A [`Rule`] as kernels are made of it.
pub trait Elementwise {
    /// [`Rule::numbers`].
    fn numbers(&self) -> [f64; SHARED];
    /// Writes [`Rule::apply`] in numbers of a type.
    fn write(&self, code: &mut Code, ty: Type, n: &[Value; SHARED], c: Component<'_, Value>) -> Value;
}

impl<T: Rule> Elementwise for T {
    fn numbers(&self) -> [f64; SHARED] {
        Rule::numbers(self)
    }
    fn write(&self, code: &mut Code, ty: Type, n: &[Value; SHARED], c: Component<'_, Value>) -> Value {
        self.apply(&mut Written { code, ty }, n, c)
    }
}

/// One parameter on the processor.
fn run<R: Real>(rule: &impl Rule, p: &mut [R], g: &[R], slots: Vec<&mut [R]>) {
    // As many slots as there are, known when it is compiled: so that the loop is one over registers.
    fn of<R: Real, const K: usize>(rule: &impl Rule, p: &mut [R], g: &[R], mut slots: [&mut [R]; K]) {
        let n = rule.numbers().map(R::of);
        let len = p.len().min(g.len()).min(slots.iter().map(|s| s.len()).min().unwrap_or(usize::MAX));
        let (p, g) = (&mut p[..len], &g[..len]);
        let slots = slots.each_mut().map(|s| &mut s[..len]);
        for i in 0..len {
            let mut mine: [R; K] = std::array::from_fn(|k| slots[k][i]);
            let c = Component { p: p[i], g: g[i], slots: &mut mine };
            p[i] = rule.apply(&mut Host(PhantomData), &n, c);
            for k in 0..K {
                slots[k][i] = mine[k];
            }
        }
    }
    match slots.len() {
        0 => of::<R, 0>(rule, p, g, []),
        1 => slots.try_into().map_or((), |slots| of::<R, 1>(rule, p, g, slots)),
        2 => slots.try_into().map_or((), |slots| of::<R, 2>(rule, p, g, slots)),
        3 => slots.try_into().map_or((), |slots| of::<R, 3>(rule, p, g, slots)),
        _ => slots.try_into().map_or((), |slots| of::<R, MOST_SLOTS>(rule, p, g, slots)),
    }
}

/// Applies `rule` to every parameter that has a gradient, and counts the step.
///
/// A parameter without a gradient is frozen: it and its state are left alone. Everything is checked before the
/// first number is written, so after an error parameters and state are as they were.
pub fn for_each(
    slots: &[Slot],
    grads: &Params,
    state: &mut State,
    params: &mut Params,
    rule: &impl Rule,
) -> Result<()> {
    for (name, grad) in grads.iter() {
        let param = params.get(name);
        let param = param.ok_or_else(|| Error::Unexpected { what: format!("gradient of `{name}`") })?;
        check_like(|| format!("gradient of `{name}`"), param, grad)?;
        if !param.dtype().is_differentiable() {
            return Err(not_differentiable(name, param.dtype()));
        }
        check_slots(slots, name, param, state)?;
    }
    let mut tensors: HashMap<&str, &mut Tensor> = state.tensors_mut().iter_mut().collect();
    for (name, param) in params.iter_mut() {
        let Some(grad) = grads.get(name) else { continue };
        let mut mine = Vec::with_capacity(slots.len());
        for slot in slots {
            mine.extend(tensors.remove(slot_name(name, slot).as_str()));
        }
        with_real!(param, name, R => {
            let slots = mine.into_iter().map(|t| Ok(t.components_mut::<R>()?)).collect::<Result<_>>()?;
            run::<R>(rule, param.components_mut()?, grad.components()?, slots);
            Ok::<_, Error>(())
        })?;
    }
    state.count_step();
    Ok(())
}

/// The name of a slot's tensor: `cell.U/m`.
pub(crate) fn slot_name(name: &str, slot: &Slot) -> String {
    format!("{name}/{}", slot.suffix)
}

/// Errors unless the slots of parameter `name` are in `state` with its type and sizes.
pub(crate) fn check_slots(slots: &[Slot], name: &str, param: &Tensor, state: &State) -> Result<()> {
    for slot in slots {
        let key = slot_name(name, slot);
        let what = || format!("optimiser state `{key}`");
        let tensor = state.tensors().get(&key).ok_or_else(|| Error::Missing { what: what() })?;
        check_like(what, param, tensor)?;
    }
    Ok(())
}

/// Errors unless `got` has the type and sizes of `expected`.
pub(crate) fn check_like(what: impl Fn() -> String, expected: &Tensor, got: &Tensor) -> Result<()> {
    if expected.dtype() == got.dtype() && expected.dims() == got.dims() {
        return Ok(());
    }
    let text = |t: &Tensor| format!("{} {:?}", t.dtype(), t.dims());
    Err(Error::Mismatch { what: what(), expected: text(expected), got: text(got) })
}
