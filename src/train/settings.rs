//! `key=value`: one flat way to change any part of a configuration.
//!
//! A key is one of the configuration itself (`batch`, `hidden`, `epochs`, ..), the name of a part (`optimizer=adam`,
//! `penalty=soft-unitary`), or a setting of a part: `lr` alone where only one part has it, else with the part in
//! front, which is its role or its name (`optimizer.eps` or `adam.eps`).

use std::fmt::Display;
use std::str::FromStr;

use super::config::{self, Length, Named, Precision, Settings, TrainConfig};
use crate::run::{Error, Result};

/// A key of the configuration itself.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Key.
    pub key: &'static str,
    /// What it is, in a line.
    pub doc: &'static str,
    set: fn(&mut TrainConfig, &str) -> Result<(), String>,
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.replace('_', "").parse().map_err(|_| format!("`{text}`, expected a number"))
}

fn count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.replace('_', "").parse() {
        Ok(n) if n >= T::from(1) => Ok(n),
        _ => Err(format!("`{text}`, expected a whole number from 1")),
    }
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}`, expected true or false")),
    }
}

/// Nothing for the word `none`, `all` or `full`.
fn optional<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    match text {
        "none" | "all" | "full" => Ok(None),
        _ => read(text).map(Some),
    }
}

/// Names separated by commas, `none` for no name.
fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|n| !n.is_empty() && *n != "none");
    names.map(String::from).collect()
}

/// Replaces parts by those of the names given; parts that stay keep their settings.
fn rename(parts: &mut Vec<Named>, text: &str) {
    let old = std::mem::take(parts);
    let part =
        |name: String| old.iter().find(|p| p.name == name).cloned().unwrap_or_else(|| Named::new(name));
    *parts = names(text).into_iter().map(part).collect();
}

fn rename_one(part: &mut Named, text: &str) {
    if part.name != text {
        *part = Named::new(text);
    }
}

macro_rules! keys {
    ($($key:literal, $doc:literal, |$c:ident, $v:ident| $set:expr;)+) => {
        &[$(Key { key: $key, doc: $doc, set: |$c: &mut TrainConfig, $v: &str| { $set; Ok(()) } }),+]
    };
}

/// The keys of the configuration itself. Those that name a part come first, as their settings depend on them.
pub const KEYS: &[Key] = keys! {
    "operator", "recurrent operator", |c, v| rename_one(&mut c.operator, v);
    "optimizer", "optimizer", |c, v| rename_one(&mut c.optimizer, v);
    "multiplicative", "optimizer of matrices that stay unitary", |c, v| rename_one(&mut c.multiplicative, v);
    "schedule", "learning-rate schedule", |c, v| rename_one(&mut c.schedule, v);
    "penalty", "penalties, separated by commas, or none", |c, v| rename(&mut c.penalties, v);
    "constraint", "constraints, separated by commas, or none", |c, v| rename(&mut c.constraints, v);
    "hidden", "size of the state of each layer", |c, v| c.hidden = count(v)?;
    "layers", "number of layers", |c, v| c.layers = count(v)?;
    "bidirectional", "every layer also runs backwards in time", |c, v| c.bidirectional = flag(v)?;
    "learn_h0", "the first state is learned", |c, v| c.learn_h0 = flag(v)?;
    "weight_norm", "input and recurrent matrices are directions and lengths", |c, v| c.weight_norm = flag(v)?;
    "dropout", "probability of dropping an output between layers", |c, v| c.dropout = number(v)?;
    "recurrent_dropout", "probability of dropping recurrent states, one mask a sequence", |c, v| c.recurrent_dropout = number(v)?;
    "shared_masks", "all gates share one mask of recurrent_dropout", |c, v| c.shared_masks = flag(v)?;
    "input_dropout", "probability of dropping inputs: symbols, or numbers of vectors", |c, v| c.input_dropout = number(v)?;
    "readout_dropout", "probability of dropping what the read-out sees, one mask a sequence", |c, v| c.readout_dropout = number(v)?;
    "embedding", "learned numbers that stand for a symbol, or none", |c, v| c.embedding = optional(v, |v| count::<u64>(v).map(|n| n as usize))?;
    "weight_noise", "standard deviation of noise on parameters in training", |c, v| c.weight_noise = number(v)?;
    "precision", "f32 or f64", |c, v| c.precision = precision(v)?;
    "stash", "exact, bf16 or f16: how values are kept for the backward pass; rounded ones change gradients", |c, v| c.stash = config::stash(v)?;
    "walk_back", "steps between kept states, the others walked back to, or none; for cells with an inverse", |c, v| c.walk_back = optional(v, |v| count::<u64>(v).map(|n| n as usize))?;
    "horizon", "steps gradients reach back inside a batch, or full", |c, v| c.horizon = optional(v, count)?;
    "frozen", "parameters that are not trained, separated by commas", |c, v| c.frozen = names(v);
    "init", "first values of parameters, each with all below it, separated by commas: layer0.U:uniform:0.04,readout:zeros", |c, v| c.init = names(v);
    "batch", "rows of a training batch", |c, v| c.batch = count(v)?;
    "eval_batch", "rows of a batch of validation and test", |c, v| c.eval_batch = count(v)?;
    "epochs", "passes over the training split", |c, v| c.length = Length::Epochs(count(v)?);
    "steps", "updates, instead of epochs", |c, v| c.length = Length::Steps(count(v)?);
    "eval_every", "updates between two evaluations, or none for every epoch", |c, v| c.eval_every = optional(v, count)?;
    "eval_batches", "batches of an evaluation, or all", |c, v| c.eval_batches = optional(v, |v| count::<u64>(v).map(|n| n as usize))?;
    "patience", "evaluations without a new best until the end, or none", |c, v| c.patience = optional(v, count)?;
    "goal", "validation metric that is good enough to stop, or none", |c, v| c.goal = optional(v, number)?;
    "log_every", "updates between two records of the training loss", |c, v| c.log_every = count(v)?;
    "snapshots", "updates between two checkpoints that are kept, or none", |c, v| c.snapshots = optional(v, count)?;
    "seed", "seed of first parameters, shuffling and dropout", |c, v| c.seed = number(v)?;
};

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "f32" => Ok(Precision::F32),
        "f64" => Ok(Precision::F64),
        _ => Err(format!("`{text}`, expected f32 or f64")),
    }
}

/// Which part settings belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Task,
    Cell,
    Operator,
    Optimizer,
    Multiplicative,
    Schedule,
    Gradients,
    Penalty(usize),
    Constraint(usize),
}

/// A part of a configuration with the keys it knows.
#[derive(Debug)]
struct Owner {
    place: Place,
    role: &'static str,
    name: String,
    keys: Vec<&'static str>,
}

impl Owner {
    /// Parts that are in no table (a cell of the caller's own) know no key; whoever builds them checks.
    fn new(place: Place, role: &'static str, name: &str, keys: Option<Vec<&'static str>>) -> Owner {
        Owner { place, role, name: name.into(), keys: keys.unwrap_or_default() }
    }

    fn is_called(&self, word: &str) -> bool {
        self.role == word || self.name == word
    }
}

fn owners(c: &TrainConfig) -> Vec<Owner> {
    use retrograd_cells as cells;
    use retrograd_optim as optim;
    let cell_keys = |docs: &[cells::OptionDoc]| docs.iter().map(|d| d.key).collect();
    let optim_keys = |docs: &[optim::OptionSpec]| docs.iter().map(|d| d.key).collect();
    let task = retrograd_datasets::find(&c.task.name).ok().map(|e| e.options.iter().map(|o| o.key).collect());
    let cell = cells::cell_entry(&c.cell.name).ok().map(|e| cell_keys(e.options));
    let operator = cells::operator_entry(&c.operator.name).ok().map(|e| cell_keys(e.options));
    let optimizer = optim::find("optimizer", optim::OPTIMIZERS, &c.optimizer.name).ok();
    let multiplicative =
        optim::find("optimizer of unitary matrices", optim::MULTIPLICATIVE, &c.multiplicative.name).ok();
    let schedule = optim::find("schedule", optim::SCHEDULES, &c.schedule.name).ok();
    let mut all = vec![
        Owner::new(Place::Task, "task", &c.task.name, task),
        Owner::new(Place::Cell, "cell", &c.cell.name, cell),
        Owner::new(Place::Operator, "operator", &c.operator.name, operator),
        Owner::new(
            Place::Optimizer,
            "optimizer",
            &c.optimizer.name,
            optimizer.map(|e| optim_keys(e.options)),
        ),
        Owner::new(
            Place::Multiplicative,
            "multiplicative",
            &c.multiplicative.name,
            multiplicative.map(|e| optim_keys(e.options)),
        ),
        Owner::new(Place::Schedule, "schedule", &c.schedule.name, schedule.map(|e| optim_keys(e.options))),
        Owner::new(Place::Gradients, "gradients", "gradients", Some(optim_keys(optim::GRADIENT_OPTIONS))),
    ];
    for (i, part) in c.penalties.iter().enumerate() {
        let entry = optim::find("penalty", optim::PENALTIES, &part.name).ok();
        all.push(Owner::new(Place::Penalty(i), "penalty", &part.name, entry.map(|e| optim_keys(e.options))));
    }
    for (i, part) in c.constraints.iter().enumerate() {
        let entry = optim::find("constraint", optim::CONSTRAINTS, &part.name).ok();
        all.push(Owner::new(
            Place::Constraint(i),
            "constraint",
            &part.name,
            entry.map(|e| optim_keys(e.options)),
        ));
    }
    all
}

fn settings_of(c: &mut TrainConfig, place: Place) -> &mut Settings {
    match place {
        Place::Task => &mut c.task.settings,
        Place::Cell => &mut c.cell.settings,
        Place::Operator => &mut c.operator.settings,
        Place::Optimizer => &mut c.optimizer.settings,
        Place::Multiplicative => &mut c.multiplicative.settings,
        Place::Schedule => &mut c.schedule.settings,
        Place::Gradients => &mut c.gradients,
        Place::Penalty(i) => &mut c.penalties[i].settings,
        Place::Constraint(i) => &mut c.constraints[i].settings,
    }
}

impl TrainConfig {
    /// Sets one value; keys are those of [`KEYS`] and of the parts. The key of a part that names it comes before keys of its settings.
    ///
    /// Errors: [`Error::Config`] for a key that nothing has (with the nearest known one) or several parts have, and
    /// for values of the configuration itself that do not fit; those of parts are read when they are built.
    pub fn set(&mut self, key: &str, value: impl Display) -> Result<()> {
        let value = value.to_string();
        if let Some(own) = KEYS.iter().find(|k| k.key == key) {
            return (own.set)(self, &value).map_err(|reason| Error::config(key, reason));
        }
        let owners = owners(self);
        if let Some((word, inner)) = key.split_once('.')
            && let Some(owner) = owners.iter().find(|o| o.is_called(word))
        {
            let known = owner.keys.is_empty() || owner.keys.contains(&inner) || inner.contains('.');
            if !known {
                let near = nearest(inner, owner.keys.iter().copied());
                return Err(unknown(key, near.map(|n| format!("{word}.{n}"))));
            }
            settings_of(self, owner.place).insert(inner.into(), value);
            return Ok(());
        }
        // The settings of unitary matrices are always said with their part in front: few networks have such matrices,
        // and every optimiser has a rate. A schedule may hold another one: `then.every`.
        let has = |o: &&Owner| {
            o.place != Place::Multiplicative && o.keys.contains(&key)
                || key.split_once('.').is_some_and(|(k, _)| o.keys.contains(&k))
        };
        let mut having = owners.iter().filter(has);
        match (having.next(), having.next()) {
            (Some(owner), None) => {
                settings_of(self, owner.place).insert(key.into(), value);
                Ok(())
            }
            (Some(first), Some(second)) => {
                let reason =
                    format!("several parts have it; say {}.{key} or {}.{key}", first.name, second.name);
                Err(Error::config(key, reason))
            }
            (None, _) => {
                let keys = owners.iter().flat_map(|o| o.keys.iter().copied());
                let near = nearest(key, KEYS.iter().map(|k| k.key).chain(keys));
                Err(unknown(key, near.map(String::from)))
            }
        }
    }

    /// Sets values from `key=value` texts: first those that name parts, then the others in order; a later one
    /// replaces an earlier one of the same key. Errors: text that is not `key=value`; those of [`TrainConfig::set`].
    pub fn set_all<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) -> Result<()> {
        let mut pairs = Vec::new();
        for text in texts {
            let text = text.as_ref();
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    pairs.push((key.trim().to_string(), value.trim().to_string()));
                }
                _ => return Err(Error::config(text, "expected key=value")),
            }
        }
        let names_part = |key: &str| PARTS.contains(&key);
        for (key, value) in pairs.iter().filter(|(k, _)| names_part(k)) {
            self.set(key, value)?;
        }
        for (key, value) in pairs.iter().filter(|(k, _)| !names_part(k)) {
            self.set(key, value)?;
        }
        Ok(())
    }
}

/// Keys whose values are names of parts.
const PARTS: &[&str] = &["operator", "optimizer", "multiplicative", "schedule", "penalty", "constraint"];

fn unknown(key: &str, near: Option<String>) -> Error {
    match near {
        Some(near) => Error::config(key, format!("unknown, did you mean `{near}`?")),
        None => Error::config(key, "unknown; `retrograd list keys` lists what there is"),
    }
}

/// The known name that looks most like `name`, if any looks like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .map(|k| (k, strsim::jaro_winkler(&lower, &k.to_lowercase())))
        .filter(|&(_, likeness)| likeness > 0.7)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(k, _)| k)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config() -> TrainConfig {
        TrainConfig::new("adding", "kru", None).unwrap()
    }

    #[test]
    fn keys_find_their_owner() {
        let mut c = config();
        c.set_all([
            "lr=0.5",
            "T=40",
            "factors=2x4",
            "optimizer=adam",
            "hidden=8",
            "beta1=0.5",
            "cell.modrelu=exact",
        ])
        .unwrap();
        c.set_all([
            "penalty=soft-unitary,l2",
            "l2.lambda=0.25",
            "clip=norm",
            "schedule=warmup",
            "then.every=3",
        ])
        .unwrap();
        assert_eq!(c.optimizer, Named::new("adam").with("lr", "0.5").with("beta1", "0.5"));
        assert_eq!(c.task.settings["T"], "40");
        assert_eq!(c.operator.settings["factors"], "2x4");
        assert_eq!(c.cell.settings["modrelu"], "exact");
        assert_eq!(c.penalties[1], Named::new("l2").with("lambda", "0.25"));
        assert_eq!(c.gradients["clip"], "norm");
        assert_eq!(c.schedule.settings["then.every"], "3");
        assert_eq!(c.hidden, 8);
        c.set("penalty", "none").unwrap();
        assert!(c.penalties.is_empty());
    }

    #[test]
    fn errors_name_key_and_nearest() {
        let rows = [
            ("hiden=3", "configuration `hiden`: unknown, did you mean `hidden`?"),
            ("kru.modrleu=3", "configuration `kru.modrleu`: unknown, did you mean `kru.modrelu`?"),
            ("hidden=0", "configuration `hidden`: `0`, expected a whole number from 1"),
            ("hidden", "configuration `hidden`: expected key=value"),
            ("bidirectional=maybe", "configuration `bidirectional`: `maybe`, expected true or false"),
            ("qqqq=1", "configuration `qqqq`: unknown; `retrograd list keys` lists what there is"),
        ];
        for (text, message) in rows {
            assert_eq!(config().set_all([text]).unwrap_err().to_string(), message);
        }
        let several = config().set_all(["penalty=soft-unitary,l2", "lambda=1"]).unwrap_err().to_string();
        let expected = "configuration `lambda`: several parts have it; say soft-unitary.lambda or l2.lambda";
        assert_eq!(several, expected);
    }
}
