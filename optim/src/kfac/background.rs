//! Inverses computed beside training.
//!
//! What an inversion reads is set aside in the optimiser's state when it begins, and its result is taken over a fixed
//! number of updates later, whoever computed it: another thread meanwhile, or, in a run that was resumed in between, the
//! update that needs it. So both end with the same bits.

use std::sync::Mutex;
use std::thread::JoinHandle;

use retrograd_engine::{DType, Params, Tensor};

use super::approximation::Lengths;
use super::block::{Block, Inversion, Place, invert_all};
use crate::error::{Error, Result};

/// Tensors by name.
type Found = Result<Vec<(String, Tensor)>>;

/// What was set aside for one inversion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) how: Inversion,
    pub(crate) lengths: Vec<(usize, f64)>,
    pub(crate) weight: f64,
    /// The averages, under their own names.
    pub(crate) averages: Params,
}

const NUMBERS: &str = "/kfac.s.numbers";
const LENGTHS: &str = "/kfac.s.lengths";

/// Most lengths that are told apart.
const MOST_LENGTHS: usize = 64;

fn aside(key: &str) -> String {
    key.replacen("/kfac.", "/kfac.s.", 1)
}

fn is_average(place: &Place) -> bool {
    !place.0.contains(".i.")
}

impl Task {
    /// Where a task of these blocks is kept in the state.
    pub(crate) fn places(of_blocks: impl Iterator<Item = Place>) -> Vec<Place> {
        let averages = of_blocks.filter(is_average).map(|(key, dtype, dims)| (aside(&key), dtype, dims));
        let numbers = [(NUMBERS, vec![2]), (LENGTHS, vec![MOST_LENGTHS, 2])];
        averages.chain(numbers.map(|(key, dims)| (key.to_string(), DType::F64, dims))).collect()
    }

    /// A task from what the state holds now. Lengths beyond the first 64 are merged into their neighbors.
    pub(crate) fn now(
        blocks: &[Block],
        how: Inversion,
        lengths: &Lengths,
        weight: f64,
        tensors: &Params,
    ) -> Task {
        let group = lengths.len().div_ceil(MOST_LENGTHS).max(1);
        let merged = lengths.chunks(group).map(|part| {
            let share: f64 = part.iter().map(|l| l.1).sum();
            let mean = part.iter().map(|&(t, p)| t as f64 * p).sum::<f64>() / share;
            if part.len() == 1 { part[0] } else { (mean.round() as usize, share) }
        });
        let keys = blocks.iter().flat_map(|b| b.places(how.approximation)).filter(is_average);
        let averages =
            keys.filter_map(|(key, _, _)| Some((key.clone(), tensors.get(&key)?.clone()))).collect();
        Task { how, lengths: merged.collect(), weight, averages }
    }

    /// Sets it aside.
    pub(crate) fn store(&self, tensors: &mut Params) -> Result<()> {
        for (key, tensor) in self.averages.iter() {
            tensors.insert(aside(key), tensor.clone());
        }
        tensors.insert(NUMBERS, Tensor::from_slice([2], &[self.how.lambda, self.weight])?);
        let mut table = vec![0.0; 2 * MOST_LENGTHS];
        for (row, &(t, p)) in table.chunks_exact_mut(2).zip(&self.lengths) {
            row.copy_from_slice(&[t as f64, p]);
        }
        tensors.insert(LENGTHS, Tensor::from_slice([MOST_LENGTHS, 2], &table)?);
        Ok(())
    }

    /// Whether something is set aside: nothing is where the update that was to begin an inversion took a step back instead.
    pub(crate) fn is_stored(tensors: &Params) -> bool {
        tensors.get(NUMBERS).is_some_and(|numbers| numbers.get(1).re > 0.0)
    }

    /// Forgets what was set aside.
    pub(crate) fn clear(tensors: &mut Params) -> Result<()> {
        tensors.insert(NUMBERS, Tensor::zeros(DType::F64, [2])?);
        Ok(())
    }

    /// What was set aside.
    pub(crate) fn load(blocks: &[Block], how: Inversion, tensors: &Params) -> Result<Task> {
        let get = |key: &str| {
            let missing = || Error::Missing { what: format!("optimiser state `{key}`") };
            tensors.get(key).ok_or_else(missing)
        };
        let numbers = get(NUMBERS)?;
        let table = get(LENGTHS)?.as_slice::<f64>()?.to_vec();
        let lengths = table.chunks_exact(2).filter(|r| r[1] > 0.0).map(|r| (r[0] as usize, r[1])).collect();
        let keys = blocks.iter().flat_map(|b| b.places(how.approximation)).filter(is_average);
        let averages = keys
            .map(|(key, _, _)| Ok((key.clone(), get(&aside(&key))?.clone())))
            .collect::<Result<Params>>()?;
        let (lambda, weight) = (numbers.get(0).re, numbers.get(1).re);
        Ok(Task { how: Inversion { lambda, ..how }, lengths, weight, averages })
    }

    pub(crate) fn run(&self, blocks: &[Block], threads: usize) -> Found {
        invert_all(blocks, self.how, &self.lengths, self.weight, &self.averages, threads)
    }
}

/// The inversion under way, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Background(Mutex<Option<(Task, JoinHandle<Found>)>>);

impl Background {
    /// Begins a task on a thread of its own. Where there is none to be had, whoever needs the result computes it.
    pub(crate) fn start(&self, blocks: &[Block], task: Task) {
        let (blocks, own) = (blocks.to_vec(), task.clone());
        let started = std::thread::Builder::new().spawn(move || own.run(&blocks, 1));
        if let (Ok(handle), Ok(mut slot)) = (started, self.0.lock()) {
            *slot = Some((task, handle));
        }
    }

    /// The result of a task: of the thread that was started with it, or computed now.
    pub(crate) fn finish(&self, blocks: &[Block], task: &Task, threads: usize) -> Found {
        let under_way = self.0.lock().ok().and_then(|mut slot| slot.take());
        if let Some((started, handle)) = under_way
            && started == *task
            && let Ok(found) = handle.join()
        {
            return found;
        }
        task.run(blocks, threads)
    }
}
