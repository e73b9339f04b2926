//! The trait of all penalties.

use retrograd_engine::{Params, Tensor};

use crate::elementwise::{check_like, not_differentiable};
use crate::error::Result;
use crate::select::Select;
use crate::settings::Settings;

/// A term added to the loss that depends on parameters only.
pub trait Penalty: Send + Sync {
    /// Name in [`PENALTIES`](crate::PENALTIES).
    fn name(&self) -> &'static str;

    /// All settings with their values: building from them gives this penalty again (a predicate in place of
    /// patterns has no text form).
    fn settings(&self) -> Settings;

    /// Errors: a configuration out of its range.
    fn validate(&self) -> Result<()>;

    /// The value of the term; adds its gradient to `grads`. A selected parameter without a gradient is frozen and
    /// contributes nothing. Errors: nothing selected; a gradient of another type or sizes; a shape the penalty
    /// does not take. After an error the gradients are as they were.
    fn penalty(&self, params: &Params, grads: &mut Params) -> Result<f64>;
}

/// The selected parameters that have a gradient, checked. Errors: nothing selected, a gradient that does not fit.
pub(crate) fn selected<'a>(
    owner: &'static str,
    select: &Select,
    params: &'a Params,
    grads: &Params,
) -> Result<Vec<(String, &'a Tensor)>> {
    let mut found = Vec::new();
    for name in select.names(owner, params)? {
        let (Some(param), Some(grad)) = (params.get(&name), grads.get(&name)) else { continue };
        if !param.dtype().is_differentiable() {
            return Err(not_differentiable(&name, param.dtype()));
        }
        check_like(|| format!("gradient of `{name}`"), param, grad)?;
        found.push((name, param));
    }
    Ok(found)
}
