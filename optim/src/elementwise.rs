//! Updates that treat every real component alike: one slice of numbers at a time, `f32` or `f64`.

use std::collections::HashMap;

use num_traits::Float;
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

/// The slots of one parameter during an update.
pub struct Slots<'a, R> {
    name: &'a str,
    slots: Vec<(&'static str, &'a mut [R])>,
}

impl<'a, R> Slots<'a, R> {
    /// The components of the slot `suffix`. Errors: no such slot, or taken before.
    pub fn take(&mut self, suffix: &'static str) -> Result<&'a mut [R]> {
        let at = self.slots.iter().position(|(s, _)| *s == suffix);
        let at =
            at.ok_or_else(|| Error::Missing { what: format!("optimiser state `{}/{suffix}`", self.name) })?;
        Ok(self.slots.swap_remove(at).1)
    }
}

/// What one update does to one parameter, component by component. Complex numbers come as pairs of reals, so a
/// second moment is kept per real component.
pub trait Rule {
    /// Moves `p` along the gradient `g` of the same length, with the slots that the optimiser declared.
    fn apply<R: Real>(&self, p: &mut [R], g: &[R], slots: Slots<'_, R>) -> Result<()>;
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
            mine.extend(tensors.remove(slot_name(name, slot).as_str()).map(|t| (slot.suffix, t)));
        }
        with_real!(param, name, R => {
            let slots = mine.into_iter().map(|(s, t)| Ok((s, t.components_mut::<R>()?))).collect::<Result<_>>()?;
            rule.apply::<R>(param.components_mut()?, grad.components()?, Slots { name, slots })
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
