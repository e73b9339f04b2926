//! What is looked at: a network with the parameters of a checkpoint, and a batch of its task.

use std::path::{Path, PathBuf};

use retrograd_cells::{Mode, Model, ModelSpec, Recorded};
use retrograd_datasets::{At, Batch, Request, Split};
use retrograd_engine::{DType, Params, Program, RunOptions, Tensor, Var};

use super::Options;
use crate::run::{BEST, Error, LAST, Result, checkpoint};
use crate::train::{Parts, SNAPSHOTS, TrainConfig, model_spec, stored_config};

/// A network, its parameters, a batch.
pub(super) struct Subject {
    pub(super) folder: PathBuf,
    pub(super) config: TrainConfig,
    /// Without masks, lengths and carried states; with probes.
    pub(super) model: ModelSpec,
    pub(super) params: Params,
    /// `x [T,N,..]` and `target`, every row as long as the shortest.
    batch: Batch,
}

impl Subject {
    pub(super) fn open(folder: &Path, options: &Options) -> Result<Subject> {
        let mut config = stored_config(folder)?;
        config.data = options.data.clone().or(config.data);
        let file = folder.join(&options.checkpoint);
        if !file.exists() {
            return Err(Error::run_folder(folder, format!("no {}; no evaluation yet?", file.display())));
        }
        let parts = Parts::new(&config)?;
        let mut model = model_spec(&config, &parts)?;
        if model.bidirectional {
            return Err(Error::config(
                "bidirectional",
                "states of both directions have no common time to look at",
            ));
        }
        (model.masked, model.lengths, model.stateful, model.probes) = (false, false, false, true);
        let params = parameters(&file, &model, config.seed)?;
        let every_step = parts.task.spec().at == At::EveryStep;
        let batch_size = match parts.task.examples(Split::Test) {
            // A stream has as many rows as it is cut into.
            1 => options.rows,
            examples => options.rows.min(examples),
        };
        let request = Request { split: Split::Test, batch_size, epoch: 0, index: 0, seed: config.seed };
        let batch = match parts.task.as_pieces() {
            Some(pieces) => pieces.piece(&request, 0, options.steps)?,
            None => parts.task.batch(&request)?,
        };
        let batch = cut(batch, every_step, options.steps)?;
        Ok(Subject { folder: folder.into(), config, model, params, batch })
    }

    pub(super) fn steps(&self) -> usize {
        self.batch.steps()
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.rows()
    }

    pub(super) fn record(&self) -> Result<Recorded> {
        Ok(Model::new(self.model.clone())?.record_for(Mode::Evaluate, self.config.seed)?)
    }

    /// A program of these outputs.
    pub(super) fn program(&self, recorded: &Recorded, outputs: &[Var]) -> Result<Program> {
        let options =
            RunOptions { budget: self.config.budget, threads: self.config.threads, ..Default::default() };
        Ok(Program::new(&recorded.tape, outputs, options)?)
    }

    /// The batch, and probes that move nothing.
    pub(super) fn inputs(&self, recorded: &Recorded) -> Result<Params> {
        let real = |t: &Tensor| match t.dtype().is_differentiable() {
            true => t.cast(self.model.dtype),
            false => Ok(t.clone()),
        };
        let mut inputs = Params::new();
        inputs.insert("x", real(&self.batch.x)?);
        inputs.insert("target", real(&self.batch.target)?);
        for probe in &recorded.probes {
            let ty = recorded.tape.ty(probe.var)?;
            let dims = [&[self.steps(), self.rows()], &ty.shape.dims[..]].concat();
            inputs.insert(probe.input.clone(), Tensor::zeros(ty.dtype, dims)?);
        }
        Ok(inputs)
    }

    /// `x` of one step, `[1, N, ..]`.
    pub(super) fn x_at(&self, t: usize) -> Result<Tensor> {
        let x = steps(&self.batch.x, t, 1)?;
        if x.dtype().is_differentiable() { Ok(x.cast(self.model.dtype)?) } else { Ok(x) }
    }

    /// Every checkpoint there is with its step: snapshots, then the best and the newest.
    pub(super) fn checkpoints(&self) -> Result<Vec<(u64, Params)>> {
        let mut files = Vec::new();
        if let Ok(entries) = std::fs::read_dir(self.folder.join(SNAPSHOTS)) {
            for entry in entries {
                let path = entry.map_err(Error::io(&self.folder))?.path();
                if path.extension().is_some_and(|e| e == "safetensors") {
                    files.push(path);
                }
            }
        }
        files
            .extend([BEST, LAST].map(|name| self.folder.join(name)).into_iter().filter(|path| path.exists()));
        let mut found: Vec<(u64, Params)> = Vec::new();
        for file in files {
            let loaded = checkpoint::load(&file)?;
            let step = match loaded.metadata.get("step").and_then(|step| step.parse().ok()) {
                Some(step) => step,
                None => crate::train::stored_step(&loaded).unwrap_or(0),
            };
            if !found.iter().any(|(s, _)| *s == step) {
                found.push((step, parameters(&file, &self.model, self.config.seed)?));
            }
        }
        found.sort_by_key(|(step, _)| *step);
        Ok(found)
    }
}

/// The parameters in a checkpoint. Errors: parameters of another network.
fn parameters(file: &Path, model: &ModelSpec, seed: u64) -> Result<Params> {
    let mut loaded = checkpoint::load(file)?;
    let found = loaded.groups.remove(crate::train::MODEL);
    let found = found.ok_or_else(|| Error::checkpoint(file, "it holds no model"))?;
    let expected = Model::new(model.clone())?.declare(seed)?.into_params();
    for (name, first) in expected.iter() {
        let fits = |t: &Tensor| (t.dtype(), t.dims()) == (first.dtype(), first.dims());
        if !found.get(name).is_some_and(fits) {
            return Err(Error::checkpoint(file, format!("parameter `{name}` is missing or of another size")));
        }
    }
    Ok(found)
}

/// Steps `first..first + count` of a sequence.
fn steps(x: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let step = x.bytes() / dims[0].max(1);
    dims[0] = count;
    let mut part = Tensor::zeros(x.dtype(), dims)?;
    part.as_bytes_mut().copy_from_slice(&x.as_bytes()[first * step..][..count * step]);
    Ok(part)
}

/// A batch whose rows are all as long as the shortest, and not longer than `most` steps. A sequence that is scored at its
/// end keeps its end.
fn cut(batch: Batch, every_step: bool, most: usize) -> Result<Batch> {
    let mut kept = batch.steps();
    if let Some(lengths) = &batch.lengths {
        let lengths = lengths.as_slice::<i32>()?;
        kept = lengths.iter().map(|&l| l as usize).min().unwrap_or(kept).max(1);
    }
    let (first, kept) = match every_step {
        true => (0, kept.min(most)),
        false => (kept - kept.min(most), kept.min(most)),
    };
    let x = steps(&batch.x, first, kept)?;
    let target = if every_step { steps(&batch.target, first, kept)? } else { batch.target };
    Ok(Batch { x, target, mask: None, lengths: None })
}

/// Number of real numbers in a row of a value.
pub(super) fn real_width(dtype: DType, width: usize) -> usize {
    width * dtype.planes()
}
