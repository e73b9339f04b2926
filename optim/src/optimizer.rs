//! The trait of all optimisers.

use retrograd_engine::{Params, Tensor};

use crate::elementwise::{Elementwise, check_slots, not_differentiable, slot_name, with_real};
use crate::error::{Error, Result};
use crate::kfac::{Curvature, Structure, Wanted};
use crate::settings::{Range, Settings};
use crate::state::{Slot, State};

/// An optimiser: its configuration is in `self`, what it remembers in a [`State`].
///
/// Gradients are in the steepest-descent convention (∂L/∂x + i ∂L/∂y for z = x + iy): an update subtracts,
/// without conjugation. Complex parameters are treated as pairs of reals.
pub trait Optimizer: Send + Sync {
    /// Name in [`OPTIMIZERS`](crate::OPTIMIZERS).
    fn name(&self) -> &'static str;

    /// All settings with their values: building from them gives this optimiser again.
    fn settings(&self) -> Settings;

    /// Learning rate per update, before the schedule.
    fn learning_rate(&self) -> f64;

    /// The tensors kept per parameter.
    fn slots(&self) -> Vec<Slot>;

    /// Errors: a configuration out of its range.
    fn validate(&self) -> Result<()>;

    /// The state before the first update. Errors: a configuration out of its range, a parameter that has no
    /// gradients by its type.
    fn init(&self, params: &Params) -> Result<State> {
        initial_state(self, params)
    }

    /// Whether `state`, read back from a file, belongs to this optimiser and `params`. Errors: a tensor missing,
    /// left over, or of another type or sizes.
    fn check_state(&self, params: &Params, state: &State) -> Result<()> {
        let slots = self.slots();
        for (name, param) in params.iter() {
            check_slots(&slots, name, param, state)?;
        }
        let belongs = |key: &str| {
            key.rsplit_once('/').is_some_and(|(name, suffix)| {
                params.get(name).is_some() && slots.iter().any(|slot| slot.suffix == suffix)
            })
        };
        match state.tensors().names().find(|key| !belongs(key)) {
            Some(key) => Err(Error::Unexpected { what: format!("optimiser state `{key}`") }),
            None => Ok(()),
        }
    }

    /// One update of the parameters that have a gradient, with the learning rate times `lr_scale` (the factor of
    /// the schedule). Errors: a factor that is negative or not finite; a gradient or a state tensor that is
    /// missing, belongs to nothing, or has another type or sizes. After an error nothing has changed.
    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()>;

    /// What update number `step`, counted from 1, does to every real component alike, so that a device can do it
    /// ([`DeviceUpdate`](crate::DeviceUpdate)); `None` if it is no such optimiser. Errors: a factor that is negative or
    /// not finite.
    fn elementwise(&self, step: u64, lr_scale: f64) -> Result<Option<Box<dyn Elementwise + '_>>> {
        let _ = (step, lr_scale);
        Ok(None)
    }

    /// Learns what the parameters do in their network, before [`Optimizer::init`]. Only optimisers that use curvature
    /// look.
    fn bind(&mut self, structure: &Structure, params: &Params) -> Result<()> {
        let _ = (structure, params);
        Ok(())
    }

    /// The statistics it will ask for; `None` if it needs none.
    fn wanted(&self) -> Option<Wanted> {
        None
    }

    /// Once bound: which parameters are treated in which way, in words.
    fn describe(&self) -> Option<String> {
        None
    }

    /// Whether it finds the length of a step from the gradients itself, so that they must come to it as they are: clipping
    /// would shorten every step by as much, and spoil what it expects of one.
    fn takes_whole_gradients(&self) -> bool {
        false
    }

    /// Undoes the last update where the loss after it, or a gradient, is no number; whether it did. Errors: as
    /// [`Optimizer::update`].
    fn take_back(&self, state: &mut State, params: &mut Params) -> Result<bool> {
        let _ = (state, params);
        Ok(false)
    }

    /// [`Optimizer::update`] with a network that answers questions about its curvature. Errors: as there, and those of
    /// the answers.
    fn update_with(
        &self,
        grads: &Params,
        state: &mut State,
        params: &mut Params,
        lr_scale: f64,
        curvature: &mut dyn Curvature,
    ) -> Result<()> {
        let _ = curvature;
        self.update(grads, state, params, lr_scale)
    }
}

/// The learning rate of this update. Errors: a scale that is negative or not finite.
pub fn scaled_lr(optimizer: &dyn Optimizer, lr_scale: f64) -> Result<f64> {
    Range::NonNegative.check(optimizer.name(), "lr_scale", lr_scale)?;
    Ok(optimizer.learning_rate() * lr_scale)
}

/// The state before the first update: every slot at its initial value. Errors: as [`Optimizer::init`].
pub(crate) fn initial_state<O: Optimizer + ?Sized>(optimizer: &O, params: &Params) -> Result<State> {
    optimizer.validate()?;
    let mut tensors = Params::new();
    for (name, param) in params.iter() {
        if !param.dtype().is_differentiable() {
            return Err(not_differentiable(name, param.dtype()));
        }
        for slot in optimizer.slots() {
            let mut tensor = Tensor::zeros(param.dtype(), param.dims())?;
            with_real!(tensor, name, R => {
                tensor.components_mut::<R>()?.fill(slot.initial as R);
                Ok::<_, Error>(())
            })?;
            tensors.insert(slot_name(name, &slot), tensor);
        }
    }
    Ok(State::new(tensors))
}
