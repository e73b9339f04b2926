//! Which examples a batch holds.

use crate::error::{Error, Result};
use crate::options::Settings;
use crate::random::{Orders, Purpose, Random};
use crate::task::{Request, Split};

/// Checks a request against the number of batches of its epoch.
pub(crate) fn check(task: &'static str, request: &Request, batches: usize) -> Result<()> {
    let split = request.split;
    let what = if request.batch_size == 0 {
        "a batch of 0 rows".to_string()
    } else if request.index >= batches {
        let size = request.batch_size;
        format!("batch {} of {split}, which has {batches} batches of {size}", request.index)
    } else {
        return Ok(());
    };
    Err(Error::Request { task, what })
}

/// The examples of three splits; those of the training split in a new order each epoch.
pub(crate) struct Examples {
    task: &'static str,
    sizes: [usize; 3],
    orders: Orders,
}

impl Examples {
    pub(crate) fn new(task: &'static str, sizes: [usize; 3]) -> Examples {
        Examples { task, sizes, orders: Orders::default() }
    }

    pub(crate) fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.sizes[split as usize].div_ceil(batch_size.max(1))
    }

    /// The numbers of the examples of a batch.
    pub(crate) fn pick(&self, request: &Request) -> Result<Vec<usize>> {
        check(self.task, request, self.batches(request.split, request.batch_size))?;
        let size = self.sizes[request.split as usize];
        let start = request.index * request.batch_size;
        let range = start..size.min(start.saturating_add(request.batch_size));
        Ok(match request.split {
            Split::Train => {
                let order = self.orders.get(request.seed, request.epoch, size);
                range.map(|i| order[i] as usize).collect()
            }
            _ => range.collect(),
        })
    }
}

/// Options every generated task has.
macro_rules! generated_options {
    ($($option:expr),* $(,)?) => {
        &[
            $($option,)*
            OptionDoc::new("train", "100000", "training sequences of an epoch"),
            OptionDoc::new("valid", "1000", "validation sequences (some papers use 10000)"),
            OptionDoc::new("test", "10000", "test sequences"),
            OptionDoc::new("online", "false", "true: fresh training sequences each epoch, by the run's seed"),
            OptionDoc::new("data-seed", "0", "seed of the finite sets; the run's seed only shuffles them"),
        ]
    };
}
pub(crate) use generated_options;

/// The generators of the rows of a batch of a generated task.
pub(crate) struct Generated {
    examples: Examples,
    online: bool,
    data_seed: u64,
}

impl Generated {
    /// Reads the options of [`generated_options`].
    pub(crate) fn new(task: &'static str, settings: &Settings<'_>) -> Result<Generated> {
        let most = u32::MAX as usize;
        let size = |key| settings.integer(key, 1..=most);
        Ok(Generated {
            examples: Examples::new(task, [size("train")?, size("valid")?, size("test")?]),
            online: settings.flag("online")?,
            data_seed: settings.seed("data-seed")?,
        })
    }

    pub(crate) fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    /// One generator for each row.
    pub(crate) fn rows(&self, request: &Request) -> Result<Vec<Random>> {
        let Request { split, batch_size, epoch, index, seed } = *request;
        if self.online && split == Split::Train {
            check(self.examples.task, request, self.batches(split, batch_size))?;
            let start = index * batch_size;
            let rows = batch_size.min(self.examples.sizes[0] - start);
            let row = |i| Random::new(Purpose::Online, seed, split, epoch, (start + i) as u64);
            return Ok((0..rows).map(row).collect());
        }
        let row = |i| Random::new(Purpose::Content, self.data_seed, split, 0, i as u64);
        Ok(self.examples.pick(request)?.into_iter().map(row).collect())
    }
}
