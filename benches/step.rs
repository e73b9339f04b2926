//! One training step of every built-in cell: loss, gradients and an update by Adam.
//!
//! IDs read `step/lstm/T128_N32_C8_H64`; throughput is steps × rows. Cells come from the table, each on the operator
//! it is published with, so a new one is measured without being named here.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use retrograd::cells::{self, CellEntry, Input, Layer, Loss, Model, ModelSpec, Readout, Settings};
use retrograd::{DType, Params, Program, RunOptions, Tensor, grad, optim};

/// T, N, C, H: a batch of short sequences, a single long one, and a size no vector length divides.
const SIZES: &[(usize, usize, usize, usize)] = &[(128, 32, 8, 64), (512, 1, 8, 128), (111, 37, 3, 96)];
const CLASSES: usize = 10;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn step(c: &mut Criterion) {
    for entry in cells::CELLS {
        for &sizes in SIZES {
            if let Err(error) = case(c, entry, sizes) {
                eprintln!("{}: {error}", entry.name);
            }
        }
    }
}

fn case(
    c: &mut Criterion,
    entry: &CellEntry,
    (steps, rows, width, hidden): (usize, usize, usize, usize),
) -> Fallible<()> {
    let none = Settings::new();
    let layer = Layer { cell: entry.make(&none)?, operator: cells::operator(entry.operator, &none)?, hidden };
    let input = Input::Dense(width);
    let spec = ModelSpec::new(input, vec![layer], Readout::Last, CLASSES, Loss::SoftmaxCrossEntropy);
    let mut recorded = Model::new(spec)?.record(1)?;
    let names: Vec<String> = recorded.trainable.iter().map(|(name, _)| name.clone()).collect();
    let wrt = recorded.trainable_vars();
    let mut outputs = vec![recorded.loss];
    outputs.extend(grad(&mut recorded.tape, recorded.loss, &wrt)?);
    let mut program = Program::new(&recorded.tape, &outputs, RunOptions::default())?;

    let mut x = Tensor::zeros(DType::F32, [steps, rows, width])?;
    x.fill_with(|i| ((i * 37 % 101) as f64 / 101.0).into());
    let classes: Vec<i32> = (0..rows).map(|row| (row % CLASSES) as i32).collect();
    let mut batch = Params::new();
    batch.insert("x", x);
    batch.insert("target", Tensor::from_slice([rows], &classes)?);

    let mut params = recorded.params;
    let trained: Params = names.iter().filter_map(|n| Some((n.clone(), params.get(n)?.clone()))).collect();
    let recipe = optim::Recipe::new(optim::optimizer("adam", &optim::Settings::new())?);
    let mut state = recipe.optimizer.init(&trained)?;
    let mut clock = optim::Clock::default();
    let mut update = || -> Fallible<()> {
        let gradients = program.run(&[&params, &batch])?.into_iter().skip(1);
        let mut gradients: Params = names.iter().cloned().zip(gradients).collect();
        recipe.update(&mut gradients, &mut state, &optim::LrState::default(), &mut params, clock)?;
        clock.step += 1;
        Ok(())
    };
    update()?; // an error ends this case here, before it is measured

    let mut group = c.benchmark_group(format!("step/{}", entry.name));
    group.throughput(Throughput::Elements((steps * rows) as u64)).sample_size(10);
    let id = BenchmarkId::from_parameter(format!("T{steps}_N{rows}_C{width}_H{hidden}"));
    let mut failed = None;
    group.bench_function(id, |b| b.iter(|| failed = update().err()));
    group.finish();
    failed.map_or(Ok(()), Err)
}

criterion_group!(benches, step);
criterion_main!(benches);
