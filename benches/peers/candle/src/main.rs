//! candle as a worker of `benches/peers/run`: `own` is candle_nn's LSTM and GRU, `loop` a loop over steps written from
//! candle's operations. `worker.rs` says what it reads and prints.

#[path = "../../worker.rs"]
mod worker;

mod cells;
mod kru;

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::rnn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN};
use candle_nn::{VarBuilder, loss};

use worker::{Array, Case, Data, Fallible, Request};

fn main() -> Fallible<()> {
    worker::work("candle 0.11.1", Candle::new)
}

/// The last features.
type Features = Box<dyn Fn() -> candle_core::Result<Tensor>>;

/// A network in candle: leaves, and how loss comes from them.
struct Candle {
    leaves: Vec<(Var, String, Layout)>,
    features: Features,
    target: Tensor,
    v: Tensor,
    c: Tensor,
}

/// How a leaf's gradient becomes the parameter's.
#[derive(Clone, Copy)]
enum Layout {
    Same,
    Transposed,
    /// The last third, of a bias that only the last of three gates has.
    LastThird,
}

/// What cells are built from.
struct Builder<'a> {
    case: &'a Case,
    data: &'a Data,
    leaves: Vec<(Var, String, Layout)>,
}

impl Builder<'_> {
    /// A parameter as a leaf.
    fn leaf(&mut self, name: &str) -> Fallible<Tensor> {
        let value = self.data.weight(name)?.clone();
        self.own(&value, name, Layout::Same)
    }

    /// A leaf of that value, whose gradient becomes that of the parameter `name`.
    fn own(&mut self, value: &Array, name: &str, layout: Layout) -> Fallible<Tensor> {
        let var = Var::from_tensor(&tensor(value)?)?;
        let value = var.as_tensor().clone();
        self.leaves.push((var, name.to_string(), layout));
        Ok(value)
    }

    /// The state before the first step.
    fn zeros(&self, width: usize) -> Fallible<Tensor> {
        Ok(Tensor::zeros((self.case.rows, width), DType::F32, &Device::Cpu)?)
    }

    /// The input of every step, with a channel of ones if asked for.
    fn steps(&self, one: bool) -> Fallible<Vec<Tensor>> {
        self.data.x.steps(one).iter().map(tensor).collect()
    }

    /// candle_nn's own recurrence.
    fn own_recurrence(&mut self) -> Fallible<Features> {
        let (input, hidden) = (self.case.input, self.case.hidden);
        let mut named = HashMap::new();
        for (theirs, ours) in [("weight_ih_l0", "layer0.U"), ("weight_hh_l0", "layer0.W")] {
            let value = self.data.weight(ours)?.transposed();
            named.insert(theirs.to_string(), self.own(&value, ours, Layout::Transposed)?);
        }
        named.insert("bias_ih_l0".to_string(), self.leaf("layer0.b")?);
        if self.data.has("layer0.d") {
            let mut second = vec![0.0; 2 * hidden];
            second.extend(&self.data.weight("layer0.d")?.numbers);
            let second = Array { dims: vec![3 * hidden], numbers: second };
            named.insert("bias_hh_l0".to_string(), self.own(&second, "layer0.d", Layout::LastThird)?);
        }
        let named = VarBuilder::from_tensors(named, DType::F32, &Device::Cpu);
        let x = tensor(&self.data.x.rows_first())?;
        let last = || candle_core::Error::Msg("no steps".to_string());
        if self.case.cell == "lstm" {
            let layer =
                LSTM::new(input, hidden, LSTMConfig { b_hh_init: None, ..Default::default() }, named)?;
            return Ok(Box::new(move || Ok(layer.seq(&x)?.last().ok_or_else(last)?.h().clone())));
        }
        let layer = GRU::new(input, hidden, GRUConfig::default(), named)?;
        Ok(Box::new(move || Ok(layer.seq(&x)?.last().ok_or_else(last)?.h().clone())))
    }
}

impl Candle {
    /// `None` if there is no such formulation.
    fn new(request: &Request, data: &Data) -> Fallible<Option<Candle>> {
        let case = &request.case;
        let mut builder = Builder { case, data, leaves: Vec::new() };
        let after = case.cell_settings.get("reset").is_some_and(|reset| reset == "after");
        let features = match (request.variant.as_str(), case.cell.as_str(), case.operator.as_str()) {
            ("own", "lstm", "dense") => builder.own_recurrence()?,
            ("own", "gru", "dense") if after => builder.own_recurrence()?,
            ("loop", "rnn", "dense") => builder.rnn()?,
            ("loop", "lstm", "dense") => builder.lstm()?,
            ("loop", "gru", "dense") if after => builder.gru()?,
            ("loop", "mgu", "dense") => builder.mgu()?,
            ("loop", "irnn", "dense") => builder.irnn()?,
            ("loop", "nru", "dense") => builder.nru()?,
            ("loop", "gru", "lrd") => builder.gru_lrd()?,
            ("loop", "kru", "kron") => builder.kru()?,
            _ => return Ok(None),
        };
        let (v, c) = (builder.leaf("readout.V")?, builder.leaf("readout.c")?);
        let target = Tensor::new(data.target.as_slice(), &Device::Cpu)?;
        Ok(Some(Candle { leaves: builder.leaves, features, target, v, c }))
    }
}

impl worker::Network for Candle {
    type Grads = GradStore;

    fn run(&self) -> Fallible<(f64, GradStore)> {
        let y = (self.features)()?.matmul(&self.v)?.broadcast_add(&self.c)?;
        let loss = loss::cross_entropy(&y, &self.target)?;
        let grads = loss.backward()?;
        Ok((loss.to_scalar::<f32>()?.into(), grads))
    }

    fn name(&self, grads: GradStore) -> Fallible<Vec<(String, Array)>> {
        let named = self.leaves.iter().map(|(leaf, name, layout)| {
            let grad = grads.get(leaf).ok_or_else(|| format!("no gradient of {name}"))?;
            let grad = array(grad)?;
            let grad = match layout {
                Layout::Same => grad,
                Layout::Transposed => grad.transposed(),
                Layout::LastThird => grad.columns(grad.dims[0] / 3 * 2, grad.dims[0] / 3),
            };
            Ok((name.clone(), grad))
        });
        named.collect()
    }
}

fn tensor(array: &Array) -> Fallible<Tensor> {
    Ok(Tensor::from_slice(&array.numbers, array.dims.as_slice(), &Device::Cpu)?)
}

fn array(tensor: &Tensor) -> Fallible<Array> {
    Ok(Array { dims: tensor.dims().to_vec(), numbers: tensor.flatten_all()?.to_vec1()? })
}
