//! From a cell to a plan: what is paid once, before the first step, for every built-in cell.
//!
//! IDs read `compile/lstm/record` (the forward step and its adjoint onto a tape), `compile/lstm/plan` (the plan made of
//! them) and `compile/lstm/sizes` (the places of all bytes for a number of steps and rows, which may change from run to
//! run).

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use retrograd::cells::{self, CellEntry, Input, Layer, Loss, Model, ModelSpec, Readout, Settings};
use retrograd::{Program, RunOptions, grad};

const HIDDEN: usize = 64;
const SIZES: (usize, usize) = (784, 32);

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn compile(c: &mut Criterion) {
    for entry in cells::CELLS {
        if let Err(error) = case(c, entry) {
            eprintln!("{}: {error}", entry.name);
        }
    }
}

fn case(c: &mut Criterion, entry: &CellEntry) -> Fallible<()> {
    let none = Settings::new();
    let operator = cells::operator(entry.operator, &none)?;
    let layer = Layer { cell: entry.make(&none)?, operator, hidden: HIDDEN };
    let spec = ModelSpec::new(Input::Dense(8), vec![layer], Readout::Last, 10, Loss::SoftmaxCrossEntropy);
    let model = Model::new(spec)?;
    let record = || -> Fallible<_> {
        let mut recorded = model.record(1)?;
        let wrt = recorded.trainable_vars();
        let mut outputs = vec![recorded.loss];
        outputs.extend(grad(&mut recorded.tape, recorded.loss, &wrt)?);
        Ok((recorded, outputs))
    };
    let (recorded, outputs) = record()?;
    let plan = || Program::new(&recorded.tape, &outputs, RunOptions::default());
    let program = plan()?;
    let (steps, rows) = SIZES;
    let sizes = || program.plan(steps, rows);
    sizes()?; // an error ends this case here, before it is measured

    let mut group = c.benchmark_group(format!("compile/{}", entry.name));
    group.sample_size(20);
    group.bench_function("record", |b| b.iter(|| black_box(record().is_ok())));
    group.bench_function("plan", |b| b.iter(|| black_box(plan().is_ok())));
    group.bench_function("sizes", |b| b.iter(|| black_box(sizes().is_ok())));
    group.finish();
    Ok(())
}

criterion_group!(benches, compile);
criterion_main!(benches);
