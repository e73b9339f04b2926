//! CIFAR-10 as a sequence: pixel by pixel, row by row, or rows followed by noise.
//!
//! Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; as a sequence and followed by noise by
//! Chang et al., "AntisymmetricRNN", ICLR 2019, and Kag, Zhang and Saligrama (iRNN), ICLR 2020.
//!
//! | order | steps | width | each step reads |
//! |---|---|---|---|
//! | `pixel` | 1024 | 3 | red, green and blue of the next pixel, row by row |
//! | `rows` | 32 | 96 | the next row: red, green and blue of each pixel in turn |
//! | `noisy` | T | 96 | the next row, then standard normal noise |
//!
//! Values have mean 0 and variance 1 over all training images. The noise is drawn anew in each epoch, and fixed for
//! validation and test. `set=full` reads the six files of the binary version: the last fifth of the 50 000 training
//! images validates, and with `split=full` it is also trained on, as for that paper's reported numbers. `set=part`
//! reads three files: `data_batch_1.bin` to train on, `data_batch_5_last1000.bin` (the last 1 000 training images) to
//! validate and `test_batch_first1000.bin` to test; its numbers do not compare with published ones.

use retrograd_engine::{DType, Tensor};

use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::{OptionDoc, Options};
use crate::random::{Purpose, Random};
use crate::readers::cifar::{self, BYTES, Images, PIXELS};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;
use crate::windows::holdout;

const FOLDER: &str = "cifar10/";
const SIDE: usize = 32;
const FULL: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const FULL_TEST: &str = "test_batch.bin";
const PART: [&str; 3] = ["data_batch_1.bin", "data_batch_5_last1000.bin", "test_batch_first1000.bin"];

const fn options(order: &'static str) -> [OptionDoc; 7] {
    [
        OptionDoc::new("order", order, "pixel, rows, or noisy (rows, then noise)"),
        OptionDoc::new(
            "set",
            "full",
            "full: all six files; part: the first 10 000, and 1 000 each to validate and test",
        ),
        OptionDoc::new("split", "holdout", "holdout: the last fifth validates; full: it is also trained on"),
        OptionDoc::new("T", "1000", "steps of the order noisy"),
        OptionDoc::new("train", "all", "use only so many training images"),
        OptionDoc::new("valid", "all", "use only so many validation images"),
        OptionDoc::new("test", "all", "use only so many test images"),
    ]
}

macro_rules! entry {
    ($name:literal, $order:literal, $summary:literal) => {{
        const OPTIONS: &[OptionDoc] = &options($order);
        fn build(options: &Options) -> Result<Box<dyn Task>> {
            build_as($name, OPTIONS, options)
        }
        TaskEntry {
            name: $name,
            summary: $summary,
            options: OPTIONS,
            needs: &[FOLDER],
            module: module_path!(),
            build,
        }
    }};
}

pub(crate) const PIXEL: TaskEntry =
    entry!("cifar", "pixel", "CIFAR-10 images, one pixel a step (1024 steps)");
pub(crate) const ROWS: TaskEntry = entry!("rowcifar", "rows", "CIFAR-10 images, one row a step (32 steps)");
pub(crate) const NOISY: TaskEntry =
    entry!("noisycifar", "noisy", "CIFAR-10 rows, then noise up to 1000 steps");

struct Cifar {
    spec: TaskSpec,
    examples: Examples,
    noisy: bool,
    pixelwise: bool,
    steps: usize,
    /// Value of each byte.
    levels: [f32; 256],
    /// Training, validation and test images.
    files: [Images; 3],
    /// Images of each split in its file.
    picked: [Vec<u32>; 3],
}

fn build_as(name: &'static str, docs: &'static [OptionDoc], options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(name, docs)?;
    let order = s.choice("order", &["pixel", "rows", "noisy"])?;
    let part = s.choice("set", &["full", "part"])? == "part";
    let full_split = s.choice("split", &["holdout", "full"])? == "full";
    let noisy_steps = s.integer("T", SIDE..=100_000_000)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];
    data_dir::find_folder(options.data(), FOLDER)?;
    let read = |file: &str| cifar::read(&data_dir::find(options.data(), &format!("{FOLDER}{file}.gz"))?);

    let all = |images: &Images| (0..images.labels.len() as u32).collect::<Vec<u32>>();
    let (files, mut picked) = if part {
        let files = [read(PART[0])?, read(PART[1])?, read(PART[2])?];
        let picked = std::array::from_fn(|i| all(&files[i]));
        (files, picked)
    } else {
        let mut train = Images::default();
        for file in FULL {
            let batch = read(file)?;
            train.pixels.extend(batch.pixels);
            train.labels.extend(batch.labels);
        }
        let (train_list, test) = (all(&train), read(FULL_TEST)?);
        let [kept, valid] = holdout(train_list, full_split);
        let picked = [kept, valid, all(&test)];
        ([train, Images::default(), test], picked)
    };
    for (split, limit) in limits.into_iter().enumerate() {
        picked[split].truncate(limit.unwrap_or(usize::MAX));
        if picked[split].is_empty() {
            let reason = format!("no {} images", Split::ALL[split]);
            return Err(Error::data(FOLDER, reason));
        }
    }
    let (steps, width) = match order {
        "pixel" => (PIXELS, 3),
        "rows" => (SIDE, 3 * SIDE),
        _ => (noisy_steps, 3 * SIDE),
    };
    let loss = Loss::SoftmaxCrossEntropy { classes: usize::from(cifar::CLASSES) };
    let spec = TaskSpec::new(name, Input::Dense { width }, loss, At::Last, Metric::Accuracy)
        .with_baseline(f64::from(cifar::CLASSES).ln(), "finds all ten classes equally likely")
        .with_steps(steps);
    Ok(Box::new(Cifar {
        spec,
        examples: Examples::new(name, std::array::from_fn(|i| picked[i].len())),
        noisy: order == "noisy",
        pixelwise: order == "pixel",
        steps,
        levels: crate::recipes::standardized(&files[0].pixels),
        files,
        picked,
    }))
}

impl Task for Cifar {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.examples.pick(request)?;
        let (n, width) = (rows.len(), self.spec.input.width());
        let split = request.split as usize;
        // The full set holds validation images out of the training file.
        let file = if self.files[split].labels.is_empty() { 0 } else { split };
        let mut x = Tensor::zeros(DType::F32, [self.steps, n, width])?;
        let mut target = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys) = (x.as_mut_slice::<f32>()?, target.as_mut_slice::<i32>()?);
        for (row, &example) in rows.iter().enumerate() {
            let image = self.picked[split][example] as usize;
            ys[row] = i32::from(self.files[file].labels[image]);
            let planes = &self.files[file].pixels[image * BYTES..][..BYTES];
            for (pixel, color) in (0..PIXELS).flat_map(|p| (0..3).map(move |c| (p, c))) {
                let (t, c) = match self.pixelwise {
                    true => (pixel, color),
                    false => (pixel / SIDE, pixel % SIDE * 3 + color),
                };
                xs[(t * n + row) * width + c] = self.levels[usize::from(planes[color * PIXELS + pixel])];
            }
            if self.noisy {
                let (seed, epoch) =
                    if request.split == Split::Train { (request.seed, request.epoch) } else { (0, 0) };
                let mut random = Random::new(Purpose::Noise, seed, request.split, epoch, example as u64);
                for t in SIDE..self.steps {
                    xs[(t * n + row) * width..][..width].fill_with(|| random.normal());
                }
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}
