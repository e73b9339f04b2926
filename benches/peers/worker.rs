//! What workers written with other Rust libraries share: the request, weights and inputs, threads, timing, memory, the
//! report. Each of them is a crate of its own (`candle`) that includes this file; nothing here, and nothing of theirs,
//! depends on this engine. The protocol is that of `case.rs`.

#![allow(dead_code, reason = "each worker uses a part")]

use std::arch::asm;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};

/// Result of everything here: what goes wrong ends the process with its message.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A network and the sizes of its batch, as `cases.py` names them.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// The cell.
    pub cell: String,
    /// Its recurrent operator.
    pub operator: String,
    /// Settings of the cell.
    #[serde(default)]
    pub cell_settings: BTreeMap<String, String>,
    /// Time steps `T`.
    pub steps: usize,
    /// Batch rows `N`.
    pub rows: usize,
    /// Input channels `C`.
    pub input: usize,
    /// State size `H`.
    pub hidden: usize,
}

/// What this process is asked to do.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// The case.
    pub case: Case,
    /// Which formulation.
    pub variant: String,
    data: PathBuf,
    grads: PathBuf,
    threads: usize,
    seconds: f64,
    least_runs: usize,
}

/// An array of `f32`. Complex numbers are pairs along a last dimension of two.
#[derive(Clone, Debug)]
pub struct Array {
    /// Sizes.
    pub dims: Vec<usize>,
    /// Numbers, the last dimension fastest.
    pub numbers: Vec<f32>,
}

/// Weights under this engine's names, inputs `x [T,N,C]` and classes `target [N]`.
#[derive(Clone, Debug)]
pub struct Data {
    weights: BTreeMap<String, (Array, bool)>,
    /// Inputs.
    pub x: Array,
    /// The class of every row.
    pub target: Vec<u32>,
}

/// Loss and gradients as functions of nothing: the network of one formulation of one peer.
pub trait Network {
    /// The gradients of one run, in the peer's hands.
    type Grads;

    /// Loss and gradients: what is measured.
    fn run(&self) -> Fallible<(f64, Self::Grads)>;

    /// The gradients under this engine's names, in its layouts.
    fn name(&self, grads: Self::Grads) -> Fallible<Vec<(String, Array)>>;
}

#[derive(Serialize)]
struct Report {
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    loss: f64,
    seconds: Vec<f64>,
    resident_bytes: u64,
    denormals_flushed: bool,
}

/// Does what the command line asks for: `network` builds the formulation of a request, or `None` if there is none.
///
/// # Errors
/// When the request cannot be read or the gradients cannot be written, and what `network` reports.
pub fn work<N: Network>(
    version: &str,
    network: impl FnOnce(&Request, &Data) -> Fallible<Option<N>> + Send,
) -> Fallible<()> {
    let mut args = env::args().skip_while(|arg| arg != "--request").skip(1);
    let Some(path) = args.next() else {
        println!("started by benches/peers/run, with --request FILE");
        return Ok(());
    };
    let request: Request = serde_json::from_str(&fs::read_to_string(path)?)?;
    // SAFETY: this process has no other thread yet. Libraries ask this variable how many threads to divide work among.
    unsafe { env::set_var("RAYON_NUM_THREADS", request.threads.to_string()) };
    // The recurrence runs on a thread of the pool, so that dividing work wakes no other one than it needs. Graphs of
    // thousands of operations are walked, and dropped, by recursion: stacks are large, and cost nothing until used.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).stack_size(1 << 28);
    let pool = pool.start_handler(|_| flush_denormals()).build()?;
    pool.install(|| {
        let data = request.read()?;
        let (version, denormals_flushed) =
            (version.to_string(), rayon::broadcast(|_| flushed()).iter().all(|&f| f));
        let report = match network(&request, &data)? {
            Some(network) => {
                let ((loss, grads), seconds, resident_bytes) = request.measure(&network)?;
                request.write(&data, network.name(grads)?)?;
                Report { version, skipped: None, loss, seconds, resident_bytes, denormals_flushed }
            }
            None => {
                let Case { cell, operator, .. } = &request.case;
                let skipped = Some(format!("no {} of {cell} on {operator}", request.variant));
                Report {
                    version,
                    skipped,
                    loss: 0.0,
                    seconds: Vec::new(),
                    resident_bytes: 0,
                    denormals_flushed,
                }
            }
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    })
}

impl Request {
    fn read(&self) -> Fallible<Data> {
        let bytes = fs::read(&self.data)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut weights = BTreeMap::new();
        for (name, view) in file.iter() {
            if let Some(name) = name.strip_prefix("model/") {
                weights.insert(name.to_string(), (floats(name, &view)?, view.dtype() == Dtype::C64));
            }
        }
        let x = floats("batch/x", &file.tensor("batch/x")?)?;
        let target = words(file.tensor("batch/target")?.data()).map(u32::from_le_bytes).collect();
        Ok(Data { weights, x, target })
    }

    fn write(&self, data: &Data, grads: Vec<(String, Array)>) -> Fallible<()> {
        let mut parts = Vec::new();
        for (name, grad) in grads {
            let (weight, complex) = data.get(&name)?;
            if grad.dims.iter().product::<usize>() != weight.numbers.len()
                || grad.numbers.len() != weight.numbers.len()
            {
                return Err(
                    format!("gradient of {name}: expected {:?}, got {:?}", weight.dims, grad.dims).into()
                );
            }
            let dims = weight.dims[..weight.dims.len() - usize::from(complex)].to_vec();
            let bytes: Vec<u8> = grad.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            parts.push((format!("grad/{name}"), if complex { Dtype::C64 } else { Dtype::F32 }, dims, bytes));
        }
        let mut views = Vec::new();
        for (name, dtype, dims, bytes) in &parts {
            views.push((name.as_str(), TensorView::new(*dtype, dims.clone(), bytes)?));
        }
        Ok(serialize_to_file(views, None, &self.grads)?)
    }

    /// Runs once unmeasured, then again and again: the first result, seconds of the others, and by how much resident
    /// memory rose.
    fn measure<N: Network>(&self, network: &N) -> Fallible<((f64, N::Grads), Vec<f64>, u64)> {
        // Refused to some processes; the peak then counts from the start of the process.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let before = status_bytes("VmRSS:");
        let first = network.run()?;
        let (start, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < self.least_runs || start.elapsed().as_secs_f64() < self.seconds {
            let started = Instant::now();
            drop(network.run()?);
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok((first, seconds, status_bytes("VmHWM:").saturating_sub(before)))
    }
}

impl Data {
    /// A weight.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn weight(&self, name: &str) -> Fallible<&Array> {
        self.get(name).map(|(array, _)| array)
    }

    /// Whether there is a weight of that name.
    pub fn has(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    fn get(&self, name: &str) -> Fallible<(&Array, bool)> {
        let (array, complex) = self.weights.get(name).ok_or_else(|| format!("no weight `{name}`"))?;
        Ok((array, *complex))
    }
}

impl Array {
    /// Of two dimensions, these exchanged.
    pub fn transposed(&self) -> Array {
        let (rows, columns) = (self.dims[0], self.dims[1]);
        let numbers = (0..columns * rows).map(|k| self.numbers[k % rows * columns + k / rows]).collect();
        Array { dims: vec![columns, rows], numbers }
    }

    /// Columns `start..start + width` of a matrix, or as many numbers of a vector.
    pub fn columns(&self, start: usize, width: usize) -> Array {
        let mut dims = self.dims.clone();
        let whole = dims.last().copied().unwrap_or(1);
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        let rows = self.numbers.chunks(whole);
        Array { dims, numbers: rows.flat_map(|row| &row[start..start + width]).copied().collect() }
    }

    /// Matrices of as many rows, or vectors, side by side.
    pub fn beside(parts: &[Array]) -> Array {
        let width = |part: &Array| part.dims.last().copied().unwrap_or(1);
        let mut dims = parts[0].dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = parts.iter().map(width).sum();
        }
        let rows = parts[0].numbers.len() / width(&parts[0]);
        let row =
            |row| parts.iter().flat_map(move |part| part.numbers[row * width(part)..][..width(part)].iter());
        Array { dims, numbers: (0..rows).flat_map(row).copied().collect() }
    }

    /// Inputs `[T,N,C]`, the rows first: `[N,T,C]`.
    pub fn rows_first(&self) -> Array {
        let (steps, rows, input) = (self.dims[0], self.dims[1], self.dims[2]);
        let at = |row, step| (step * rows + row) * input;
        let pairs = (0..rows).flat_map(|row| (0..steps).map(move |step| (row, step)));
        let numbers =
            pairs.flat_map(|(row, step)| &self.numbers[at(row, step)..at(row, step) + input]).copied();
        Array { dims: vec![rows, steps, input], numbers: numbers.collect() }
    }

    /// The steps of inputs `[T,N,C]`, with a channel of ones after the others if asked for: each `[N,C]` or `[N,C+1]`.
    pub fn steps(&self, one: bool) -> Vec<Array> {
        let (rows, input) = (self.dims[1], self.dims[2]);
        let last = if one { &[1.0f32][..] } else { &[] };
        let step = |numbers: &[f32]| Array {
            dims: vec![rows, input + last.len()],
            numbers: numbers.chunks(input).flat_map(|row| row.iter().chain(last)).copied().collect(),
        };
        self.numbers.chunks(rows * input).map(step).collect()
    }
}

fn floats(name: &str, view: &TensorView) -> Fallible<Array> {
    let mut dims = view.shape().to_vec();
    match view.dtype() {
        Dtype::F32 => {}
        Dtype::C64 => dims.push(2),
        other => return Err(format!("{name} is {other:?}, expected F32 or C64").into()),
    }
    Ok(Array { dims, numbers: words(view.data()).map(f32::from_le_bytes).collect() })
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks().0.iter().copied()
}

/// Flushes denormals on this thread: flush to zero and denormals are zero, bits 15 and 6 of MXCSR on x86-64; bit 24
/// of FPCR on aarch64.
fn flush_denormals() {
    #[cfg(target_arch = "x86_64")]
    {
        let mut word = 0u32;
        // SAFETY: stores MXCSR into a word of this stack.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack, preserves_flags)) };
        word |= 0x8040;
        // SAFETY: sets no reserved bit and unmasks no exception; how denormals are treated is all that changes.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, preserves_flags)) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        let mut word: u64;
        // SAFETY: reads a control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nomem, nostack, preserves_flags)) };
        word |= 1 << 24;
        // SAFETY: how denormals are treated is all that changes.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nomem, nostack, preserves_flags)) };
    }
}

/// Whether denormals are flushed on this thread, by trying.
fn flushed() -> bool {
    std::hint::black_box(1e-30f32) * std::hint::black_box(1e-10f32) == 0.0
}

fn status_bytes(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
