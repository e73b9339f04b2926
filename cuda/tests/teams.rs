//! Tiles that are shared by several blocks: what no block could hold by itself comes out as on the processor, with equal
//! bits under every budget, however many blocks run at once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::Arc;

use on_device::{compare_on, numbers, on, sum_all};
use retrograd_cells::{
    Input, Layer, Loss, Model, ModelSpec, Readout, Settings, cell, combinations, operator,
};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::{add, sum_dims, sum_rows};
use retrograd_engine::device::{Device, Products};
use retrograd_engine::{DType, Params, Program, Shape, Tape, Tensor, Var, grad, matmul, scan};
use retrograd_ops as ops;

/// A layer with a readout at every step, its values, and its outputs: the loss and all gradients.
struct Case {
    recorded: retrograd_cells::Recorded,
    outputs: Vec<Var>,
    values: Params,
    size: (usize, usize),
}

impl Case {
    fn new(name: &str, on: &str, dtype: DType, hidden: usize, (steps, rows): (usize, usize)) -> Case {
        let (cell, operator) = (cell(name, &Settings::new()), operator(on, &Settings::new()));
        let layer = Layer { cell: cell.unwrap(), operator: operator.unwrap(), hidden };
        let loss = Loss::SoftmaxCrossEntropy;
        let mut spec = ModelSpec::new(Input::Dense(2), vec![layer], Readout::EveryStep, 3, loss);
        spec.dtype = dtype;
        let model = Model::new(spec).unwrap();
        let mut recorded = model.record(5).unwrap();
        let wrt = recorded.trainable_vars();
        let bars = grad(&mut recorded.tape, recorded.loss, &wrt).unwrap();
        let outputs = std::iter::once(recorded.loss).chain(bars).collect();
        let mut values = Params::new();
        for (i, (name, t)) in recorded.params.iter().enumerate() {
            let noise = numbers(t.dtype(), t.dims(), 100 + i as u64);
            let mut moved = t.clone();
            moved.fill_with(|i| t.get(i) + noise.get(i) * 0.1);
            values.insert(name, moved);
        }
        values.insert("x", numbers(dtype, &[steps, rows, 2], 1));
        let target: Vec<i32> = (0..steps * rows).map(|i| ((i * 7 + 3) % 3) as i32).collect();
        values.insert("target", Tensor::from_slice([steps, rows], &target).unwrap());
        Case { recorded, outputs, values, size: (steps, rows) }
    }

    /// Blocks of the largest team there.
    fn team(&self, device: &Arc<dyn Device>) -> usize {
        let program = Program::new(&self.recorded.tape, &self.outputs, on(device, None)).unwrap();
        let plan = program.plan(self.size.0, self.size.1).unwrap();
        plan.summary().scans.iter().map(|s| s.team).max().unwrap_or(1)
    }

    fn compare(&self, device: &Arc<dyn Device>, most: f64) -> Result<f64, String> {
        compare_on(device, &self.recorded.tape, &self.outputs, &self.values, self.size, most)
    }
}

fn gpu(shared_bytes: u32, multiprocessors: u32) -> Arc<dyn Device> {
    Arc::new(Gpu::emulated_as(shared_bytes, multiprocessors))
}

/// Every cell on the operator it was published with, or the first it takes, where a block holds a fraction of its matrices.
#[test]
fn every_cell() {
    let _alone = on_device::alone();
    let (mut seen, mut teams, mut failures): (Vec<&str>, usize, _) = (Vec::new(), 0, Vec::new());
    for (cell, operator) in combinations() {
        if seen.contains(&cell.name) {
            continue;
        }
        seen.push(cell.name);
        let case = Case::new(cell.name, operator.name, DType::F64, 12, (3, 5));
        let device = gpu(2 << 10, 8);
        let team = case.team(&device);
        teams += usize::from(team > 1);
        // The gradient of one of FastGRNN's numbers is a sum whose terms nearly cancel.
        let most = if cell.name == "fastgrnn" { 20_000.0 } else { 3000.0 };
        if team > 1
            && let Err(error) = case.compare(&device, most)
        {
            failures.push(format!("{} on {}, teams of {team}: {error}", cell.name, operator.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(teams > seen.len() / 2, "{teams} of {} cells had teams", seen.len());
}

/// Columns that no number of blocks divides, rows that no tile divides, more tiles than run at once, panels of one part of
/// the terms: the same numbers; and the same bits whatever the number of blocks that run at once.
#[test]
fn sizes_that_do_not_divide() {
    let _alone = on_device::alone();
    for (dtype, hidden, size, shared, multiprocessors, team) in [
        (DType::F32, 13, (4, 9), 1 << 10, 8, 4),
        (DType::F32, 13, (4, 33), 1 << 10, 9, 4),
        (DType::F32, 13, (4, 33), 600, 32, 8),
        (DType::F64, 7, (3, 6), 1 << 10, 5, 2),
        (DType::F64, 16, (3, 1), 1 << 10, 132, 16),
    ] {
        for cell in ["lstm", "gru"] {
            let case = Case::new(cell, "dense", dtype, hidden, size);
            let device = gpu(shared, multiprocessors);
            let what = format!("{cell}, {hidden} states, {size:?}, {shared} bytes, {multiprocessors}");
            assert!((team / 2..=team).contains(&case.team(&device)), "{what}: {}", case.team(&device));
            case.compare(&device, 3000.0).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
    let case = Case::new("lstm", "dense", DType::F32, 13, (4, 33));
    let run = |multiprocessors| {
        let device = gpu(1 << 10, multiprocessors);
        let tape = &case.recorded.tape;
        Program::new(tape, &case.outputs, on(&device, None)).unwrap().run(&[&case.values]).unwrap()
    };
    for (few, many) in run(8).iter().zip(run(132)) {
        assert_eq!(few.as_bytes(), many.as_bytes());
    }
}

#[test]
fn on_tensor_cores() {
    let _alone = on_device::alone();
    let case = Case::new("gru", "dense", DType::F32, 20, (3, 9));
    for products in [Products::Tf32, Products::Bf16] {
        let alone = Arc::new(Gpu::emulated().with_products(products)) as Arc<dyn Device>;
        let device: Arc<dyn Device> = Arc::new(Gpu::emulated_as(2 << 10, 8).with_products(products));
        assert_eq!(case.team(&alone), 1);
        assert!(case.team(&device) > 1);
        let alone = case.compare(&alone, f64::INFINITY).unwrap();
        let off = case.compare(&device, f64::INFINITY).unwrap();
        assert!(off > 10.0 && off < 2.0 * alone, "{products}: off by {off}, without teams by {alone}");
    }
}

/// Blocks meet where one reads what another one wrote, and nowhere else: once a step in an LSTM, where all that follows the
/// product goes by its own columns, twice in a GRU, whose candidate reads the gated state.
#[test]
fn no_more_meetings_than_a_step_needs() {
    let _alone = on_device::alone();
    for (cell, forward) in [("lstm", 1), ("rnn", 1), ("gru", 2)] {
        let arrivals = |steps: usize| {
            let gpu = Gpu::emulated_as(1 << 10, 8);
            let device: Arc<dyn Device> = Arc::new(gpu.clone());
            let case = Case::new(cell, "dense", DType::F32, 24, (steps, 3));
            let tape = &case.recorded.tape;
            Program::new(tape, &case.outputs[..1], on(&device, None)).unwrap().run(&[&case.values]).unwrap();
            (gpu.counts().unwrap().atomics, case.team(&device) as u64)
        };
        let ((few, team), (many, _)) = (arrivals(3), arrivals(5));
        assert!(team > 1);
        assert_eq!(many - few, 2 * forward * team, "{cell}: arrivals in two steps more, teams of {team}");
    }
}

/// A matrix that all blocks together do not hold is read where it lies.
#[test]
fn more_than_all_blocks_hold() {
    let _alone = on_device::alone();
    let case = Case::new("rnn", "dense", DType::F64, 24, (3, 5));
    // Two, and one that has nobody to wait for.
    for blocks in [2, 1] {
        let device = gpu(1 << 10, blocks);
        assert_eq!(case.team(&device), blocks as usize);
        case.compare(&device, 3000.0).unwrap();
    }
}

/// `h' = tanh(h w + Σ h u + x)`, whose rows depend on each other: a product with rows, and one without.
#[test]
fn rows_that_depend_on_each_other() {
    let _alone = on_device::alone();
    for (dtype, products) in [(DType::F64, Products::Exact), (DType::F32, Products::Tf32)] {
        let (mut tape, mut values) = (Tape::new(), Params::new());
        let [w, u] = [("w", 1), ("u", 2)].map(|(name, seed)| {
            values.insert(name, scaled(numbers(dtype, &[20, 20], seed), 0.05));
            tape.param(name, dtype, [20, 20]).unwrap()
        });
        let h0 = tape.param("h0", dtype, [20]).unwrap();
        let x = tape.input("x", dtype, Shape::sequence([20])).unwrap();
        values.insert("h0", numbers(dtype, &[20], 3));
        values.insert("x", numbers(dtype, &[3, 6, 20], 4));
        let (last, ()) = scan(&mut tape, h0, x, |tape, h, x| {
            let y = matmul(tape, h, w)?;
            let all = sum_rows(tape, h)?;
            let z = matmul(tape, all, u)?;
            let y = add(tape, y, z)?;
            let y = add(tape, y, x)?;
            Ok((ops::tanh(tape, y)?, ()))
        })
        .unwrap();
        check_teams(&mut tape, last, &[w, u], &values, (3, 6), products);
    }
}

/// One matrix, by which entries of two lines are multiplied and entries of one.
#[test]
fn a_matrix_that_is_read_in_two_ways() {
    let _alone = on_device::alone();
    for (dtype, products) in [(DType::F64, Products::Exact), (DType::F32, Products::Bf16)] {
        let (mut tape, mut values) = (Tape::new(), Params::new());
        let w = tape.param("w", dtype, [20, 20]).unwrap();
        let h0 = tape.param("h0", dtype, [20]).unwrap();
        let x = tape.input("x", dtype, Shape::sequence([2, 20])).unwrap();
        values.insert("w", scaled(numbers(dtype, &[20, 20], 1), 0.1));
        values.insert("h0", numbers(dtype, &[20], 3));
        values.insert("x", numbers(dtype, &[3, 5, 2, 20], 4));
        let (last, ()) = scan(&mut tape, h0, x, |tape, h, x| {
            let both = add(tape, x, h)?;
            let both = matmul(tape, both, w)?;
            let both = sum_dims(tape, both, &[20])?;
            let y = matmul(tape, h, w)?;
            let y = add(tape, y, both)?;
            Ok((ops::tanh(tape, y)?, ()))
        })
        .unwrap();
        check_teams(&mut tape, last, &[w], &values, (3, 5), products);
    }
}

fn scaled(mut t: Tensor, by: f64) -> Tensor {
    let copy = t.clone();
    t.fill_with(|i| copy.get(i) * by);
    t
}

/// The last state and gradients of its squares, on teams: the processor's within rounding; on tensor cores as far off as
/// those of one block.
fn check_teams(
    tape: &mut Tape,
    last: Var,
    wrt: &[Var],
    values: &Params,
    size: (usize, usize),
    products: Products,
) {
    let square = ops::abs2(tape, last).unwrap();
    let loss = sum_all(tape, square).unwrap();
    let outputs: Vec<Var> = [last, loss].into_iter().chain(grad(tape, loss, wrt).unwrap()).collect();
    let bytes = if products == Products::Bf16 { 800 } else { 2 << 10 };
    let teams: Arc<dyn Device> = Arc::new(Gpu::emulated_as(bytes, 8).with_products(products));
    let plan = Program::new(tape, &outputs, on(&teams, None)).unwrap().plan(size.0, size.1).unwrap();
    assert!(plan.summary().scans.iter().all(|s| s.team > 1));
    match products {
        Products::Exact => {
            compare_on(&teams, tape, &outputs, values, size, 500.0).unwrap();
        }
        products => {
            let alone: Arc<dyn Device> = Arc::new(Gpu::emulated().with_products(products));
            let of = |device| compare_on(device, tape, &outputs, values, size, f64::INFINITY).unwrap();
            let (one, several) = (of(&alone), of(&teams));
            assert!(
                several > 10.0 && several < 2.0 * one,
                "{products}: off by {several}, one block by {one}"
            );
        }
    }
}

/// As few blocks as hold the matrices, with the shared memory and multiprocessors of an H100; nothing is run.
#[test]
fn large_cells_have_teams() {
    let _alone = on_device::alone();
    let device = Arc::new(Gpu::emulated()) as Arc<dyn Device>;
    for (cell, dtype, hidden, team) in [
        ("lstm", DType::F32, 96, 1),
        ("lstm", DType::F32, 128, 2),
        ("lstm", DType::F32, 512, 32),
        ("lstm", DType::F64, 512, 64),
        ("lstm", DType::F32, 1024, 128),
        ("gru", DType::F32, 1024, 64),
        ("rnn", DType::F32, 1024, 32),
        ("lstm", DType::F32, 2048, 128),
    ] {
        let case = Case::new(cell, "dense", dtype, hidden, (784, 128));
        assert_eq!(case.team(&device), team, "{cell} of {hidden} states, {dtype}");
    }
    // Rounded to two bytes, twice as many fit.
    let case = Case::new("lstm", "dense", DType::F32, 512, (784, 128));
    for (products, team) in [(Products::Tf32, 32), (Products::Bf16, 16)] {
        let device: Arc<dyn Device> = Arc::new(Gpu::emulated().with_products(products));
        assert_eq!(case.team(&device), team, "{products}");
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn large_cells_on_a_device() {
    let _alone = on_device::alone();
    let device: Arc<dyn Device> = Arc::new(Gpu::open(0).unwrap());
    for (cell, hidden, rows) in [("lstm", 512, 128), ("gru", 1024, 16), ("rnn", 1024, 300), ("nru", 256, 32)]
    {
        let case = Case::new(cell, "dense", DType::F32, hidden, (5, rows));
        let team = case.team(&device);
        assert!(team > 1, "{cell} of {hidden} states: a team of {team}");
        case.compare(&device, 10_000.0).unwrap_or_else(|e| panic!("{cell}, {hidden}: {e}"));
    }
}
