//! libtorch, called from Rust: its own recurrences where it has the cell, else a loop over steps.
//!
//! The formulation `own` is libtorch's recurrence; `loop` applies structured recurrent matrices as they are (Kronecker
//! products in two groups of factors); `dense` forms them once a call.
//!
//! Loops read the input's share through `unbind`, whose gradient is linear in the number of steps; denormals are
//! flushed before libtorch starts its threads, which inherit that.

use criterion::{Criterion, Throughput};
use retrograd::engine::cpu::{Denormals, with_denormals};
use retrograd::{DType, Params, Program, RunOptions, Tensor as Array, grad};
use tch::{Kind, Tensor};

use crate::case::{Case, Fallible, Report, Request};
use crate::mgu::Mgu;

/// Measures the case of `request` and reports.
pub(crate) fn work(request: &Request) -> Fallible<()> {
    let version = "libtorch 2.13 (tch 0.26)".to_string();
    with_denormals(Denormals::Flush, || {
        tch::set_num_threads(request.threads as i32);
        let (weights, batch) = request.read_data()?;
        let Some(network) = Network::new(&request.case, &request.variant, &weights, &batch)? else {
            let Case { cell, operator, .. } = &request.case;
            let skipped = format!("no {} of {cell} on {operator}", request.variant);
            return Report { version, skipped: Some(skipped), ..Report::default() }.print();
        };
        let ((loss, grads), seconds, resident_bytes) = request.measure(|| Ok(network.run()))?;
        request.write_grads(&network.name(grads, &weights)?)?;
        let tiny = Tensor::full([1 << 20], 1e-30, (Kind::Float, tch::Device::Cpu)) * 1e-10;
        let denormals_flushed = tiny.max().double_value(&[]) == 0.0;
        Report { version, loss, seconds, resident_bytes, denormals_flushed, ..Report::default() }.print()
    })
}

/// A network in libtorch: leaves, and how loss comes from them.
struct Network {
    /// A leaf, the engine's name of the parameter, and how its gradient becomes that parameter's.
    leaves: Vec<(Tensor, String, Layout)>,
    features: Box<dyn Fn(&Tensor) -> Tensor>,
    x: Tensor,
    target: Tensor,
    v: Tensor,
    c: Tensor,
}

#[derive(Clone, Copy)]
enum Layout {
    Same,
    Transposed,
    /// The last third, of a bias only the last of three gates has.
    LastThird,
    /// Not a parameter of the engine.
    Unused,
}

/// What cells are built from.
struct Builder<'a> {
    case: &'a Case,
    weights: &'a Params,
    leaves: Vec<(Tensor, String, Layout)>,
}

impl Builder<'_> {
    /// A parameter as a leaf.
    fn leaf(&mut self, name: &str, layout: Layout) -> Fallible<Tensor> {
        let value = to_torch(self.weights.require(name)?)?;
        let value = match layout {
            Layout::Transposed => value.tr().contiguous(),
            _ => value,
        };
        Ok(self.own(value, name, layout))
    }

    fn own(&mut self, value: Tensor, name: &str, layout: Layout) -> Tensor {
        let value = value.set_requires_grad(true);
        self.leaves.push((value.shallow_clone(), name.to_string(), layout));
        value
    }

    fn state(&self, kind: Kind) -> Tensor {
        let sizes = [self.case.rows as i64, self.case.hidden as i64];
        Tensor::zeros(sizes, (kind, tch::Device::Cpu))
    }

    /// libtorch's own rnn, lstm or gru.
    fn own_recurrence(&mut self) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let w_ih = self.leaf("layer0.U", Layout::Transposed)?;
        let w_hh = self.leaf("layer0.W", Layout::Transposed)?;
        let b_ih = self.leaf("layer0.b", Layout::Same)?;
        let zeros = Tensor::zeros_like(&b_ih.detach());
        let b_hh = match self.weights.get("layer0.d") {
            Some(d) => {
                let hidden = self.case.hidden as i64;
                zeros.narrow(0, 2 * hidden, hidden).copy_(&to_torch(d)?);
                self.own(zeros, "layer0.d", Layout::LastThird)
            }
            None => self.own(zeros, "", Layout::Unused),
        };
        let weights = [w_ih, w_hh, b_ih, b_hh];
        let h = self.state(Kind::Float).unsqueeze(0);
        Ok(match self.case.cell.as_str() {
            "lstm" => Box::new(move |x| {
                let first = [h.shallow_clone(), h.shallow_clone()];
                x.lstm(&first, &weights, true, 1, 0.0, true, false, false).1.squeeze_dim(0)
            }),
            "gru" => {
                Box::new(move |x| x.gru(&h, &weights, true, 1, 0.0, true, false, false).1.squeeze_dim(0))
            }
            _ => {
                Box::new(move |x| x.rnn_tanh(&h, &weights, true, 1, 0.0, true, false, false).1.squeeze_dim(0))
            }
        })
    }

    fn mgu(&mut self) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let u = self.leaf("layer0.U", Layout::Same)?;
        let w = self.leaf("layer0.W", Layout::Same)?;
        let b = self.leaf("layer0.b", Layout::Same)?;
        let first = self.state(Kind::Float);
        Ok(Box::new(move |x| {
            let (u, b, w) = (u.chunk(2, 1), b.chunk(2, 0), w.chunk(2, 1));
            let inputs: Vec<_> = u.iter().zip(&b).map(|(u, b)| (x.matmul(u) + b).unbind(0)).collect();
            let mut h = first.shallow_clone();
            for (xf, xn) in inputs[0].iter().zip(&inputs[1]) {
                let f = xf.addmm(&h, &w[0]).sigmoid();
                let a = xn.addmm(&(&f * &h), &w[1]);
                let n = &a / (a.abs() + 1.0);
                h = h.lerp_tensor(&n, &f);
            }
            h
        }))
    }

    fn irnn(&mut self) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let u = self.leaf("layer0.U", Layout::Same)?;
        let w = self.leaf("layer0.W", Layout::Same)?;
        let b = self.leaf("layer0.b", Layout::Same)?;
        let eta = self.leaf("layer0.eta", Layout::Same)?;
        let first = self.state(Kind::Float);
        Ok(Box::new(move |x| {
            let etas = eta.unbind(0);
            let mut h = first.shallow_clone();
            for ux in (x.matmul(&u) + &b).unbind(0) {
                let mut g = h.shallow_clone();
                for rate in &etas {
                    let total = &g + &h;
                    g = g.addcmul(rate, &(ux.addmm(&total, &w).relu() - &total));
                }
                h = g;
            }
            h
        }))
    }

    /// Reset before the product; the low-rank matrices with their diagonals formed once a call.
    fn gru_lrd(&mut self) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let u = self.leaf("layer0.U", Layout::Same)?;
        let b = self.leaf("layer0.b", Layout::Same)?;
        let left = self.leaf("layer0.W.L", Layout::Same)?;
        let right = self.leaf("layer0.W.R", Layout::Same)?;
        let delta = self.leaf("layer0.W.delta", Layout::Same)?;
        let (first, hidden) = (self.state(Kind::Float), self.case.hidden as i64);
        Ok(Box::new(move |x| {
            let (left, right, delta) = (left.chunk(3, 1), right.chunk(3, 1), delta.chunk(3, 0));
            let form = |gate: usize| delta[gate].diag(0).addmm(&right[gate], &left[gate]);
            let (gates, proposal) = (Tensor::cat(&[form(0), form(1)], 1), form(2));
            let inputs = (x.matmul(&u) + &b).split_with_sizes([2 * hidden, hidden], 2);
            let mut h = first.shallow_clone();
            for (gates_x, proposal_x) in inputs[0].unbind(0).iter().zip(inputs[1].unbind(0)) {
                let rz = gates_x.addmm(&h, &gates).sigmoid().chunk(2, 1);
                let n = proposal_x.addmm(&(&rz[0] * &h), &proposal).tanh();
                h = n.lerp_tensor(&h, &rz[1]);
            }
            h
        }))
    }

    fn nru(&mut self) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let setting = |key: &str| -> Fallible<i64> {
            Ok(self.case.cell_settings.get(key).ok_or(format!("no setting `{key}`"))?.parse()?)
        };
        let (k, m) = (setting("heads")?, setting("memory")?);
        let s = (k * m).isqrt();
        let u = self.leaf("layer0.U", Layout::Same)?;
        let w = self.leaf("layer0.W", Layout::Same)?;
        let w_m = self.leaf("layer0.W_m", Layout::Same)?;
        let b = self.leaf("layer0.b", Layout::Same)?;
        let a = self.leaf("layer0.A", Layout::Same)?;
        let a_b = self.leaf("layer0.a", Layout::Same)?;
        let (first, rows) = (self.state(Kind::Float), self.case.rows as i64);
        let cpu = (Kind::Float, tch::Device::Cpu);
        let share = Tensor::cat(&[Tensor::ones([k], cpu), -Tensor::ones([k], cpu)], 0) / k as f64;
        Ok(Box::new(move |x| {
            let whole = Tensor::cat(&[&w, &w_m], 0);
            let (mut h, mut memory) = (first.shallow_clone(), Tensor::zeros([rows, m], cpu));
            for ux in (x.matmul(&u) + &b).unbind(0) {
                h = ux.addmm(&Tensor::cat(&[&h, &memory], 1), &whole).relu();
                let heads = a_b.addmm(&Tensor::cat(&[&h, &memory], 1), &a);
                let parts = heads.split_with_sizes([2 * k, 2 * s, 2 * s], 1);
                let v = parts[1].reshape([rows, 2, s, 1]) * parts[2].reshape([rows, 2, 1, s]);
                let v = v.reshape([rows, 2 * k, m]);
                let square = &v * &v;
                let fifth = &square * &square * v.abs();
                let norm = fifth.sum_dim_intlist([2i64].as_slice(), false, Kind::Float);
                let norm = norm.pow_tensor_scalar(0.2).clamp_min(1e-12);
                let strength = &parts[0] * &share / norm;
                memory += strength.unsqueeze(1).bmm(&v).squeeze_dim(1);
            }
            h
        }))
    }

    /// The Kronecker product formed once a call: all of it, or (`grouped`) two groups of factors.
    fn kru(&mut self, grouped: bool) -> Fallible<Box<dyn Fn(&Tensor) -> Tensor>> {
        let u = self.leaf("layer0.U", Layout::Same)?;
        let mut factors = Vec::new();
        while self.weights.get(&format!("layer0.W.{}", factors.len())).is_some() {
            factors.push(self.leaf(&format!("layer0.W.{}", factors.len()), Layout::Same)?);
        }
        let b = self.leaf("layer0.b", Layout::Same)?;
        let first = self.state(Kind::ComplexFloat);
        let one = Tensor::ones([1], (Kind::Float, tch::Device::Cpu));
        Ok(Box::new(move |x| {
            let product = |factors: &[Tensor]| {
                let rest = factors[1..].iter();
                rest.fold(factors[0].shallow_clone(), |product, factor| product.kron(factor))
            };
            let inputs = x.to_kind(Kind::ComplexFloat).matmul(&u).unbind(0);
            let split = if grouped { factors.len() / 2 } else { 0 };
            let inner = product(&factors[split..]).tr();
            let outer = (split > 0).then(|| product(&factors[..split]));
            let mut h = first.shallow_clone();
            let (rows, hidden) = h.size2().unwrap_or_default();
            for input in inputs {
                let z = match &outer {
                    None => input.addmm(&h, &inner),
                    Some(outer) => {
                        let (p, q) = (outer.size()[0], inner.size()[0]);
                        let y = h.reshape([rows * p, q]).matmul(&inner).reshape([rows, p, q]);
                        outer.matmul(&y).reshape([rows, hidden]) + input
                    }
                };
                let z = z.view_as_real();
                let squared = (&z * &z).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
                let scale = one.addcmul(&b, &squared.rsqrt()).relu();
                h = (z * scale.unsqueeze(-1)).view_as_complex();
            }
            let parts = h.view_as_real();
            Tensor::cat(&[parts.select(-1, 0), parts.select(-1, 1)], 1)
        }))
    }
}

impl Network {
    /// `None` if there is no such formulation.
    fn new(case: &Case, variant: &str, weights: &Params, batch: &Params) -> Fallible<Option<Network>> {
        let mut builder = Builder { case, weights, leaves: Vec::new() };
        let features = match (case.cell.as_str(), case.operator.as_str(), variant) {
            ("rnn" | "lstm" | "gru", "dense", "own") => builder.own_recurrence()?,
            (Mgu::NAME, "dense", "loop") => builder.mgu()?,
            ("irnn", "dense", "loop") => builder.irnn()?,
            ("nru", "dense", "loop") => builder.nru()?,
            ("kru", "kron", "loop") => builder.kru(true)?,
            ("kru", "kron", "dense") => builder.kru(false)?,
            ("gru", "lrd", "dense") => builder.gru_lrd()?,
            _ => return Ok(None),
        };
        let v = builder.leaf("readout.V", Layout::Same)?;
        let c = builder.leaf("readout.c", Layout::Same)?;
        let x = to_torch(batch.require("x")?)?;
        let target = Tensor::from_slice(batch.require("target")?.as_slice::<i32>()?).to_kind(Kind::Int64);
        Ok(Some(Network { leaves: builder.leaves, features, x, target, v, c }))
    }

    /// Loss, and the gradient of every leaf.
    fn run(&self) -> (f64, Vec<Tensor>) {
        let y = self.c.addmm(&(self.features)(&self.x), &self.v);
        let loss = y.cross_entropy_for_logits(&self.target);
        let leaves: Vec<&Tensor> = self.leaves.iter().map(|(leaf, _, _)| leaf).collect();
        let grads = Tensor::run_backward(&[&loss], &leaves, false, false);
        (loss.double_value(&[]), grads)
    }

    /// Gradients of leaves, as parameters of the engine.
    fn name(&self, grads: Vec<Tensor>, weights: &Params) -> Fallible<Params> {
        let mut named = Params::new();
        for ((_, name, layout), grad) in self.leaves.iter().zip(grads) {
            let grad = match layout {
                Layout::Same => grad,
                Layout::Transposed => grad.tr(),
                Layout::LastThird => grad.chunk(3, 0).remove(2),
                Layout::Unused => continue,
            };
            let grad = if grad.is_complex() { grad.resolve_conj().view_as_real() } else { grad };
            let numbers: Vec<f32> = grad.contiguous().view(-1).try_into()?;
            let ours = weights.require(name)?;
            let mut array = Array::zeros(ours.dtype(), ours.dims())?;
            array.components_mut::<f32>()?.copy_from_slice(&numbers);
            named.insert(name.clone(), array);
        }
        Ok(named)
    }
}

fn to_torch(array: &Array) -> Fallible<Tensor> {
    let mut sizes: Vec<i64> = array.dims().iter().map(|&d| d as i64).collect();
    let flat = Tensor::from_slice(array.components::<f32>()?);
    Ok(match array.dtype() {
        DType::C32 => {
            sizes.push(2);
            flat.reshape(sizes).view_as_complex()
        }
        _ => flat.reshape(sizes),
    })
}

/// Cases of [`side_by_side`]: cell, operator, T, N, C, H, formulation.
const CASES: &[(&str, &str, usize, usize, usize, usize, &str)] = &[
    ("lstm", "dense", 784, 100, 1, 128, "own"),
    ("gru", "dense", 784, 100, 1, 128, "own"),
    ("rnn", "dense", 784, 100, 1, 128, "own"),
    ("mgu", "dense", 784, 100, 1, 128, "loop"),
    ("kru", "kron", 784, 20, 1, 512, "loop"),
];

/// Both in one process, by criterion: quick to start, and less exact than `benches/peers/run`.
pub(crate) fn side_by_side() -> Fallible<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    with_denormals(Denormals::Flush, || {
        tch::set_num_threads(threads as i32);
        let mut criterion = Criterion::default().configure_from_args().sample_size(10);
        for &(cell, operator, steps, rows, input, hidden, variant) in CASES {
            let mut case = Case {
                cell: cell.into(),
                operator: operator.into(),
                cell_settings: Default::default(),
                operator_settings: Default::default(),
                steps,
                rows,
                input,
                hidden,
                output: 10,
            };
            if cell == "gru" {
                case.cell_settings.insert("reset".into(), "after".into());
            }
            compare(&mut criterion, &case, variant, threads)?;
        }
        criterion.final_summary();
        Ok(())
    })
}

fn compare(criterion: &mut Criterion, case: &Case, variant: &str, threads: usize) -> Fallible<()> {
    let mut ours = case.network(1).map_err(|e| e.map_or_else(|e| e, Into::into))?;
    case.condition(&mut ours.params)?;
    let batch = case.batch()?;
    let wrt = ours.trainable_vars();
    let mut outputs = vec![ours.loss];
    outputs.extend(grad(&mut ours.tape, ours.loss, &wrt)?);
    let options = RunOptions { threads: Some(threads), ..RunOptions::default() };
    let mut program = Program::new(&ours.tape, &outputs, options)?;
    let theirs = Network::new(case, variant, &ours.params, &batch)?.ok_or("a case without a cell")?;

    let theirs_bar = theirs.name(theirs.run().1, &ours.params)?;
    let ours_bar = program.run(&[&ours.params, &batch])?;
    for ((name, _), ours_bar) in ours.trainable.iter().zip(&ours_bar[1..]) {
        let (a, b) = (ours_bar.components::<f32>()?, theirs_bar.require(name)?);
        let largest = a.iter().fold(0f32, |m, x| m.max(x.abs()));
        let apart = a.iter().zip(b.components::<f32>()?).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        if apart.is_nan() || apart > 1e-3 * largest {
            return Err(format!("{}: gradient of {name}: {apart:e} apart of {largest:e}", case.cell).into());
        }
    }

    let sizes = format!("T{}_N{}_C{}_H{}", case.steps, case.rows, case.input, case.hidden);
    let mut group = criterion.benchmark_group(format!("vs_libtorch/{}/{sizes}", case.cell));
    group.throughput(Throughput::Elements((case.steps * case.rows) as u64));
    let mut failed = None;
    group.bench_function("retrograd", |b| {
        b.iter(|| failed = program.run(&[&ours.params, &batch]).err());
    });
    group.bench_function("libtorch", |b| b.iter(|| theirs.run()));
    group.finish();
    failed.map_or(Ok(()), |error| Err(error.into()))
}
