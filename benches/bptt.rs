//! Forward passes and full backpropagation through time of the built-in cells.
//!
//! IDs read `lstm/T784_N100_C1_H128/cpu/forward+backward`; throughput is steps × rows. The rows of a group differ
//! in the plan alone: everything kept, and a budget of a sixteenth of that, or of the least that will do.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use retrograd::cells::{self, Input, Layer, Loss, Model, ModelSpec, Readout, Settings};
use retrograd::{DType, Error, Params, Program, RunOptions, Tensor, grad};

/// Cell, operator, T, N, C, H.
const CASES: &[(&str, &str, usize, usize, usize, usize)] = &[
    ("rnn", "dense", 784, 100, 1, 128),
    ("lstm", "dense", 784, 100, 1, 128),
    ("gru", "dense", 784, 100, 1, 128),
    ("kru", "kron", 784, 20, 1, 512),
    ("kru", "kron", 1000, 20, 10, 128),
    ("lstm", "kron", 784, 20, 1, 128),
];

fn bptt(c: &mut Criterion) {
    for &(cell, operator, steps, rows, width, hidden) in CASES {
        if let Err(error) = case(c, cell, operator, steps, rows, width, hidden) {
            eprintln!("{cell} on {operator}: {error}");
        }
    }
}

type Fallible<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn case(
    c: &mut Criterion,
    cell: &str,
    operator: &str,
    steps: usize,
    rows: usize,
    width: usize,
    hidden: usize,
) -> Fallible<()> {
    let layer = Layer {
        cell: cells::cell(cell, &Settings::new())?,
        operator: cells::operator(operator, &Settings::new())?,
        hidden,
    };
    let spec = ModelSpec::new(Input::Dense(width), vec![layer], Readout::Last, 10, Loss::SoftmaxCrossEntropy);
    let mut recorded = Model::new(spec)?.record(1)?;
    let wrt = recorded.trainable_vars();
    let loss = recorded.loss;
    let mut outputs = vec![loss];
    outputs.extend(grad(&mut recorded.tape, loss, &wrt)?);

    let mut batch = Params::new();
    let mut x = Tensor::zeros(DType::F32, [steps, rows, width])?;
    x.fill_with(|i| ((i * 37 % 101) as f64 / 101.0).into());
    batch.insert("x", x);
    let classes: Vec<i32> = (0..rows as i32).map(|r| r % 10).collect();
    batch.insert("target", Tensor::from_slice([rows], &classes)?);

    let mut group = c.benchmark_group(format!("{cell}-{operator}/T{steps}_N{rows}_C{width}_H{hidden}"));
    group.throughput(Throughput::Elements((steps * rows) as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let mut run = |name: &str, outputs: &[retrograd::Var], budget: Option<usize>| -> Fallible<usize> {
        let mut program = Program::new(&recorded.tape, outputs, RunOptions::default())?;
        if let Some(budget) = budget {
            program.set_budget(Some(budget.max(program.smallest_plan(steps, rows)?.peak_bytes())));
        }
        let peak = program.plan(steps, rows)?.peak_bytes();
        let mut failed: Option<Error> = None;
        group.bench_function(BenchmarkId::new("cpu", name), |b| {
            b.iter(|| match program.run(&[&recorded.params, &batch]) {
                Ok(out) => drop(black_box(out)),
                Err(error) => failed = Some(error.into()),
            });
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        println!("  {name}: peak {peak} bytes");
        Ok(peak)
    };
    run("forward", &[loss], None)?;
    let peak = run("forward+backward", &outputs, None)?;
    run("forward+backward in a sixteenth", &outputs, Some(peak / 16))?;
    group.finish();
    Ok(())
}

criterion_group!(benches, bptt);
criterion_main!(benches);
