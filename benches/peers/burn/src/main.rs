//! burn as a worker of `benches/peers/run`: `loop` is a loop over steps written from burn's operations, with one
//! product for all gates, `apart` the same with a product for each gate. `worker.rs` says what it reads and prints.

#[path = "../../worker.rs"]
mod worker;

mod cells;
mod kru;

use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, activation};

use worker::{Array, Case, Data, Fallible, Request};

fn main() -> Fallible<()> {
    worker::work("burn 0.22.1 (flex)", Burn::new)
}

/// The last features.
type Features = Box<dyn Fn() -> Tensor<2>>;

/// A network in burn: leaves, and how loss comes from them.
struct Burn {
    leaves: Vec<Leaf>,
    features: Features,
    target: Tensor<2, Int>,
    v: Tensor<2>,
    c: Tensor<1>,
}

/// A parameter as a leaf, of any number of dimensions: its name, and its gradient among all.
struct Leaf {
    name: String,
    gradient: Box<dyn Fn(&Gradients) -> Option<Tensor<1>>>,
    dims: Vec<usize>,
}

/// What cells are built from.
struct Builder<'a> {
    case: &'a Case,
    data: &'a Data,
    device: Device,
    apart: bool,
    leaves: Vec<Leaf>,
}

impl Builder<'_> {
    /// A parameter as a leaf.
    fn leaf<const D: usize>(&mut self, name: &str) -> Fallible<Tensor<D>> {
        let array = self.data.weight(name)?;
        let value = tensor::<D>(array, &self.device).require_grad();
        let kept = value.clone();
        let gradient =
            Box::new(move |grads: &Gradients| Some(kept.grad(grads)?.reshape([kept.shape().num_elements()])));
        self.leaves.push(Leaf { name: name.to_string(), gradient, dims: array.dims.clone() });
        Ok(value)
    }

    /// The state before the first step.
    fn zeros(&self, width: usize) -> Tensor<2> {
        Tensor::zeros([self.case.rows, width], &self.device)
    }

    /// The input of every step, with a channel of ones if asked for.
    fn steps(&self, one: bool) -> Vec<Tensor<2>> {
        self.data.x.steps(one).iter().map(|x| tensor(x, &self.device)).collect()
    }
}

impl Burn {
    /// `None` if there is no such formulation.
    fn new(request: &Request, data: &Data) -> Fallible<Option<Burn>> {
        let case = &request.case;
        let device = Device::flex().autodiff();
        let apart = request.variant == "apart";
        let mut builder = Builder { case, data, device, apart, leaves: Vec::new() };
        let after = case.cell_settings.get("reset").is_some_and(|reset| reset == "after");
        let features = match (request.variant.as_str(), case.cell.as_str(), case.operator.as_str()) {
            ("loop" | "apart", "lstm", "dense") => builder.lstm()?,
            ("loop" | "apart", "gru", "dense") if after => builder.gru()?,
            ("loop" | "apart", "gru", "lrd") => builder.gru_lrd()?,
            ("loop", "rnn", "dense") => builder.rnn()?,
            ("loop", "mgu", "dense") => builder.mgu()?,
            ("loop", "irnn", "dense") => builder.irnn()?,
            ("loop", "nru", "dense") => builder.nru()?,
            ("loop", "kru", "kron") => builder.kru()?,
            _ => return Ok(None),
        };
        let (v, c) = (builder.leaf("readout.V")?, builder.leaf("readout.c")?);
        let classes: Vec<i64> = data.target.iter().map(|&class| class.into()).collect();
        let target = Tensor::from_data(TensorData::new(classes, [case.rows, 1]), &builder.device);
        Ok(Some(Burn { leaves: builder.leaves, features, target, v, c }))
    }
}

impl worker::Network for Burn {
    type Grads = Gradients;

    fn run(&self) -> Fallible<(f64, Gradients)> {
        let y = (self.features)().matmul(self.v.clone()) + self.c.clone().unsqueeze();
        let loss = activation::log_softmax(y, 1).gather(1, self.target.clone()).mean().neg();
        let grads = loss.backward();
        Ok((loss.into_scalar::<f32>().into(), grads))
    }

    fn name(&self, grads: Gradients) -> Fallible<Vec<(String, Array)>> {
        let named = self.leaves.iter().map(|leaf| {
            let grad = (leaf.gradient)(&grads).ok_or_else(|| format!("no gradient of {}", leaf.name))?;
            let numbers =
                grad.try_into_vec_as::<f32>().map_err(|error| format!("{}: {error:?}", leaf.name))?;
            Ok((leaf.name.clone(), Array { dims: leaf.dims.clone(), numbers }))
        });
        named.collect()
    }
}

fn tensor<const D: usize>(array: &Array, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(array.numbers.clone(), array.dims.clone()), device)
}
