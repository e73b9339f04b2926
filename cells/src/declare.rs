//! Declaring parameters: a name, sizes and an initialization become a value on the tape and a first tensor.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use retrograd_engine::{DType, Params, Tape, Tensor, Var};
use retrograd_ops as ops;

use crate::error::{Error, Result};
use crate::init::{Init, rng_for};

/// Smallest length a row is divided by under weight normalization.
const SMALLEST_LENGTH: f64 = 1e-12;

/// The parameters of a model as they are declared: first values, which of them are frozen, which are Kronecker
/// factors.
#[derive(Clone, Debug)]
pub struct ParamStore {
    params: Params,
    seed: u64,
    dtype: DType,
    frozen: BTreeSet<String>,
    factors: Vec<String>,
    unitary: Vec<String>,
    vars: Vec<(String, Var)>,
    weight_norm: bool,
    /// Names, each with all below it, and how they begin instead of as their cell says; the last that fits counts.
    initial: Vec<(String, Init)>,
    dropout_seed: Option<Var>,
    symbol_dropout: Option<(Var, f64)>,
}

impl ParamStore {
    /// No parameters yet; real numbers will be `dtype`, complex numbers its complex counterpart.
    ///
    /// Errors: a `dtype` that is not `F32` or `F64`.
    pub fn new(seed: u64, dtype: DType) -> Result<ParamStore> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::model(format!("element type {dtype}, expected f32 or f64")));
        }
        Ok(ParamStore {
            params: Params::new(),
            seed,
            dtype,
            frozen: BTreeSet::new(),
            factors: Vec::new(),
            unitary: Vec::new(),
            vars: Vec::new(),
            weight_norm: false,
            initial: Vec::new(),
            dropout_seed: None,
            symbol_dropout: None,
        })
    }

    /// First values, in the order of declaration.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// First values, in the order of declaration.
    pub fn into_params(self) -> Params {
        self.params
    }

    /// From here on parameters of these names, each with all below it, begin so instead of as their cell says.
    pub(crate) fn set_initial(&mut self, initial: &[(String, Init)]) {
        self.initial = initial.to_vec();
    }

    /// How a parameter of this full name begins, if not as its cell says.
    fn initial(&self, name: &str) -> Option<Init> {
        self.initial.iter().rev().find(|(at, _)| is_at_or_below(name, at)).map(|(_, init)| *init)
    }

    /// Whether there is a parameter of this name or below it.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.vars.iter().any(|(n, _)| is_at_or_below(n, name))
    }

    /// From here on what is declared may drop values, by this seed.
    pub(crate) fn set_dropout_seed(&mut self, seed: Option<Var>) {
        self.dropout_seed = seed;
    }

    /// Parameters that are trained, with their values on the tape.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, Var)> {
        self.vars.iter().filter(|(n, _)| !self.frozen.contains(n)).map(|(n, v)| (n.as_str(), *v))
    }

    /// Names of the parameters that are not trained.
    pub fn frozen(&self) -> impl Iterator<Item = &str> {
        self.frozen.iter().map(String::as_str)
    }

    /// Names of the Kronecker factors that are trained, in the order of declaration: what a soft unitary penalty
    /// is put on.
    pub fn trained_factors(&self) -> impl Iterator<Item = &str> {
        self.factors.iter().filter(|n| !self.frozen.contains(*n)).map(String::as_str)
    }

    /// Names of the trained matrices that are unitary (orthogonal) and must stay so, in the order of declaration: what
    /// a multiplicative update is made on.
    pub fn trained_unitary(&self) -> impl Iterator<Item = &str> {
        self.unitary.iter().filter(|n| !self.frozen.contains(*n)).map(String::as_str)
    }

    /// Freezes every parameter of this name or below it (`layer0.W` freezes `layer0.W.i.0`); how many.
    pub fn freeze(&mut self, name: &str) -> usize {
        let hit = |n: &&String| is_at_or_below(n, name);
        let names: Vec<String> = self.vars.iter().map(|(n, _)| n).filter(hit).cloned().collect();
        let count = names.len();
        self.frozen.extend(names);
        count
    }
}

/// Whether `name` is `at` or has it in front, up to a dot.
fn is_at_or_below(name: &str, at: &str) -> bool {
    name.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Where a cell or an operator declares its parameters: a tape, a store, and the scope names are put under.
#[derive(Debug)]
pub struct Declare<'a> {
    tape: &'a mut Tape,
    store: &'a mut ParamStore,
    scope: String,
}

impl<'a> Declare<'a> {
    /// Declares on `tape` and into `store`, without a scope.
    pub fn new(tape: &'a mut Tape, store: &'a mut ParamStore) -> Declare<'a> {
        Declare { tape, store, scope: String::new() }
    }

    /// The same inside scope `name`: a parameter `U` declared there is called `name.U`.
    pub fn scope(&mut self, name: &str) -> Declare<'_> {
        let scope = self.full_name(name);
        Declare { tape: self.tape, store: self.store, scope }
    }

    /// `name` with its scope in front.
    pub fn full_name(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_string() } else { format!("{}.{name}", self.scope) }
    }

    /// Element type of a real or complex parameter.
    pub fn dtype(&self, complex: bool) -> DType {
        let real = self.store.dtype;
        if complex { real.complex().unwrap_or(real) } else { real }
    }

    /// The tape, for values that are not parameters.
    pub fn tape(&mut self) -> &mut Tape {
        self.tape
    }

    /// The seed of dropout, in a recording for training whose model drops anything.
    pub(crate) fn dropout_seed(&self) -> Option<Var> {
        self.store.dropout_seed
    }

    /// Seed and probability with which symbols of the input are kept.
    pub(crate) fn symbol_dropout(&self) -> Option<(Var, f64)> {
        self.store.symbol_dropout
    }

    /// From here on input maps of symbols drop them.
    pub(crate) fn set_symbol_dropout(&mut self, dropout: Option<(Var, f64)>) {
        self.store.symbol_dropout = dropout;
    }

    /// A real parameter.
    pub fn real(&mut self, name: &str, dims: &[usize], init: Init) -> Result<Var> {
        let dtype = self.dtype(false);
        self.real_with(name, dims, |rng| init.tensor(dims, dtype, rng))
    }

    /// A real parameter that begins as `f` says, unless the model says otherwise
    /// ([`ModelSpec::initial`](crate::ModelSpec::initial)).
    pub fn real_with(
        &mut self,
        name: &str,
        dims: &[usize],
        f: impl FnOnce(&mut ChaCha8Rng) -> Result<Tensor>,
    ) -> Result<Var> {
        let dtype = self.dtype(false);
        match self.store.initial(&self.full_name(name)) {
            Some(init) => self.with(name, dims, dtype, |rng| init.tensor(dims, dtype, rng)),
            None => self.with(name, dims, dtype, f),
        }
    }

    /// A complex parameter.
    pub fn complex(&mut self, name: &str, dims: &[usize], init: Init) -> Result<Var> {
        let dtype = self.dtype(true);
        let init = self.store.initial(&self.full_name(name)).unwrap_or(init);
        self.with(name, dims, dtype, |rng| init.tensor(dims, dtype, rng))
    }

    /// From here on the rows of [`Declare::blocks`] are directions with lengths beside them.
    pub(crate) fn normalize_weights(&mut self) {
        self.store.weight_norm = true;
    }

    /// A matrix `[rows, blocks·columns]` of blocks side by side, each initialized as a matrix of its own: the
    /// weights of several gates in one product.
    ///
    /// In a model with [`weight_norm`](crate::ModelSpec::weight_norm) the parameter `NAME` holds the directions `v` and
    /// `NAME.scale` `[rows·blocks, 1]` the lengths `s` of the rows of each block, `w_row = s v_row / ‖v_row‖`; the first
    /// value is the same.
    pub fn blocks(
        &mut self,
        name: &str,
        dims: [usize; 2],
        blocks: usize,
        complex: bool,
        init: Init,
    ) -> Result<Var> {
        let v = self.joined(name, dims, blocks, complex, init)?;
        if !self.store.weight_norm {
            return Ok(v);
        }
        let ([rows, columns], dtype) = (dims, self.dtype(false));
        let first = self.store.params.require(&self.full_name(name))?;
        let square =
            |i: usize| (i * columns..(i + 1) * columns).map(|k| first.get(k).norm_sqr()).sum::<f64>();
        let lengths: Vec<f64> = (0..rows * blocks).map(|i| square(i).sqrt()).collect();
        let scale = self.with(&format!("{name}.scale"), &[rows * blocks, 1], dtype, |_| {
            let mut scale = Tensor::zeros(dtype, [rows * blocks, 1])?;
            scale.fill_with(|i| lengths[i].into());
            Ok(scale)
        })?;
        self.directions(v, dims, blocks, Some(scale))
    }

    /// [`Declare::blocks`] for the factor of a product that is applied first. In a model with weight normalization its
    /// rows have length 1: those of the other factor have lengths to learn.
    pub(crate) fn first_blocks(
        &mut self,
        name: &str,
        dims: [usize; 2],
        blocks: usize,
        complex: bool,
        init: Init,
    ) -> Result<Var> {
        let v = self.joined(name, dims, blocks, complex, init)?;
        if self.store.weight_norm { self.directions(v, dims, blocks, None) } else { Ok(v) }
    }

    /// Rows of every block divided by their lengths, and multiplied by those of `scale`.
    fn directions(
        &mut self,
        v: Var,
        [rows, columns]: [usize; 2],
        blocks: usize,
        scale: Option<Var>,
    ) -> Result<Var> {
        let [r, b, c] = [rows, blocks, columns].map(|n| n as isize);
        let v = ops::reshape(self.tape, v, &[r, b, c])?;
        let mut w = ops::normalize(self.tape, v, 2.0, -1, SMALLEST_LENGTH)?;
        if let Some(scale) = scale {
            let scale = ops::reshape(self.tape, scale, &[r, b, 1])?;
            w = ops::mul(self.tape, scale, w)?;
        }
        Ok(ops::reshape(self.tape, w, &[r, b * c])?)
    }

    fn joined(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        blocks: usize,
        complex: bool,
        init: Init,
    ) -> Result<Var> {
        let dtype = self.dtype(complex);
        let dims = [rows, blocks * columns];
        let init = self.store.initial(&self.full_name(name)).unwrap_or(init);
        self.with(name, &dims, dtype, |rng| {
            let parts: Result<Vec<Tensor>> =
                (0..blocks).map(|_| init.tensor(&[rows, columns], dtype, rng)).collect();
            let parts = parts?;
            let mut joined = Tensor::zeros(dtype, dims)?;
            joined.fill_with(|i| {
                let (row, column) = (i / dims[1], i % dims[1]);
                parts[column / columns].get(row * columns + column % columns)
            });
            Ok(joined)
        })
    }

    /// A parameter whose first value `f` makes from its own generator: the numbers depend on seed and full name
    /// alone, so that adding a parameter does not change the others. For first values that must be what they are: those of
    /// unitary matrices, indices, lengths.
    ///
    /// Errors: a name declared before; a size of 0; what `f` returns; a tensor of another type or size.
    pub fn with(
        &mut self,
        name: &str,
        dims: &[usize],
        dtype: DType,
        f: impl FnOnce(&mut ChaCha8Rng) -> Result<Tensor>,
    ) -> Result<Var> {
        let name = self.full_name(name);
        if self.store.params.get(&name).is_some() {
            return Err(Error::model(format!("parameter `{name}` declared twice")));
        }
        if dims.contains(&0) {
            return Err(Error::model(format!("parameter `{name}` has an empty axis, {dims:?}")));
        }
        let tensor = f(&mut rng_for(self.store.seed, &name))?;
        if tensor.dims() != dims || tensor.dtype() != dtype {
            let got = format!("{} {:?}", tensor.dtype(), tensor.dims());
            return Err(Error::model(format!(
                "parameter `{name}` is {dtype} {dims:?}, its first value {got}"
            )));
        }
        let var = self.tape.param(&name, dtype, dims)?;
        self.store.vars.push((name.clone(), var));
        self.store.params.insert(name, tensor);
        Ok(var)
    }

    /// See [`ModelSpec::initial`](crate::ModelSpec::initial).
    pub(crate) fn set_initial(&mut self, initial: &[(String, Init)]) {
        self.store.set_initial(initial);
    }

    /// Whether there is a parameter of this full name or below it.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.store.declares(name)
    }

    /// Freezes every parameter of this name or below it; see [`ParamStore::freeze`].
    pub fn freeze(&mut self, name: &str) -> usize {
        let name = self.full_name(name);
        self.store.freeze(&name)
    }

    /// Marks a parameter as a Kronecker factor; see [`ParamStore::trained_factors`].
    pub fn mark_factor(&mut self, name: &str) {
        let name = self.full_name(name);
        self.store.factors.push(name);
    }

    /// Marks a matrix as one that must stay unitary; see [`ParamStore::trained_unitary`].
    pub fn mark_unitary(&mut self, name: &str) {
        let name = self.full_name(name);
        self.store.unitary.push(name);
    }
}
