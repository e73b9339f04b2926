//! Runs of a program after its first: the launches are listed once, and start again with the same bits as those of a program
//! that has not run before.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_device;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use on_device::{numbers, sum_all};
use retrograd_cuda::Gpu;
use retrograd_engine::core_ops::add;
use retrograd_engine::device::{Device, Kernel, Launch, Products, Resident};
use retrograd_engine::{
    DType, Error, Params, Program, Rates, Result, Shape, Tape, Tensor, Var, grad, matmul, scan,
};
use retrograd_ops as ops;

/// `h' = tanh(h w + x)`: a loss of all states and of the last, and its gradients.
fn recorded() -> (Tape, Vec<Var>) {
    let mut tape = Tape::new();
    let x = tape.input("x", DType::F64, Shape::sequence([3])).unwrap();
    let w = tape.param("w", DType::F64, [3, 3]).unwrap();
    let h0 = tape.param("h0", DType::F64, [3]).unwrap();
    let (last, all) = scan(&mut tape, h0, x, |tape, h, x| {
        let y = matmul(tape, h, w)?;
        let y = add(tape, y, x)?;
        let h = ops::tanh(tape, y)?;
        Ok((h, h))
    })
    .unwrap();
    let square = ops::abs2(&mut tape, all).unwrap();
    let (a, b) = (sum_all(&mut tape, square).unwrap(), sum_all(&mut tape, last).unwrap());
    let loss = add(&mut tape, a, b).unwrap();
    let bars = grad(&mut tape, loss, &[w, h0, x]).unwrap();
    (tape, [loss, all].into_iter().chain(bars).collect())
}

fn values((steps, rows): (usize, usize), seed: u64) -> Params {
    let mut values = Params::new();
    values.insert("x", numbers(DType::F64, &[steps, rows, 3], seed));
    values.insert("w", numbers(DType::F64, &[3, 3], seed + 1));
    values.insert("h0", numbers(DType::F64, &[3], seed + 2));
    values
}

/// What a program gives that has not run before.
fn fresh(
    device: &Arc<dyn Device>,
    (tape, outputs): &(Tape, Vec<Var>),
    budget: Option<usize>,
    values: &Params,
) -> Vec<Tensor> {
    Program::new(tape, outputs, on_device::on(device, budget)).unwrap().run(&[values]).unwrap()
}

fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bit_eq(b))
}

/// Sequences made and started, those that are alive, and starts.
fn counts(gpu: &Gpu) -> (u64, u64, u64) {
    let counts = gpu.counts().unwrap();
    (counts.sequences, counts.sequences - counts.forgotten, counts.starts)
}

#[test]
fn runs_with_other_values() {
    let _alone = on_device::alone();
    let gpu = Gpu::emulated();
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, size) = (recorded(), (5, 6));
    let mut program = Program::new(&recorded.0, &recorded.1, on_device::on(&device, None)).unwrap();
    for (run, seed) in [1, 1, 10, 1, 20].into_iter().enumerate() {
        let values = values(size, seed);
        let got = program.run(&[&values]).unwrap();
        assert_eq!(counts(&gpu), (1, 1, run as u64 + 1));
        let other: Arc<dyn Device> = Arc::new(Gpu::emulated());
        assert!(same(&got, &fresh(&other, &recorded, None, &values)), "run {run}");
    }
    drop(program);
    assert_eq!(counts(&gpu), (1, 0, 5));
}

#[test]
fn runs_of_other_sizes_budgets_and_addresses() {
    let _alone = on_device::alone();
    let (gpu, there) = (Gpu::emulated(), on_device::device());
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let recorded = recorded();
    let mut program = Program::new(&recorded.0, &recorded.1, on_device::on(&device, None)).unwrap();
    let mut made = 0;
    let least = program.smallest_plan(70, 5).unwrap();
    assert!(least.summary().replay.unwrap().extra_forward_steps > 0);
    for (budget, size) in [
        (None, (70, 5)),
        (None, (70, 9)),
        (None, (4, 9)),
        (None, (70, 5)),
        (Some(least.peak_bytes()), (70, 5)),
        (None, (70, 5)),
    ] {
        program.set_budget(budget);
        let values = values(size, 3);
        let expected = fresh(&there, &recorded, budget, &values);
        made += 1;
        for _ in 0..2 {
            assert!(same(&program.run(&[&values]).unwrap(), &expected), "{budget:?} {size:?}");
            let (sequences, alive, _) = counts(&gpu);
            assert_eq!((sequences, alive), (made, 1), "{budget:?} {size:?}");
        }
    }
    // Values that are elsewhere are read there.
    let all = values((70, 5), 3);
    let pick = |names: &[&str]| -> Params {
        names.iter().map(|n| (n.to_string(), all.require(n).unwrap().clone())).collect()
    };
    let (params, batch) = (pick(&["w", "h0"]), pick(&["x"]));
    let expected = fresh(&there, &recorded, None, &all);
    for _ in 0..2 {
        let held = Resident::of(&device, &params).unwrap();
        made += 1;
        for _ in 0..2 {
            let (got, _) = program.run_with(&held, &[&batch], expected.len()).unwrap();
            assert!(same(&got, &expected));
            assert_eq!(counts(&gpu).0, made);
        }
    }
}

/// The emulated device, which refuses a call when told to.
#[derive(Debug)]
struct Failing {
    gpu: Gpu,
    /// Which call.
    call: Mutex<&'static str>,
}

impl Failing {
    fn fails(&self, call: &str) -> Result<()> {
        if *self.call.lock().unwrap() == call {
            return Err(Error::Device { device: "failing".into(), what: call.into() });
        }
        Ok(())
    }
}

impl Device for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn shared_bytes(&self) -> usize {
        Device::shared_bytes(&self.gpu)
    }

    fn threads(&self) -> u32 {
        Device::threads(&self.gpu)
    }

    fn multiprocessors(&self) -> usize {
        Device::multiprocessors(&self.gpu)
    }

    fn rates(&self) -> Rates {
        Device::rates(&self.gpu)
    }

    fn resident(&self, kernels: u64, index: usize) -> Result<usize> {
        Device::resident(&self.gpu, kernels, index)
    }

    fn products(&self) -> Products {
        Device::products(&self.gpu)
    }

    fn used_bytes(&self) -> usize {
        Device::used_bytes(&self.gpu)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.fails("allocate")?;
        Device::allocate(&self.gpu, bytes)
    }

    fn release(&self, address: u64) {
        Device::release(&self.gpu, address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.fails("write")?;
        Device::write(&self.gpu, address, bytes)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.fails("read")?;
        Device::read(&self.gpu, address, bytes)
    }

    fn load(&self, kernels: &[Kernel]) -> Result<u64> {
        Device::load(&self.gpu, kernels)
    }

    fn unload(&self, kernels: u64) {
        Device::unload(&self.gpu, kernels);
    }

    fn sequence(&self, kernels: u64, launches: Vec<Launch>) -> Result<u64> {
        self.fails("sequence")?;
        Device::sequence(&self.gpu, kernels, launches)
    }

    fn start(&self, sequence: u64) -> Result<()> {
        self.fails("start")?;
        Device::start(&self.gpu, sequence)
    }

    fn time(&self, sequence: u64) -> Result<Vec<f64>> {
        self.fails("time")?;
        Device::time(&self.gpu, sequence)
    }

    fn forget(&self, sequence: u64) {
        Device::forget(&self.gpu, sequence);
    }
}

#[test]
fn runs_after_one_that_failed() {
    let _alone = on_device::alone();
    let there = on_device::device();
    let recorded = recorded();
    let sizes = [(6, 5), (9, 7)];
    let expected = sizes.map(|size| fresh(&there, &recorded, None, &values(size, 5)));
    for call in ["allocate", "write", "sequence", "start", "read"] {
        for (failing, next) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let device = Arc::new(Failing { gpu: Gpu::emulated(), call: Mutex::default() });
            let on: Arc<dyn Device> = device.clone();
            let mut program = Program::new(&recorded.0, &recorded.1, on_device::on(&on, None)).unwrap();
            let mut run = |size: usize| program.run(&[&values(sizes[size], 5)]);
            assert!(same(&run(0).unwrap(), &expected[0]));
            *device.call.lock().unwrap() = call;
            // Runs of the same size need neither room nor another list.
            let fails = failing == 1 || !matches!(call, "allocate" | "sequence");
            assert_eq!(run(failing).is_err(), fails, "{call} {failing}");
            *device.call.lock().unwrap() = "";
            assert!(counts(&device.gpu).1 <= 1, "{call} {failing}");
            for _ in 0..2 {
                assert!(same(&run(next).unwrap(), &expected[next]), "{call} {failing} {next}");
                assert_eq!(counts(&device.gpu).1, 1, "{call} {failing} {next}");
            }
            drop(program);
            assert_eq!(counts(&device.gpu).1, 0, "{call} {failing} {next}");
        }
    }
}

#[test]
fn a_profiled_run_that_failed() {
    let _alone = on_device::alone();
    let device = Arc::new(Failing { gpu: Gpu::emulated(), call: Mutex::default() });
    let on: Arc<dyn Device> = device.clone();
    let (recorded, values) = (recorded(), values((6, 5), 5));
    let mut program = Program::new(&recorded.0, &recorded.1, on_device::on(&on, None)).unwrap();
    let expected = program.run(&[&values]).unwrap();
    program.set_profile(true);
    for call in ["write", "time", "read"] {
        assert!(same(&program.run(&[&values]).unwrap(), &expected), "{call}");
        assert!(program.last_profile().is_some(), "{call}");
        *device.call.lock().unwrap() = call;
        assert!(program.run(&[&values]).is_err() && program.last_profile().is_none(), "{call}");
        *device.call.lock().unwrap() = "";
    }
}

/// On a device the first run launches its kernels one by one, and those from the second on are graphs.
#[test]
fn runs_under_schedules() {
    let _alone = on_device::alone();
    let real = on_device::REAL.load(Relaxed);
    let gpu = if real { Gpu::open(0).unwrap() } else { Gpu::emulated() };
    let device: Arc<dyn Device> = Arc::new(gpu.clone());
    let (recorded, size) = (recorded(), if real { (5000, 33) } else { (130, 5) });
    let mut program = Program::new(&recorded.0, &recorded.1, on_device::on(&device, None)).unwrap();
    let given = [values(size, 7), values(size, 8)];
    let expected = [0, 1].map(|i| fresh(&device, &recorded, None, &given[i]));
    for plan in program.tradeoff(size.0, size.1, 4).unwrap() {
        program.set_budget(Some(plan.peak_bytes()));
        let before = gpu.graphs();
        for run in 0..5 {
            let got = program.run(&[&given[run % 2]]).unwrap();
            assert!(same(&got, &expected[run % 2]), "run {run} within {} bytes", plan.peak_bytes());
            let graphs = gpu.graphs() - before;
            let waits = std::env::var_os("RETROGRAD_LAUNCHES_WAIT").is_some_and(|v| v == "1");
            assert_eq!(graphs > 0, real && !waits && run > 0, "run {run}: {graphs} graphs");
        }
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn runs_under_schedules_on_a_device() {
    on_device::REAL.store(true, Relaxed);
    runs_under_schedules();
}
