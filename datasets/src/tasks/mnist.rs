//! MNIST as a sequence: pixel by pixel, permuted, row by row, or rows followed by noise.
//!
//! LeCun et al. 1998; as a sequence by Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks
//! of Rectified Linear Units", 2015; followed by noise by Chang et al., "AntisymmetricRNN", ICLR 2019, and
//! Kag, Zhang and Saligrama, "RNNs Incrementally Evolving on an Equilibrium Manifold" (iRNN), ICLR 2020.
//!
//! | order | steps | width | each step reads |
//! |---|---|---|---|
//! | `pixel` | 784 | 1 | the next pixel, row by row |
//! | `permuted` | 784 | 1 | the next pixel of a fixed permutation |
//! | `rows` | 28 | 28 | the next row |
//! | `noisy` | T | 28 | the next row, then standard normal noise |
//!
//! The noise is drawn anew in each epoch, and fixed for validation and test. Scaling, split and permutation
//! follow a `recipe`; see the module of that name for what each paper does. The class is read after the last
//! step.

use retrograd_engine::{DType, Tensor};

use crate::data_dir;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::options::{OptionDoc, Options};
use crate::random::{Purpose, Random};
use crate::readers::idx;
use crate::recipes::{self, Recipe};
use crate::task::{At, Batch, Input, Loss, Metric, Request, Split, Task, TaskSpec};
use crate::tasks::TaskEntry;

const SIDE: usize = 28;
const PIXELS: usize = SIDE * SIDE;
const CLASSES: usize = 10;

const FILES: &[&str] = &[
    "mnist/train-images-idx3-ubyte.gz",
    "mnist/train-labels-idx1-ubyte.gz",
    "mnist/t10k-images-idx3-ubyte.gz",
    "mnist/t10k-labels-idx1-ubyte.gz",
];

const RECIPES: &str = "scaling, split and permutation: kru, fcurnn, lrd, nru, irnn, irnn-full, eurnn or ornn";

const fn options(order: &'static str, recipe: &'static str) -> [OptionDoc; 6] {
    [
        OptionDoc::new("order", order, "pixel, permuted, rows, or noisy (rows, then noise)"),
        OptionDoc::new("recipe", recipe, RECIPES),
        OptionDoc::new("T", "1000", "steps of the order noisy"),
        OptionDoc::new("train", "all", "use only so many training images"),
        OptionDoc::new("valid", "all", "use only so many validation images"),
        OptionDoc::new("test", "all", "use only so many test images"),
    ]
}

macro_rules! entry {
    ($name:literal, $order:literal, $recipe:literal, $summary:literal) => {{
        const OPTIONS: &[OptionDoc] = &options($order, $recipe);
        fn build(options: &Options) -> Result<Box<dyn Task>> {
            build_as($name, OPTIONS, options)
        }
        TaskEntry {
            name: $name,
            summary: $summary,
            options: OPTIONS,
            needs: FILES,
            module: module_path!(),
            build,
        }
    }};
}

pub(crate) const PIXEL: TaskEntry =
    entry!("mnist", "pixel", "kru", "MNIST digits, one pixel a step (784 steps)");
pub(crate) const PERMUTED: TaskEntry =
    entry!("psmnist", "permuted", "kru", "permuted MNIST: one pixel a step in a fixed random order");
pub(crate) const ROWS: TaskEntry =
    entry!("rowmnist", "rows", "kru", "MNIST digits, one row a step (28 steps)");
pub(crate) const NOISY: TaskEntry =
    entry!("noisymnist", "noisy", "irnn", "MNIST rows, then noise up to 1000 steps");

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Pixels,
    Rows,
    Noisy,
}

struct Mnist {
    spec: TaskSpec,
    examples: Examples,
    order: Order,
    recipe: Recipe,
    /// Images and labels of the training and of the test file.
    files: [(idx::Idx, idx::Idx); 2],
    steps: usize,
}

fn build_as(name: &'static str, docs: &'static [OptionDoc], options: &Options) -> Result<Box<dyn Task>> {
    let s = options.read(name, docs)?;
    let order = s.choice("order", &["pixel", "permuted", "rows", "noisy"])?;
    let recipe = s.choice("recipe", recipes::NAMES)?;
    let noisy_steps = s.integer("T", SIDE..=100_000_000)?;
    let limits = [s.limit("train")?, s.limit("valid")?, s.limit("test")?];
    let load = |images: &str, labels: &str, least: usize| {
        let images = data_dir::find(options.data(), images)?;
        let labels = data_dir::find(options.data(), labels)?;
        let loaded = idx::read_labelled(&images, &labels, CLASSES as u8)?;
        match loaded.0.dims[..] {
            [n, SIDE, SIDE] if n >= least => Ok(loaded),
            _ => {
                let reason = format!("sizes {:?}, expected {least} or more images of 28x28", loaded.0.dims);
                Err(Error::data(images, reason))
            }
        }
    };
    // The smallest validation split is a twelfth of the training images.
    let files = [load(FILES[0], FILES[1], 12)?, load(FILES[2], FILES[3], 1)?];

    let mut recipe = recipes::recipe(recipe, &files[0].0.data, PIXELS);
    if order != "permuted" {
        recipe.permutation = (0..PIXELS as u32).collect();
    }
    let (order, steps, width) = match order {
        "rows" => (Order::Rows, SIDE, SIDE),
        "noisy" => (Order::Noisy, noisy_steps, SIDE),
        _ => (Order::Pixels, PIXELS + usize::from(recipe.trailing_zero), 1),
    };
    let full = [recipe.train.len(), recipe.valid.len(), files[1].1.data.len()];
    let sizes = std::array::from_fn(|i| limits[i].map_or(full[i], |limit| limit.min(full[i])));
    let loss = Loss::SoftmaxCrossEntropy { classes: CLASSES };
    let spec = TaskSpec::new(name, Input::Dense { width }, loss, At::Last, Metric::Accuracy)
        .with_baseline((CLASSES as f64).ln(), "finds all ten digits equally likely")
        .with_steps(steps);
    Ok(Box::new(Mnist { spec, examples: Examples::new(name, sizes), order, recipe, files, steps }))
}

impl Mnist {
    /// The pixels and the label of an example.
    fn example(&self, split: Split, example: usize) -> (&[u8], u8) {
        let (file, image) = match split {
            Split::Train => (0, self.recipe.train[example] as usize),
            Split::Valid => (0, self.recipe.valid[example] as usize),
            Split::Test => (1, example),
        };
        let (images, labels) = &self.files[file];
        (&images.data[image * PIXELS..][..PIXELS], labels.data[image])
    }
}

impl Task for Mnist {
    fn spec(&self) -> &TaskSpec {
        &self.spec
    }

    fn batches(&self, split: Split, batch_size: usize) -> usize {
        self.examples.batches(split, batch_size)
    }

    fn batch(&self, request: &Request) -> Result<Batch> {
        let rows = self.examples.pick(request)?;
        let (n, width) = (rows.len(), self.spec.input.width());
        let mut x = Tensor::zeros(DType::F32, [self.steps, n, width])?;
        let mut target = Tensor::zeros(DType::I32, [n])?;
        let (xs, ys) = (x.as_mut_slice::<f32>()?, target.as_mut_slice::<i32>()?);
        for (row, &example) in rows.iter().enumerate() {
            let (image, label) = self.example(request.split, example);
            ys[row] = i32::from(label);
            let value = |pixel: usize| self.recipe.levels[usize::from(image[pixel])];
            match self.order {
                Order::Pixels => {
                    for (t, &pixel) in self.recipe.permutation.iter().enumerate() {
                        xs[t * n + row] = value(pixel as usize);
                    }
                }
                Order::Rows | Order::Noisy => {
                    for pixel in 0..PIXELS {
                        let (t, c) = (pixel / SIDE, pixel % SIDE);
                        xs[(t * n + row) * SIDE + c] = value(pixel);
                    }
                }
            }
            if self.order == Order::Noisy {
                let (seed, epoch) =
                    if request.split == Split::Train { (request.seed, request.epoch) } else { (0, 0) };
                let mut random = Random::new(Purpose::Noise, seed, request.split, epoch, example as u64);
                for t in SIDE..self.steps {
                    xs[(t * n + row) * SIDE..][..SIDE].fill_with(|| random.normal());
                }
            }
        }
        Ok(Batch { x, target, mask: None, lengths: None })
    }
}
