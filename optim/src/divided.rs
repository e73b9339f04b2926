//! Two optimisers, each for its own parameters.

use retrograd_engine::Params;

use crate::error::Result;
use crate::kfac::{Curvature, NoCurvature, Structure, Wanted};
use crate::optimizer::Optimizer;
use crate::select::Select;
use crate::settings::Settings;
use crate::state::{Slot, State};

/// One optimiser for the selected parameters and another for all others, with one state and one count of steps: a
/// [`Cayley`](crate::Cayley) for unitary matrices beside an [`RmsProp`](crate::RmsProp) for the rest.
///
/// Name, settings and learning rate are those of the optimiser of the others; the factor of a schedule is on both.
pub struct Divided {
    /// Parameters of `special`.
    pub select: Select,
    /// Optimiser of the selected parameters.
    pub special: Box<dyn Optimizer>,
    /// Optimiser of all others.
    pub others: Box<dyn Optimizer>,
}

impl Divided {
    /// Parameters or gradients that are selected, and the others.
    fn parts(&self, params: &Params) -> [Params; 2] {
        let part = |selected: bool| {
            let mine = params.iter().filter(|(name, _)| self.select.contains(name) == selected);
            mine.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
        };
        [part(true), part(false)]
    }

    /// The state with the tensors of selected parameters, and that with the others.
    fn states(&self, state: &State) -> [State; 2] {
        let of = |key: &str| key.rsplit_once('/').map_or(key.to_string(), |(name, _)| name.to_string());
        let part = |selected: bool| {
            let mine = state.tensors().iter().filter(|(key, _)| self.select.contains(&of(key)) == selected);
            let mine = mine.map(|(key, tensor)| (key.to_string(), tensor.clone())).collect();
            state.with_tensors(mine)
        };
        [part(true), part(false)]
    }
}

/// What `parts` holds, put where its names are in `whole`.
fn put_back(whole: &mut Params, parts: Params) {
    for (name, tensor) in parts.into_iter() {
        whole.insert(name, tensor);
    }
}

impl Optimizer for Divided {
    fn name(&self) -> &'static str {
        self.others.name()
    }

    fn settings(&self) -> Settings {
        self.others.settings()
    }

    fn learning_rate(&self) -> f64 {
        self.others.learning_rate()
    }

    fn slots(&self) -> Vec<Slot> {
        self.others.slots()
    }

    fn validate(&self) -> Result<()> {
        self.special.validate()?;
        self.others.validate()
    }

    fn init(&self, params: &Params) -> Result<State> {
        let [selected, rest] = self.parts(params);
        let mut state = self.others.init(&rest)?;
        put_back(state.tensors_mut(), self.special.init(&selected)?.tensors().clone());
        Ok(state)
    }

    fn check_state(&self, params: &Params, state: &State) -> Result<()> {
        let ([selected, rest], [special, others]) = (self.parts(params), self.states(state));
        self.special.check_state(&selected, &special)?;
        self.others.check_state(&rest, &others)
    }

    fn bind(&mut self, structure: &Structure, params: &Params) -> Result<()> {
        let [selected, rest] = self.parts(params);
        self.special.bind(structure, &selected)?;
        self.others.bind(structure, &rest)
    }

    fn wanted(&self) -> Option<Wanted> {
        self.others.wanted()
    }

    fn describe(&self) -> Option<String> {
        let others = self.others.describe()?;
        Some(format!("{others}; {}: {}", self.special.name(), self.select.text()))
    }

    fn takes_whole_gradients(&self) -> bool {
        self.others.takes_whole_gradients()
    }

    fn update(&self, grads: &Params, state: &mut State, params: &mut Params, lr_scale: f64) -> Result<()> {
        self.update_with(grads, state, params, lr_scale, &mut NoCurvature)
    }

    /// Of the others; the selected parameters stay where they are.
    fn take_back(&self, state: &mut State, params: &mut Params) -> Result<bool> {
        let ([_, mut rest], [_, mut others]) = (self.parts(params), self.states(state));
        if !self.others.take_back(&mut others, &mut rest)? {
            return Ok(false);
        }
        put_back(params, rest);
        put_back(state.tensors_mut(), others.tensors().clone());
        state.count_step();
        Ok(true)
    }

    fn update_with(
        &self,
        grads: &Params,
        state: &mut State,
        params: &mut Params,
        lr_scale: f64,
        curvature: &mut dyn Curvature,
    ) -> Result<()> {
        let [selected_grads, other_grads] = self.parts(grads);
        let ([mut selected, mut rest], [mut special, mut others]) = (self.parts(params), self.states(state));
        self.special.update(&selected_grads, &mut special, &mut selected, lr_scale)?;
        self.others.update_with(&other_grads, &mut others, &mut rest, lr_scale, curvature)?;
        // Nothing is written before both are done.
        put_back(params, selected);
        put_back(params, rest);
        put_back(state.tensors_mut(), special.tensors().clone());
        put_back(state.tensors_mut(), others.tensors().clone());
        state.count_step();
        Ok(())
    }
}
