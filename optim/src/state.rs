//! State of an optimiser: named tensors and counters, so that a checkpoint can store it to the bit.

use retrograd_engine::{DType, Params, Tensor};

use crate::error::{Error, Result};

/// One tensor that an optimiser keeps per parameter, of the parameter's type and sizes, called
/// `parameter/suffix`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// Last part of the name: `m` in `cell.U/m`.
    pub suffix: &'static str,
    /// Value of every real component at the start.
    pub initial: f64,
}

/// What an optimiser remembers between updates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    tensors: Params,
    step: u64,
    skipped: u64,
}

/// Names of the counters among the tensors of [`State::to_params`]; no parameter has an empty name.
const COUNTERS: [&str; 2] = ["/step", "/skipped"];

/// 2^53: up to here every whole number is an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl State {
    /// The state before the first update, with these tensors.
    pub fn new(tensors: Params) -> State {
        State { tensors, step: 0, skipped: 0 }
    }

    /// The same counts with other tensors.
    pub(crate) fn with_tensors(&self, tensors: Params) -> State {
        State { tensors, ..*self }
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Updates skipped because a gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The tensors: `cell.U/m`, ...
    pub fn tensors(&self) -> &Params {
        &self.tensors
    }

    /// The tensors, mutable.
    pub fn tensors_mut(&mut self) -> &mut Params {
        &mut self.tensors
    }

    /// Counts one update made.
    pub fn count_step(&mut self) {
        self.step += 1;
    }

    /// Counts one update skipped.
    pub fn count_skipped(&mut self) {
        self.skipped += 1;
    }

    /// Everything as tensors, to be stored: the tensors themselves and the counters as `/step` and `/skipped`.
    pub fn to_params(&self) -> Params {
        let mut all = self.tensors.clone();
        for (name, count) in COUNTERS.into_iter().zip([self.step, self.skipped]) {
            all.insert(name, Tensor::scalar(count as f64));
        }
        all
    }

    /// The inverse of [`State::to_params`]. Errors: a counter that is not there or is not a count. Whether the
    /// tensors fit an optimiser and parameters is for [`Optimizer::check_state`](crate::Optimizer::check_state).
    pub fn from_params(mut all: Params) -> Result<State> {
        let mut take = |name: &str| -> Result<u64> {
            let what = || format!("optimiser state `{name}`");
            let tensor = all.remove(name).ok_or_else(|| Error::Missing { what: what() })?;
            let got = if tensor.len() == 1 { tensor.get(0).re } else { f64::NAN };
            if tensor.dtype() != DType::F64 || got.fract() != 0.0 || !(0.0..=EXACT).contains(&got) {
                let expected = "a whole number as f64 []".into();
                return Err(Error::Mismatch { what: what(), expected, got: format!("{tensor:?}") });
            }
            Ok(got as u64)
        };
        let (step, skipped) = (take(COUNTERS[0])?, take(COUNTERS[1])?);
        Ok(State { tensors: all, step, skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_read_back() -> Result<()> {
        let mut tensors = Params::new();
        tensors.insert("cell.U/m", Tensor::from_slice([2], &[1.5f32, -0.0])?);
        let mut state = State::new(tensors);
        state.count_step();
        state.count_skipped();
        state.count_step();
        let back = State::from_params(state.to_params())?;
        assert_eq!((back.step(), back.skipped()), (2, 1));
        assert!(back.tensors().require("cell.U/m")?.bit_eq(state.tensors().require("cell.U/m")?));
        Ok(())
    }

    #[test]
    fn bad_counters_are_errors() {
        let mut all = State::default().to_params();
        for bad in [
            Tensor::scalar(0.5f64),
            Tensor::scalar(-1.0f64),
            Tensor::scalar(1.0f32),
            Tensor::scalar(f64::NAN),
        ] {
            all.insert("/step", bad);
            assert!(matches!(State::from_params(all.clone()), Err(Error::Mismatch { .. })));
        }
        all.remove("/step");
        assert!(matches!(State::from_params(all), Err(Error::Missing { .. })));
    }
}
