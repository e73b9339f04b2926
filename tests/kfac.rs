//! K-FAC: blocks against exact Fisher matrices, and training with it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use num_complex::Complex64;
use retrograd::cells::model::{Drawn, direction_name, hessian_product};
use retrograd::cells::{self, CELLS, Layer, Loss, Model, ModelSpec, Readout};
use retrograd::engine::curvature::{gauss_newton_of_loss, gauss_newton_product};
use retrograd::engine::statistics::{StatisticsOptions, vjp_with_statistics};
use retrograd::ops;
use retrograd::run::{LAST, METRICS, RunFolder};
use retrograd::train::{Session, Step, TrainConfig, Trainer, Watch, stored_config};
use retrograd::{DType, Params, Program, RunOptions, Shape, Tape, Tensor, matmul, scan};

/// Reproducible numbers: uniform, and normal ones.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn tensor(&mut self, dims: &[usize], scale: f64) -> Tensor {
        let mut t = Tensor::zeros(DType::F64, dims).unwrap();
        t.fill_with(|_| (scale * self.normal()).into());
        t
    }
}

fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{what}: {got}, expected {expected}");
}

/// Lower Cholesky factor of `c^|i−j|`, the covariance of a stationary AR(1) process of `n` steps.
fn process(n: usize, c: f64) -> Vec<Vec<f64>> {
    let rest = (1.0 - c * c).sqrt();
    let entry = |i: usize, j: usize| match j {
        0 => c.powi(i as i32),
        _ if j <= i => rest * c.powi((i - j) as i32),
        _ => 0.0,
    };
    (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect()
}

/// `h_t = ρ h_{t−1} + x_t W` with normal outputs of unit variance at every step, at the last of variance `1 − ρ²`: the
/// cotangent of `x_t W` is then an AR(1) process from the last step to the first, stationary, and independent of the
/// inputs. With inputs from a stationary AR(1) process all that Option 1 assumes is true, so that what it makes of the
/// engine's statistics is the inverse of the exact Fisher matrix. Sequences are chosen whose second moments are those
/// of the processes exactly.
#[test]
fn option_1_is_exact_on_a_linear_gaussian_recurrent_model() {
    use retrograd::optim::kfac::faer::Mat;
    use retrograd::optim::kfac::{Approximation, Damping, Factors, Inverse};
    const T: usize = 4;
    const I: usize = 2;
    const O: usize = 2;
    let (rho, phi) = (0.6, [0.8, -0.3]);
    let mut tape = Tape::new();
    let w = tape.param("w", DType::F64, [I, O]).unwrap();
    let x = tape.input("x", DType::F64, Shape::sequence([I])).unwrap();
    let bar = tape.input("bar", DType::F64, Shape::sequence([O])).unwrap();
    let zero = tape.param("zero", DType::F64, [O]).unwrap();
    let (_, y) = scan(&mut tape, zero, x, |tape, h, x| {
        let decayed = ops::scale(tape, h, rho)?;
        let s = matmul(tape, x, w)?;
        let h = ops::add(tape, decayed, s)?;
        Ok((h, h))
    })
    .unwrap();
    let options = StatisticsOptions::default();
    let (_, found) = vjp_with_statistics(&mut tape, &[(y, bar)], &[w], &[w], &options).unwrap();
    let m = &found.maps[0];
    let precision = tape.input("precision", DType::F64, Shape::sequence([1])).unwrap();
    let d = tape.input("d", DType::F64, Shape::shared([I, O])).unwrap();
    let product =
        gauss_newton_product(&mut tape, &[y], &mut |t, _, u| ops::mul(t, u, precision), &[w], &[d]).unwrap();
    let outputs = [m.a0.unwrap(), m.a1.unwrap(), m.g0, m.g1.unwrap(), product[0]];

    // Row (k, l): the k-th column of the root of the inputs' covariance, the l-th unit noise.
    let roots = phi.map(|c| process(T, c));
    let (inputs, noises) = (T * I, T * O);
    let rows = inputs * noises;
    let mut bound = Params::new();
    let mut fill = |name: &str, width: usize, f: &dyn Fn(usize, usize, usize) -> f64| {
        let mut t = Tensor::zeros(DType::F64, [T, rows, width]).unwrap();
        t.fill_with(|i| f(i / width / rows, i / width % rows, i % width).into());
        bound.insert(name, t);
    };
    fill("x", I, &|t, row, i| {
        let k = row / noises;
        let scale = (inputs as f64).sqrt() * (1.0 + i as f64);
        if k / T == i { scale * roots[i][t][k % T] } else { 0.0 }
    });
    let at_end = |t: usize| if t + 1 == T { 1.0 / (1.0 - rho * rho) } else { 1.0 };
    fill("bar", O, &|t, row, o| {
        let l = row % noises;
        if l == t * O + o { (noises as f64 * at_end(t)).sqrt() } else { 0.0 }
    });
    fill("precision", 1, &|t, _, _| at_end(t) / rows as f64);
    bound.insert("w", Random(1).tensor(&[I, O], 1.0));
    bound.insert("zero", Tensor::zeros(DType::F64, [O]).unwrap());
    let mut program = Program::new(&tape, &outputs, RunOptions::default()).unwrap();

    // The exact Fisher matrix, column by column, times what the approximation makes of unit vectors.
    let n = I * O;
    let mut fisher = vec![vec![0.0; n]; n];
    let mut statistics = Vec::new();
    for k in 0..n {
        let mut d = Tensor::zeros(DType::F64, [I, O]).unwrap();
        d.fill_with(|i| if i == k { 1.0.into() } else { 0.0.into() });
        bound.insert("d", d);
        let out = program.run(&[&bound]).unwrap();
        (0..n).for_each(|i| fisher[i][k] = out[4].get(i).re);
        statistics = out[..4].to_vec();
    }
    let terms = (T * rows) as f64;
    let g = 1.0 / (1.0 - rho * rho);
    let last = (T - 1) as f64 / T as f64;
    for i in 0..I {
        for j in 0..I {
            let same = if i == j { (1.0 + i as f64).powi(2) } else { 0.0 };
            close("A0", statistics[0].get(i * I + j).re / terms, same, 1e-12);
            close("A1", statistics[1].get(i * I + j).re / terms, last * phi[i] * same, 1e-12);
            let same = if i == j { g } else { 0.0 };
            close("G0", statistics[2].get(i * O + j).re / terms, same, 1e-12);
            close("G1", statistics[3].get(i * O + j).re / terms, last * rho * same, 1e-12);
        }
    }
    // The divisor of C_1 counts the step before the first as 0; the processes have none.
    let matrix = |t: &Tensor, factor: f64| {
        let entry = |i: usize, j: usize| factor * t.get(i * 2 + j).re / terms;
        Mat::from_fn(2, 2, entry)
    };
    let factors = Factors {
        a0: matrix(&statistics[0], 1.0),
        a1: Some(matrix(&statistics[1], 1.0 / last)),
        g0: matrix(&statistics[2], 1.0),
        g1: Some(matrix(&statistics[3], 1.0 / last)),
    };
    let kind = Approximation::Option1 { absolute: false };
    let inverse = Inverse::new(kind, &factors, Damping::NONE, &[(T, 1.0)], 1.0).unwrap();
    for k in 0..n {
        let unit = Mat::from_fn(O, I, |o, i| f64::from(u8::from(i * O + o == k)));
        let column = inverse.apply(&unit);
        for i in 0..n {
            let along: f64 = (0..n).map(|j| fisher[i][j] * column[(j % O, j / O)]).sum();
            close("F times its inverse", along, f64::from(u8::from(i == k)), 1e-10);
        }
    }
}

/// Explicit Hessians of the losses against derivatives of their gradients.
#[test]
fn hessians_of_losses() {
    let mut random = Random(2);
    for loss in [Loss::SoftmaxCrossEntropy, Loss::BinaryCrossEntropy, Loss::SquaredError] {
        let mut tape = Tape::new();
        let t = &mut tape;
        let w = t.param("w", DType::F64, [3, 4]).unwrap();
        let d = t.input("d", DType::F64, Shape::shared([3, 4])).unwrap();
        let x = t.input("x", DType::F64, Shape::rows([3])).unwrap();
        let y = matmul(t, x, w).unwrap();
        let mut bound = Params::new();
        bound.insert("w", random.tensor(&[3, 4], 1.0));
        bound.insert("d", random.tensor(&[3, 4], 1.0));
        bound.insert("x", random.tensor(&[5, 3], 1.0));
        let losses = match loss {
            Loss::SoftmaxCrossEntropy => {
                let target = t.input("target", DType::I32, Shape::rows([])).unwrap();
                bound.insert("target", Tensor::from_slice([5], &[0i32, 3, 1, 1, 2]).unwrap());
                ops::softmax_cross_entropy(t, y, target, None).unwrap()
            }
            _ => {
                let target = t.input("target", DType::F64, Shape::rows([4])).unwrap();
                let mut tensor = random.tensor(&[5, 4], 1.0);
                if loss == Loss::BinaryCrossEntropy {
                    let before = tensor.clone();
                    tensor.fill_with(|i| f64::from(u8::from(before.get(i).re > 0.0)).into());
                }
                bound.insert("target", tensor);
                match loss {
                    Loss::BinaryCrossEntropy => ops::bce_with_logits(t, y, target).unwrap(),
                    _ => {
                        let squares = ops::squared_error(t, y, target).unwrap();
                        ops::scale(t, squares, 0.25).unwrap()
                    }
                }
            }
        };
        let sum = ops::sum_all(t, losses).unwrap();
        let taken = gauss_newton_of_loss(t, sum, &[y], &[w], &[d]).unwrap()[0];
        let hessian = |t: &mut Tape, u| {
            hessian_product(t, loss, y, u)
                .map_err(|e| retrograd::engine::Error::argument("test", e.to_string()))
        };
        let given = gauss_newton_product(t, &[y], &mut |t, _, u| hessian(t, u), &[w], &[d]).unwrap()[0];
        let out =
            Program::new(&tape, &[taken, given], RunOptions::default()).unwrap().run(&[&bound]).unwrap();
        for i in 0..12 {
            close(&format!("{loss:?}"), out[1].get(i).re, out[0].get(i).re, 1e-12);
        }
    }
}

fn model((cell, operator): (&str, &str), loss: Loss, readout: Readout) -> ModelSpec {
    let none = cells::Settings::new();
    let cell = cells::cell(cell, &none).unwrap();
    let operator = cells::operator(operator, &none).unwrap();
    let layer = Layer { cell, operator, hidden: 4 };
    let mut spec = ModelSpec::new(cells::Input::Dense(2), vec![layer], readout, 2, loss);
    spec.dtype = DType::F64;
    spec
}

/// `E[(gradient · d)²]` over drawn targets is `dᵀ F d`: what makes full and diagonal blocks, and ties drawn targets,
/// weights and exact products together, with masks and lengths, real and complex.
#[test]
fn drawn_targets_have_the_fisher_information() {
    let (rnn, kru) = (("rnn", "dense"), ("kru", "kron"));
    let cases = [
        (rnn, Loss::SoftmaxCrossEntropy, Readout::Last, false, false),
        (rnn, Loss::SoftmaxCrossEntropy, Readout::EveryStep, true, true),
        (rnn, Loss::BinaryCrossEntropy, Readout::EveryStep, true, false),
        (rnn, Loss::SquaredError, Readout::EveryStep, false, true),
        (kru, Loss::BinaryCrossEntropy, Readout::EveryStep, true, true),
    ];
    const STEPS: usize = 4;
    const ROWS: usize = 3;
    for (network, loss, readout, masked, lengths) in cases {
        let mut spec = model(network, loss, readout);
        (spec.masked, spec.lengths) = (masked, lengths);
        let model = Model::new(spec.clone()).unwrap();
        let statistics = model.record_statistics(1, Drawn::FromModel, true, usize::MAX).unwrap();
        let products = model.record_products(1, 1).unwrap();
        let mut random = Random(3);
        let mut bound = model.declare(1).unwrap().into_params();
        let mut direction = Params::new();
        for (name, _) in &products.trainable {
            let mut d = bound.get(name).unwrap().clone();
            let complex = d.dtype().is_complex();
            d.fill_with(|_| Complex64::new(random.normal(), if complex { random.normal() } else { 0.0 }));
            bound.insert(direction_name(0, name), d.clone());
            direction.insert(name.clone(), d);
        }
        bound.insert("x", random.tensor(&[STEPS, ROWS, 2], 1.0));
        let ends = Tensor::from_slice([ROWS], &[4i32, 2, 3]).unwrap();
        bound.insert("lengths", ends.clone());
        let mut mask = Tensor::zeros(DType::F64, [STEPS, ROWS]).unwrap();
        let end = |row: usize| if lengths { ends.get(row).re as usize } else { STEPS };
        mask.fill_with(|i| {
            let inside = i / ROWS < end(i % ROWS);
            if inside { (0.5 + (i % 3) as f64 * 0.5).into() } else { 0.0.into() }
        });
        bound.insert("mask", mask);
        let mut program = Program::new(&products.tape, &products.products, RunOptions::default()).unwrap();
        let exact = program.run(&[&bound]).unwrap()[0].item().unwrap();
        let mut program =
            Program::new(&statistics.tape, &statistics.gradients, RunOptions::default()).unwrap();
        let lead: &[usize] = if readout == Readout::Last { &[ROWS] } else { &[STEPS, ROWS] };
        let draws = 4000;
        let mut mean = 0.0;
        for _ in 0..draws {
            let mut noise = Tensor::zeros(DType::F64, [lead, &[2]].concat()).unwrap();
            noise.fill_with(|_| match loss {
                Loss::SoftmaxCrossEntropy => (-(-(1.0 - random.unit()).ln()).ln()).into(),
                Loss::BinaryCrossEntropy => random.unit().into(),
                Loss::SquaredError => random.normal().into(),
            });
            bound.insert("noise", noise);
            let out = program.run(&[&bound]).unwrap();
            let along: f64 = statistics
                .trainable
                .iter()
                .zip(&out)
                .map(|((name, _), g)| {
                    let d = direction.get(name).unwrap();
                    (0..g.len()).map(|i| (g.get(i) * d.get(i).conj()).re).sum::<f64>()
                })
                .sum();
            mean += along * along / (draws * ROWS) as f64;
        }
        // Four standard errors of a mean of squares, the square of a normal number having variance 2.
        let tolerance = 4.0 * (2.0 / draws as f64).sqrt() * exact;
        close(
            &format!("{network:?} {loss:?} {readout:?} mask {masked} lengths {lengths}"),
            mean,
            exact,
            tolerance,
        );
    }
}

/// One real component of a parameter: its name, place, and whether it is the imaginary part.
type Component = (String, usize, bool);

fn components(bound: &Params, names: &[&str]) -> Vec<Component> {
    let mut all = Vec::new();
    for name in names {
        let tensor = bound.get(name).unwrap();
        for place in 0..tensor.len() {
            all.extend((0..tensor.dtype().planes()).map(|plane| (name.to_string(), place, plane == 1)));
        }
    }
    all
}

/// The Fisher matrix of some parameters, from exact products with pairs of unit vectors.
fn dense_fisher(model: &Model, bound: &Params, wanted: &[Component]) -> Vec<Vec<f64>> {
    let products = model.record_products(1, 2).unwrap();
    let mut program = Program::new(&products.tape, &products.products, RunOptions::default()).unwrap();
    let mut bound = bound.clone();
    let direct = |bound: &mut Params, k: usize, (name, place, imaginary): &Component| {
        for (other, _) in &products.trainable {
            let mut d = bound.get(other).unwrap().clone();
            let unit = if *imaginary { Complex64::I } else { Complex64::ONE };
            d.fill_with(|i| if other == name && i == *place { unit } else { Complex64::ZERO });
            bound.insert(direction_name(k, other), d);
        }
    };
    let mut fisher = vec![vec![0.0; wanted.len()]; wanted.len()];
    for (i, a) in wanted.iter().enumerate() {
        direct(&mut bound, 0, a);
        for (j, b) in wanted.iter().enumerate().take(i + 1) {
            direct(&mut bound, 1, b);
            let product = program.run(&[&bound]).unwrap()[1].item().unwrap();
            (fisher[i][j], fisher[j][i]) = (product, product);
        }
    }
    fisher
}

/// Every entry within five standard errors of a mean of products of normal numbers.
fn agree(what: &str, got: &[Vec<f64>], exact: &[Vec<f64>], draws: usize) {
    let largest = (0..exact.len()).map(|i| exact[i][i]).fold(0.0, f64::max);
    assert!(largest > 0.0, "{what}: nothing to compare");
    for i in 0..exact.len() {
        for j in 0..exact.len() {
            let error = ((exact[i][i] * exact[j][j] + exact[i][j].powi(2)) / draws as f64).sqrt();
            close(&format!("{what} ({i}, {j})"), got[i][j], exact[i][j], 5.0 * error + 1e-9 * largest);
        }
    }
}

/// Each kind of block against the dense Fisher matrix of a small network, entry by entry, where what the block assumes is
/// true: linear maps with their biases and rows chosen by an input where a unit's slope depends on nothing (rectifiers that
/// are all on, one step), the read-out of every step, and the full matrix of Kronecker factors, which assumes nothing.
#[test]
fn blocks_are_those_of_the_dense_fisher_matrix() {
    const ROWS: usize = 3;
    const DRAWS: usize = 3000;
    let relu = |input: cells::Input, readout| {
        let mut spec = model(("rnn", "dense"), Loss::SquaredError, readout);
        spec.layers[0].cell = cells::cell("rnn", &cells::Settings::new().with("activation", "relu")).unwrap();
        spec.input = input;
        spec
    };
    let kru = model(("kru", "kron"), Loss::BinaryCrossEntropy, Readout::EveryStep);
    let cases = [
        ("input", relu(cells::Input::Dense(2), Readout::Last), 1, &["layer0.U"][..]),
        ("bias", relu(cells::Input::Dense(2), Readout::Last), 1, &["layer0.W", "layer0.b"]),
        ("lookup", relu(cells::Input::Symbols(3), Readout::Last), 1, &["layer0.U"]),
        ("read-out", relu(cells::Input::Dense(2), Readout::EveryStep), 4, &["readout.V", "readout.c"]),
        ("factors", kru, 4, &["layer0.W.0", "layer0.W.1"]),
    ];
    for (what, spec, steps, names) in cases {
        let model = Model::new(spec.clone()).unwrap();
        let statistics = model.record_statistics(1, Drawn::FromModel, false, usize::MAX).unwrap();
        let mut random = Random(7);
        let mut bound = model.declare(1).unwrap().into_params();
        if what != "factors" {
            // Every rectifier on.
            bound.insert("layer0.b", Tensor::full(DType::F64, [4], 20.0).unwrap());
        }
        match spec.input {
            cells::Input::Dense(_) => bound.insert("x", random.tensor(&[steps, ROWS, 2], 1.0)),
            _ => bound.insert("x", Tensor::from_slice([steps, ROWS], &[0i32, 2, 0]).unwrap()),
        };
        let wanted = components(&bound, names);
        let exact = dense_fisher(&model, &bound, &wanted);
        let map = statistics.statistics.maps.iter().find(|m| {
            let weight = statistics.trainable.iter().find(|(name, _)| name == names[0]).unwrap().1;
            m.weight == Some(weight)
        });
        let mut outputs = statistics.gradients.clone();
        if let Some(map) = map {
            outputs.extend([map.a0.unwrap(), map.g0]);
        }
        let mut program = Program::new(&statistics.tape, &outputs, RunOptions::default()).unwrap();
        let n = wanted.len();
        let (mut got, mut g0, mut a0) = (vec![vec![0.0; n]; n], None::<Vec<f64>>, None);
        for _ in 0..DRAWS {
            let lead: &[usize] = if spec.readout == Readout::Last { &[ROWS] } else { &[steps, ROWS] };
            let mut noise = Tensor::zeros(DType::F64, [lead, &[2]].concat()).unwrap();
            noise.fill_with(|_| match spec.loss {
                Loss::BinaryCrossEntropy => random.unit().into(),
                _ => random.normal().into(),
            });
            bound.insert("noise", noise);
            let out = program.run(&[&bound]).unwrap();
            if let [a, g] = &out[statistics.gradients.len()..] {
                let sum = g0.get_or_insert_with(|| vec![0.0; g.len()]);
                (0..g.len()).for_each(|i| sum[i] += g.get(i).re / (DRAWS * steps * ROWS) as f64);
                a0 = Some(a.clone());
                continue;
            }
            let sample: Vec<f64> = (wanted.iter())
                .map(|(name, place, imaginary)| {
                    let at = statistics.trainable.iter().position(|(other, _)| other == name).unwrap();
                    let g = out[at].get(*place);
                    if *imaginary { g.im } else { g.re }
                })
                .collect();
            for i in 0..n {
                (0..n).for_each(|j| got[i][j] += sample[i] * sample[j] / (DRAWS * ROWS) as f64);
            }
        }
        assert_eq!(map.is_some(), what != "factors", "{what}: which block it is");
        if let (Some(a), Some(g)) = (a0, g0) {
            let columns = g.len().isqrt();
            let inputs = a.dims()[0];
            let entry = |i: usize, j: usize| match a.dims().len() {
                1 if i != j => 0.0,
                1 => a.get(i).re,
                _ => a.get(i * inputs + j).re,
            };
            for i in 0..n {
                for j in 0..n {
                    let a = entry(i / columns, j / columns) / (steps * ROWS) as f64;
                    got[i][j] = steps as f64 * a * g[i % columns * columns + j % columns];
                }
            }
        }
        agree(what, &got, &exact, DRAWS);
    }
}

fn config(task: &str, cell: &str, settings: &[&str]) -> TrainConfig {
    let mut config = TrainConfig::new(task, cell, None).unwrap();
    let tiny = ["T=6", "train=64", "valid=8", "test=8", "batch=8", "eval_batch=8", "hidden=4", "log_every=1"];
    let kfac = ["optimizer=kfac", "burn_in=1", "inverse_every=2", "lm_every=2", "clip=none"];
    config.set_all(tiny.iter().chain(&kfac).chain(settings)).unwrap();
    config
}

fn moved(trainer: &mut Trainer, steps: u64) -> bool {
    let before = trainer.params().clone();
    for _ in 0..steps {
        trainer.step().unwrap();
    }
    for (name, t) in trainer.params().iter() {
        assert!(t.is_finite(), "{name}");
    }
    trainer.params().iter().any(|(name, t)| !t.bit_eq(before.get(name).unwrap()))
}

#[test]
fn every_cell_trains() {
    for entry in CELLS {
        let mut trainer = Trainer::new(config("adding", entry.name, &[])).unwrap();
        assert!(moved(&mut trainer, 4), "{}", entry.name);
        let treatment = trainer.treatment().unwrap();
        assert!(treatment.contains("readout.V + readout.c"), "{}: {treatment}", entry.name);
        assert!(trainer.cost().updates == 4 && trainer.uses_curvature());
    }
}

#[test]
fn every_approximation_step_and_target_trains() {
    let variants: &[&[&str]] = &[
        &["kfac=independence"],
        &["kfac=option1"],
        &["kfac=option1", "psi=absolute"],
        &["kfac=option2", "targets=empirical"],
        &["step=fixed", "momentum_form=adam", "norm_constraint=1e-3"],
        &["step=fixed", "momentum_form=regular", "kfac=independence", "norm_constraint=1e-3"],
        &["widest=3"],
        &["pi=false", "adapt=false", "damping_power=0"],
        &["layers=2", "dropout=0.3"],
        &["bidirectional=true"],
        &["learn_h0=true", "weight_decay=0.01", "weight_noise=0.01"],
        &["horizon=2"],
        &["weight_norm=true"],
        &["batch=1"],
        &["precision=f64", "blocks=layer0.*:diagonal,readout.*:full"],
        &["frozen=layer0.U"],
        &["stats_every=3", "dense=3", "lm_every=4", "inverse_every=3"],
    ];
    for settings in variants {
        let settings = [&["schedule=constant"], *settings].concat();
        let mut trainer = Trainer::new(config("adding", "lstm", &settings)).unwrap();
        assert!(moved(&mut trainer, 5), "{settings:?}");
    }
}

#[test]
fn operators_have_the_blocks_of_their_kind() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("lstm", "dense", &["recurrent map: layer0.W + layer0.b, layer0.U"]),
        ("gru", "lrd", &["layer0.W.L", "layer0.W.R", "full: layer0.W.delta"]),
        ("lstm", "kron", &["full: layer0.W.i.0", "recurrent map: layer0.U + layer0.b"]),
        ("kru", "kron", &["full: layer0.W.0", "map: readout.V + readout.c"]),
    ];
    for (cell, operator, parts) in rows {
        let mut config = config("adding", cell, &[]);
        config.set("operator", operator).unwrap();
        let trainer = Trainer::new(config).unwrap();
        let treatment = trainer.treatment().unwrap();
        for part in *parts {
            assert!(treatment.contains(part), "{cell} {operator}: {treatment} lacks {part}");
        }
    }
    // What has no block is named.
    let trainer = Trainer::new(config("adding", "gru", &["weight_norm=true", "full=0"])).unwrap();
    let treatment = trainer.treatment().unwrap();
    assert!(treatment.contains("Adam: ") && treatment.contains("layer0.U"), "{treatment}");
}

/// Symbols, masks, and lengths that differ from row to row, sequences of a single step among them.
#[test]
fn other_tasks_train() {
    let mut copy = config("copy", "gru", &["batch=4"]);
    copy.set("T", 5).unwrap();
    let mut trainer = Trainer::new(copy).unwrap();
    assert!(moved(&mut trainer, 4));
    assert!(trainer.treatment().unwrap().contains("embedding: layer0.U"), "{:?}", trainer.treatment());

    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("music")).unwrap();
    let piece =
        |n: usize| -> Vec<Vec<u32>> { (0..n as u32).map(|t| vec![40 + t % 12, 52 + t % 7]).collect() };
    let pieces = |lengths: &[usize]| lengths.iter().map(|&n| piece(n)).collect::<Vec<_>>();
    let json = serde_json::json!({
        "train": pieces(&[5, 9, 2, 7, 2, 2, 6]), "valid": pieces(&[6, 4]), "test": pieces(&[5, 8, 3]),
    });
    fs::write(data.path().join("music/jsb_chorales.json"), json.to_string()).unwrap();
    let kinds = ["independence", "option1", "option2"];
    let trainer = |kind: &str| {
        let mut jsb = TrainConfig::new("jsb", "kru", None).unwrap();
        jsb.data = Some(data.path().into());
        let settings =
            ["optimizer=kfac", "burn_in=1", "inverse_every=1", "first=skip", "hidden=8", "batch=3"];
        jsb.set_all(settings).unwrap();
        jsb.set("kfac", kind).unwrap();
        Trainer::new(jsb).unwrap()
    };
    for kind in kinds {
        assert!(moved(&mut trainer(kind), 5), "{kind}");
    }
    // Nothing but sequences of one step: there is no step before it, and all lagged moments are 0.
    let json = serde_json::json!({ "train": pieces(&[2; 6]), "valid": pieces(&[2]), "test": pieces(&[2]) });
    fs::write(data.path().join("music/jsb_chorales.json"), json.to_string()).unwrap();
    let mut ends = Vec::new();
    for kind in kinds {
        let mut trainer = trainer(kind);
        assert!(moved(&mut trainer, 5), "{kind}");
        ends.push(trainer.params().clone());
    }
    for other in &ends[1..] {
        for (name, t) in other.iter() {
            let first = ends[0].get(name).unwrap();
            let off = (0..t.len()).map(|i| (t.get(i) - first.get(i)).norm()).fold(0.0, f64::max);
            assert!(off < 1e-3, "{name}: {off} between approximations of one step");
        }
    }
}

/// The state goes on from batch to batch, and there is none before the first.
#[test]
fn streams_train() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("ptb")).unwrap();
    for split in ["train", "valid", "test"] {
        fs::write(data.path().join(format!("ptb/ptb.char.{split}.txt")), "a b c _ c b \n ".repeat(60))
            .unwrap();
    }
    for cell in ["lstm", "gru"] {
        let mut config = TrainConfig::new("ptbchar", cell, None).unwrap();
        config.data = Some(data.path().into());
        let small = ["optimizer=kfac", "burn_in=1", "hidden=8", "batch=10", "bptt=4", "eval_batch=10"];
        config.set_all(small).unwrap();
        assert!(moved(&mut Trainer::new(config).unwrap(), 5), "{cell}");
    }
}

fn start(config: &TrainConfig, folder: &Path) -> Session {
    Session::start(Trainer::new(config.clone()).unwrap(), RunFolder::create(folder).unwrap()).unwrap()
}

struct StopAfter(u64);

impl Watch for StopAfter {
    fn step(&mut self, _: &Step, _: &Trainer) {
        self.0 -= 1;
    }
    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn stopped_anywhere_it_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, lag) in [("independence", 0), ("option1", 0), ("option2", 0), ("option1", 1), ("option2", 2)] {
        let settings = ["inverse_every=3", "stats_every=2", "dense=0", "steps=9", "eval_every=4"];
        let mut config = config("adding", "lstm", &settings);
        config.set("kfac", kind).unwrap();
        config.set("inverse_lag", lag).unwrap();
        let whole = dir.path().join(format!("{kind}-lag{lag}"));
        start(&config, &whole).run(&mut ()).unwrap();
        for first in [1, 2, 3, 5, 6] {
            let folder = dir.path().join(format!("{kind}-lag{lag}-{first}"));
            start(&config, &folder).run(&mut StopAfter(first)).unwrap();
            let trainer = Trainer::new(stored_config(&folder).unwrap()).unwrap();
            let (session, lost) = Session::resume(trainer, RunFolder::resume(&folder).unwrap()).unwrap();
            assert!(lost.is_none());
            session.run(&mut ()).unwrap();
            for file in [LAST, METRICS] {
                let same = fs::read(whole.join(file)).unwrap() == fs::read(folder.join(file)).unwrap();
                assert!(same, "{kind} stopped after {first}: {file} differs");
            }
        }
    }
}

#[test]
fn plans_and_threads_do_not_change_a_bit() {
    let mut runs = Vec::new();
    for (budget, threads) in [(None, 1), (None, 2), (Some(450_000), 2)] {
        let mut config = config("adding", "gru", &["T=300"]);
        (config.budget, config.threads) = (budget, Some(threads));
        let mut trainer = Trainer::new(config).unwrap();
        assert!(moved(&mut trainer, 4));
        runs.push(trainer.params().clone());
    }
    for other in &runs[1..] {
        for (name, t) in other.iter() {
            assert!(t.bit_eq(runs[0].get(name).unwrap()), "{name}");
        }
    }
}

/// The same training loss in fewer updates than Adam, on a problem of minutes made one of seconds.
#[test]
fn fewer_updates_than_adam() {
    let updates = |settings: &[&str]| -> u64 {
        let mut config = TrainConfig::new("adding", "rnn", None).unwrap();
        let small =
            ["T=4", "train=512", "valid=8", "test=8", "batch=128", "eval_batch=8", "hidden=12", "clip=none"];
        config.set_all(small.iter().chain(settings)).unwrap();
        let mut trainer = Trainer::new(config).unwrap();
        let mut mean = f64::NAN;
        for update in 1..=600 {
            let loss = trainer.step().unwrap().loss;
            mean = if mean.is_nan() { loss } else { 0.8 * mean + 0.2 * loss };
            if mean < 0.02 {
                return update;
            }
        }
        600
    };
    let adam = ["3e-3", "1e-2", "3e-2"].map(|lr| updates(&["optimizer=adam", &format!("lr={lr}")]));
    let adam = adam.into_iter().min().unwrap();
    for kind in ["independence", "option1", "option2"] {
        let kfac = updates(&["optimizer=kfac", &format!("kfac={kind}")]);
        assert!(2 * kfac < adam, "{kind}: {kfac} updates, Adam {adam}");
    }
}
