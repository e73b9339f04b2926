//! Models: stacks of cells with a read-out and a loss, recorded on a tape.
//!
//! A stack that runs in one direction is one scan: layers, read-out and loss of a step are recorded together, and
//! the planner takes apart what need not be inside the time loop. A bidirectional stack has two scans for each
//! layer and one, without a state, for read-out and loss.

mod curvature;
mod hits;
mod loss;
mod record;

use std::sync::Arc;

use retrograd_engine::{DType, Horizon, Params, Tape, Var};

pub use curvature::{
    Drawn, Noise, RecordedProducts, RecordedStatistics, direction_name, hessian_product, sampled,
};
pub use hits::hits;
pub use record::BoundModel;

use crate::cell::{Cell, Input};
use crate::declare::{Declare, ParamStore};
use crate::error::{Error, Result};
use crate::init::Init;
use crate::operator::RecurrentOperator;

/// One layer of a stack: a point of the product *cell × operator × size*.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Cell.
    pub cell: Arc<dyn Cell>,
    /// Family of its recurrent matrices.
    pub operator: Arc<dyn RecurrentOperator>,
    /// Size of its state.
    pub hidden: usize,
}

/// Where outputs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readout {
    /// From the state after the last step of each row.
    Last,
    /// From the state after every step.
    EveryStep,
}

/// What outputs are compared with, for one row of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// `−log softmax(output)[target]`; targets are classes, `I32`.
    SoftmaxCrossEntropy,
    /// Mean over outputs of `(output − target)²`.
    SquaredError,
    /// Sum over outputs of the cross-entropy of `σ(output)` and a target in `[0, 1]`.
    BinaryCrossEntropy,
}

/// Whether a recording is for training or for evaluation: dropout acts in training alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout acts.
    Train,
    /// Dropout does nothing.
    Evaluate,
}

/// Description of a model. Start from [`ModelSpec::new`] and set what differs.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// What input sequences are made of.
    pub input: Input,
    /// Layers, the first reads the input.
    pub layers: Vec<Layer>,
    /// Whether every layer also runs backwards in time; outputs of both are joined `[forward, backward]`.
    pub bidirectional: bool,
    /// Where outputs are read.
    pub readout: Readout,
    /// Number of outputs.
    pub output: usize,
    /// Loss.
    pub loss: Loss,
    /// `F32` or `F64`; complex parts take the complex type of it.
    pub dtype: DType,
    /// Whether the state comes from outside and is handed back (state carried from batch to batch).
    pub stateful: bool,
    /// Whether the first state is learned (else zero).
    pub learn_h0: bool,
    /// Whether input and recurrent matrices are directions and lengths, `w_row = s v_row / ‖v_row‖`: the weight
    /// normalization of Miceli Barone, 2018, "Low-rank passthrough neural networks". It applies to what is declared by
    /// [`Declare::blocks`]: input matrices, and those of the operators `dense`, `block_diagonal`, `lr`, `lrd`, `ivh` and
    /// `kron`, with one factor of a product that has lengths and rows of length 1 in the others. Operators whose rows
    /// have a length by what they are (orthogonal and unitary ones, singular values, antisymmetric and diagonal ones)
    /// stay as they are. His bound of 10 on the lengths is the constraint `max-norm` on `*.scale`.
    pub weight_norm: bool,
    /// How far gradients reach back.
    pub horizon: Horizon,
    /// Steps between states that are kept, where the others are walked back to; `None` where all are kept or replayed as
    /// a plan sees fit. For stacks in one direction of cells that have an inverse. Gradients change by rounding: see
    /// [`Scan::walk_back`](retrograd_engine::Scan::walk_back).
    pub walk_back: Option<usize>,
    /// Probability with which an output of a layer is dropped on its way to the next layer.
    pub dropout: f64,
    /// Probability with which an element of the recurrent state is dropped, by one mask for the whole sequence
    /// (variational dropout; Gal, Ghahramani, 2016), wherever a recurrent operator reads it.
    pub recurrent_dropout: f64,
    /// Whether all gates share one mask of the recurrent state, as published for tied low-rank operators; else each has
    /// its own.
    pub shared_masks: bool,
    /// Probability with which an input is dropped: of symbols all that stands for one, its bias included, at every step
    /// anew; of vectors single elements, by one mask for the whole sequence.
    pub input_dropout: f64,
    /// Probability with which an element of what the read-out sees is dropped, by one mask for the whole sequence.
    pub readout_dropout: f64,
    /// Numbers that stand for a symbol before the first layer reads it, learned with the rest: a table
    /// `embedding.E` `[V, width]`. `None`: the first layer's input matrices are the table.
    pub embedding: Option<usize>,
    /// Whether an input `mask` weights the loss: `[T,N]` for every step, `[N]` for the last.
    pub masked: bool,
    /// Whether an input `lengths` `[N]` ends each row's sequence.
    pub lengths: bool,
    /// Whether outputs themselves are handed out, not only their loss.
    pub predictions: bool,
    /// Whether every state after every step is handed out, and can be moved from outside: see [`Recorded::probes`].
    pub probes: bool,
    /// Parameters that are not trained, each with all below it (`layer0.W`).
    pub frozen: Vec<String>,
    /// Parameters, each with all below it, that begin otherwise than their cells say; the last that fits counts. Every gate
    /// of a matrix begins as a matrix of its own. What is orthogonal or unitary by the numbers it is made of, indices, and
    /// lengths of weight normalization begin as they must.
    pub initial: Vec<(String, Init)>,
}

impl ModelSpec {
    /// Layers, a read-out and a loss; single precision, one direction, zero state, full horizon, no dropout, no
    /// mask, no lengths.
    pub fn new(input: Input, layers: Vec<Layer>, readout: Readout, output: usize, loss: Loss) -> ModelSpec {
        ModelSpec {
            input,
            layers,
            bidirectional: false,
            readout,
            output,
            loss,
            dtype: DType::F32,
            stateful: false,
            learn_h0: false,
            weight_norm: false,
            horizon: Horizon::Full,
            walk_back: None,
            dropout: 0.0,
            recurrent_dropout: 0.0,
            shared_masks: false,
            input_dropout: 0.0,
            readout_dropout: 0.0,
            embedding: None,
            masked: false,
            lengths: false,
            predictions: false,
            probes: false,
            frozen: Vec::new(),
            initial: Vec::new(),
        }
    }
}

/// A part of the state that goes in and out of a stateful model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSlot {
    /// Name of the input it comes in by, `state.0.h`.
    pub input: String,
    /// Element type.
    pub dtype: DType,
    /// Size of a row.
    pub width: usize,
    /// The state after the last step, `[N, width]`.
    pub last: Var,
}

/// A part of the state, seen and moved at every step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Layer.
    pub layer: usize,
    /// Name of the part.
    pub part: &'static str,
    /// Name of the input `[T, N, width]` that is added to the part after every step: `probe.0.h`. The gradient of a loss
    /// by it, at zero, is that by the state after every step.
    pub input: String,
    /// The same input on the tape.
    pub var: Var,
    /// The part after every step, `[T, N, width]`.
    pub history: Var,
}

/// A recorded model.
///
/// Inputs, as far as the model has them: `x` (`[T,N,C]`, or `[T,N]` of `I32` for symbols), `target` (`[T,N]` or `[N]`
/// of `I32` for classes, else `[T,N,O]` or `[N,O]`), `mask`, `lengths` (`[N]` of `I32`), `dropout_seed` (`[]` of
/// `I32`, training with dropout) and those of [`Recorded::states`].
#[derive(Debug)]
pub struct Recorded {
    /// The tape.
    pub tape: Tape,
    /// `loss_sum / count`, what is minimized (0 if nothing counts).
    pub loss: Var,
    /// Sum of the losses of all rows (and steps), weighted by the mask.
    pub loss_sum: Var,
    /// Number of rows (and steps) in the sum, weighted by the mask.
    pub count: Var,
    /// How many of them have their largest output at the target, weighted by the mask; classes only.
    pub correct: Option<Var>,
    /// Outputs before softmax or sigmoid, `[T,N,O]` or `[N,O]`, if asked for.
    pub predictions: Option<Var>,
    /// How many rows and steps there were whose inner equation was not solved, `[]`; of models with cells that solve one.
    pub unconverged: Option<Var>,
    /// Every part of the state at every step, if asked for.
    pub probes: Vec<Probe>,
    /// States after the last step; of a stateful model also its state inputs. Of a bidirectional model none.
    pub states: Vec<StateSlot>,
    /// First values of all parameters.
    pub params: Params,
    /// Parameters that are trained.
    pub trainable: Vec<(String, Var)>,
    /// Names of the Kronecker factors that are trained (for the soft unitary penalty).
    pub factors: Vec<String>,
}

impl Recorded {
    /// Names of the inputs, in order of declaration.
    pub fn input_names(&self) -> Vec<String> {
        self.tape.inputs().map(|(name, _, _)| name.to_string()).collect()
    }

    /// Values of the trained parameters, in order: what a gradient is taken by.
    pub fn trainable_vars(&self) -> Vec<Var> {
        self.trainable.iter().map(|(_, v)| *v).collect()
    }
}

/// A model whose description holds together.
#[derive(Clone, Debug)]
pub struct Model {
    spec: ModelSpec,
}

impl ModelSpec {
    /// Whether training draws masks.
    pub(crate) fn drops(&self) -> bool {
        let between = if self.layers.len() > 1 { self.dropout } else { 0.0 };
        [between, self.recurrent_dropout, self.input_dropout, self.readout_dropout].iter().any(|d| *d > 0.0)
    }
}

impl Model {
    /// Checks a description. Errors: what contradicts itself or is out of range; what the cells and operators say
    /// about their sizes is said when parameters are declared.
    pub fn new(spec: ModelSpec) -> Result<Model> {
        let fail = |what: String| Err(Error::model(what));
        if spec.layers.is_empty() {
            return fail("no layers, at least 1".into());
        }
        if spec.output == 0 {
            return fail("0 outputs, at least 1".into());
        }
        for (name, dropout) in [
            ("dropout", spec.dropout),
            ("recurrent_dropout", spec.recurrent_dropout),
            ("input_dropout", spec.input_dropout),
            ("readout_dropout", spec.readout_dropout),
        ] {
            if !(0.0..1.0).contains(&dropout) {
                return fail(format!("{name} {dropout}, expected 0 <= {name} < 1"));
            }
        }
        match (spec.embedding, spec.input) {
            (Some(0), _) => return fail("an embedding of 0 numbers, at least 1".into()),
            (Some(width), Input::Dense(_)) => {
                return fail(format!("an embedding of {width} numbers for an input that is no symbols"));
            }
            _ => {}
        }
        if !matches!(spec.dtype, DType::F32 | DType::F64) {
            return fail(format!("element type {}, expected f32 or f64", spec.dtype));
        }
        if spec.horizon == Horizon::Steps(0) {
            return fail("a horizon of 0 steps, at least 1".into());
        }
        if spec.stateful && spec.bidirectional {
            return fail("stateful and bidirectional: a backward state has no next batch to go to".into());
        }
        if spec.walk_back.is_some() && (spec.bidirectional || spec.probes) {
            return fail("walk_back with bidirectional or probes: their states are not walked back".into());
        }
        if spec.probes && spec.bidirectional {
            return fail("probes and bidirectional: states of both directions have no common time".into());
        }
        if spec.stateful && spec.learn_h0 {
            return fail("stateful and learn_h0: the first state is either carried or learned".into());
        }
        Ok(Model { spec })
    }

    /// The description.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Declares the parameters and what is known about them, on a tape of its own.
    pub fn declare(&self, seed: u64) -> Result<ParamStore> {
        let (mut tape, mut store) = (Tape::new(), ParamStore::new(seed, self.spec.dtype)?);
        BoundModel::declare(&mut Declare::new(&mut tape, &mut store), &self.spec)?;
        Ok(store)
    }

    /// Records the model for training, parameters beginning from `seed`.
    pub fn record(&self, seed: u64) -> Result<Recorded> {
        self.record_for(Mode::Train, seed)
    }

    /// Records the model. Both modes have the same parameters.
    pub fn record_for(&self, mode: Mode, seed: u64) -> Result<Recorded> {
        record::record(&self.spec, mode, seed)
    }
}
