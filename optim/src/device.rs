//! Updates on a device: parameters and the state of their optimiser stay there, and all of them move in one launch.

use std::sync::Arc;

use retrograd_engine::device::{
    Argument, Array, Building, Code, Device, Kernel, Launch, Left, Op, Region, Resident, Sequence, Type,
    Value,
};
use retrograd_engine::{DType, Params, Tensor};

use crate::elementwise::{Component, Elementwise, MOST_SLOTS, SHARED, slot_name};
use crate::error::{Error, Result};
use crate::gradients::{Clip, GradientRules, NormForm, Processed, Verdict};
use crate::optimizer::Optimizer;
use crate::state::{Slot, State};

/// Components that a block moves.
const CHUNK: usize = 1024;
/// Lanes of a sum of squares; their number decides its order, so it does not depend on the device.
const LANES: usize = 256;
/// Where the factor of clipping, whether to go on, and the norm lie behind the numbers of the rule.
const FACTOR: usize = SHARED;
const GO: usize = SHARED + 1;
const NORM: usize = SHARED + 2;

/// Parameters on a device with what their optimiser remembers, and the launches of an update: the norm of all gradients in
/// two, in `f64`, blocks of 1024 components first and then those together; then all parameters of a precision in one,
/// clipped by that norm. Nothing is copied but the few numbers of the rule there and the norm back.
///
/// An update has the bits that [`Optimizer::update`] gives for the same gradients, since the rule is the same code
/// ([`Rule`](crate::elementwise::Rule)); only the norm is summed in another order, so clipping by it agrees within
/// rounding. Gradients that are not finite move nothing.
#[derive(Debug)]
pub struct DeviceUpdate {
    device: Arc<dyn Device>,
    values: Resident,
    trained: Vec<String>,
    slots: Vec<Slot>,
    clips: bool,
    kernels: u64,
    /// All that an update launches.
    launches: Sequence,
    /// The precisions there are.
    classes: Vec<Class>,
    table: Region,
    /// Where blocks leave their sums of squares: the launches know it.
    _partial: Region,
    numbers: Region,
    /// The gradients that the table is written for.
    grads: Vec<Array>,
    /// Gradients that are one number everywhere.
    fixed: Option<Resident>,
}

/// A precision: its kernels by number, and its rows of the table, first one and number.
#[derive(Debug)]
struct Class {
    ty: Type,
    squares: usize,
    update: usize,
    rows: (usize, usize),
}

impl Drop for DeviceUpdate {
    fn drop(&mut self) {
        self.device.unload(self.kernels);
    }
}

fn type_of(dtype: DType) -> Type {
    if dtype.real() == DType::F64 { Type::F64 } else { Type::F32 }
}

/// Adds the lanes in shared memory, halving their number until one is left.
fn put_together(code: &mut Code, thread: Value, threads: Value) {
    let mut half = LANES / 2;
    while half > 0 {
        code.barrier();
        code.each_by(thread, half, threads, |code, lane| {
            let other = code.add(lane, half);
            let (a, b) = (code.load_shared(Type::F64, 0, lane), code.load_shared(Type::F64, 0, other));
            let sum = code.add(a, b);
            code.store_shared(0, lane, sum);
        });
        half /= 2;
    }
    code.barrier();
}

/// Threads of the block, and the number of one.
fn place(code: &mut Code) -> (Value, Value, Value) {
    let [thread, threads, block] = [Op::Thread, Op::Threads, Op::Block].map(|op| code.op(op, Type::Int, &[]));
    (thread, threads, block)
}

/// Words of a row of the table: how many components, and the addresses of gradient, parameter and slots.
fn words(slots: usize) -> usize {
    3 + slots
}

/// Row `block` of the table, the first argument.
fn row(code: &mut Code, block: Value, slots: usize) -> (Value, Vec<Value>) {
    let table = code.op(Op::Argument(0), Type::Address, &[]);
    let row = code.offset(table, block, 8 * words(slots));
    let count = code.load(Type::Int, row, 0);
    let arrays = (1..words(slots)).map(|k| code.load(Type::Address, row, k)).collect();
    (count, arrays)
}

/// The sum of the squares of a row's gradient.
fn squares(ty: Type, slots: usize) -> Kernel {
    let mut code = Code::new();
    let (thread, threads, block) = place(&mut code);
    let partial = code.op(Op::Argument(1), Type::Address, &[]);
    let (count, arrays) = row(&mut code, block, slots);
    code.each_by(thread, LANES, threads, |code, lane| {
        let sum = code.variable(Code::real(Type::F64, 0.0));
        code.each_by(lane, count, LANES, |code, i| {
            let g = code.load(ty, arrays[0], i);
            let g = code.convert(g, Type::F64);
            code.op_into(sum, Op::Fma, &[g, g, sum]);
        });
        code.store_shared(0, lane, sum);
    });
    put_together(&mut code, thread, threads);
    let first = code.eq(thread, 0);
    code.when(first, |code| {
        let sum = code.load_shared(Type::F64, 0, 0);
        code.store(partial, block, sum);
    });
    code.finish("squares", vec![Type::Address, Type::Address], LANES * 8)
}

/// The norm of all gradients, and by what they are multiplied.
fn norm(clip: Option<(f64, NormForm)>) -> Kernel {
    let mut code = Code::new();
    let (thread, threads, _) = place(&mut code);
    let [partial, numbers] = [0, 2].map(|i| code.op(Op::Argument(i), Type::Address, &[]));
    let count = code.op(Op::Argument(1), Type::Int, &[]);
    code.each_by(thread, LANES, threads, |code, lane| {
        let sum = code.variable(Code::real(Type::F64, 0.0));
        code.each_by(lane, count, LANES, |code, i| {
            let more = code.load(Type::F64, partial, i);
            code.op_into(sum, Op::Add, &[sum, more]);
        });
        code.store_shared(0, lane, sum);
    });
    put_together(&mut code, thread, threads);
    let first = code.eq(thread, 0);
    code.when(first, |code| {
        let real = |x| Code::real(Type::F64, x);
        let sum = code.load_shared(Type::F64, 0, 0);
        let norm = code.op(Op::Sqrt, Type::F64, &[sum]);
        // Infinity and NaN are no number less themselves.
        let nothing = code.sub(norm, norm);
        let finite = code.eq(nothing, real(0.0));
        let go = code.select(finite, real(1.0), real(0.0));
        let factor = match clip {
            None => real(1.0),
            Some((limit, NormForm::Divide)) => {
                let more = code.lt(real(limit), norm);
                let under = code.select(more, norm, real(limit));
                code.div(real(limit), under)
            }
            Some((limit, NormForm::PyTorch)) => {
                let under = code.add(norm, real(1e-6));
                let factor = code.div(real(limit), under);
                let less = code.lt(factor, real(1.0));
                code.select(less, factor, real(1.0))
            }
        };
        for (at, value) in [(FACTOR, factor), (GO, go), (NORM, norm)] {
            code.store(numbers, at, value);
        }
    });
    code.finish("norm", vec![Type::Address, Type::Int, Type::Address], LANES * 8)
}

/// The update of a row.
fn update(rule: &dyn Elementwise, ty: Type, slots: usize) -> Kernel {
    let mut code = Code::new();
    let (thread, threads, block) = place(&mut code);
    let numbers = code.op(Op::Argument(1), Type::Address, &[]);
    let (count, arrays) = row(&mut code, block, slots);
    let go = code.load(Type::F64, numbers, GO);
    let go = code.eq(go, Code::real(Type::F64, 1.0));
    code.when(go, |code| {
        let mut number = |at: usize| {
            let x = code.load(Type::F64, numbers, at);
            code.convert(x, ty)
        };
        let n: [Value; SHARED] = std::array::from_fn(&mut number);
        let factor = number(FACTOR);
        code.each_by(thread, count, threads, |code, i| {
            let all: Vec<Value> = arrays.iter().map(|array| code.load(ty, *array, i)).collect();
            let g = code.mul(all[0], factor);
            let mut slots = all[2..].to_vec();
            let p = rule.write(code, ty, &n, Component { p: all[1], g, slots: &mut slots });
            for (array, value) in arrays[1..].iter().zip([p].into_iter().chain(slots)) {
                code.store(*array, i, value);
            }
        });
    });
    code.finish("update", vec![Type::Address, Type::Address], 0)
}

/// The launches of an update: sums of squares, the norm, and what moves the parameters.
fn launches(
    classes: &[Class],
    norm: usize,
    slots: usize,
    [table, partial, numbers]: [&Region; 3],
) -> Vec<Launch> {
    let at = |region: &Region, offset: usize| Argument::Address(region.address() + offset as u64);
    let of = |class: &Class, index: usize, second: Argument| {
        let args = vec![at(table, class.rows.0 * 8 * words(slots)), second];
        Launch { index, blocks: class.rows.1 as u32, args }
    };
    let rows: usize = classes.iter().map(|c| c.rows.1).sum();
    let all = vec![at(partial, 0), Argument::Int(rows as i32), at(numbers, 0)];
    (classes.iter().map(|c| of(c, c.squares, at(partial, 8 * c.rows.0))))
        .chain([Launch { index: norm, blocks: 1, args: all }])
        .chain(classes.iter().map(|c| of(c, c.update, at(numbers, 0))))
        .collect()
}

impl DeviceUpdate {
    /// Copies parameters (`trained` and others) and the state of those that are trained to a device. `None`: the
    /// optimiser does not treat every component alike, or the gradients are clipped otherwise than by their norm; then
    /// updates are the processor's.
    ///
    /// Errors: a parameter or a state that is missing; a device without room; the device's own.
    pub fn new(
        device: &Arc<dyn Device>,
        optimizer: &dyn Optimizer,
        rules: &GradientRules,
        (params, trained): (&Params, &[String]),
        state: &State,
    ) -> Result<Option<DeviceUpdate>> {
        let clip = match &rules.clip {
            Clip::None => None,
            Clip::Norm { limit, form } => Some((*limit, *form)),
            Clip::Value { .. } => return Ok(None),
        };
        let Some(rule) = optimizer.elementwise(1, 1.0)? else { return Ok(None) };
        let slots = optimizer.slots();
        if slots.len() > MOST_SLOTS {
            return Ok(None);
        }
        let (mut kernels, mut classes) = (Vec::new(), Vec::new());
        let mut rows = 0;
        for ty in [Type::F32, Type::F64] {
            let mut mine = 0;
            for name in trained {
                let param = params.require(name)?;
                if type_of(param.dtype()) == ty {
                    mine += param.dtype().planes() * param.len().div_ceil(CHUNK);
                }
            }
            if mine > 0 {
                let (squared, updated) = (kernels.len(), kernels.len() + 1);
                kernels.extend([squares(ty, slots.len()), update(&*rule, ty, slots.len())]);
                classes.push(Class { ty, squares: squared, update: updated, rows: (rows, mine) });
                rows += mine;
            }
        }
        kernels.push(norm(clip));
        let everything = params.iter().chain(state.tensors().iter());
        let mut values = Resident::new(device, everything.map(|(name, t)| (name, t.dtype(), t.dims())))?;
        for (name, tensor) in params.iter().chain(state.tensors().iter()) {
            values.set(name, tensor)?;
        }
        let table = Region::new(device, rows * words(slots.len()) * 8)?;
        let partial = Region::new(device, rows.max(1) * 8)?;
        let numbers = Region::new(device, (NORM + 1) * 8)?;
        let norm = kernels.len() - 1;
        let kernels = device.load(&kernels)?;
        let launches = launches(&classes, norm, slots.len(), [&table, &partial, &numbers]);
        let launches = Sequence::new(device, kernels, launches).inspect_err(|_| device.unload(kernels))?;
        Ok(Some(DeviceUpdate {
            device: device.clone(),
            values,
            trained: trained.to_vec(),
            slots,
            clips: clip.is_some(),
            kernels,
            launches,
            classes,
            table,
            _partial: partial,
            numbers,
            grads: Vec::new(),
            fixed: None,
        }))
    }

    /// The values, for programs to read.
    pub fn values(&self) -> &Resident {
        &self.values
    }

    /// Copies parameters and state from the device.
    pub fn fetch(&self, params: &mut Params, state: &mut State) -> Result<()> {
        for (name, tensor) in params.iter_mut().chain(state.tensors_mut().iter_mut()) {
            *tensor = self.values.get(name)?;
        }
        Ok(())
    }

    /// Copies parameters and state to the device, those that have changed.
    pub fn put(&mut self, params: &Params, state: &State) -> Result<()> {
        for (name, tensor) in params.iter().chain(state.tensors().iter()) {
            self.values.set(name, tensor)?;
        }
        Ok(())
    }

    /// The gradients of [`DeviceUpdate::update`], copied from the device.
    pub fn gradients(&self, grads: &[Left]) -> Result<Params> {
        let mut all = Params::new();
        for (name, grad) in self.trained.iter().zip(grads) {
            let (dtype, dims) = self.ty(name)?;
            let mut tensor = Tensor::zeros(dtype, dims)?;
            match grad {
                Left::Number(re, _) => tensor = Tensor::full(dtype, dims, *re)?,
                Left::At(array) => array.read(&self.device, &mut tensor)?,
            }
            all.insert(name.clone(), tensor);
        }
        Ok(all)
    }

    fn ty(&self, name: &str) -> Result<(DType, &[usize])> {
        let missing = || Error::Missing { what: format!("parameter `{name}` on the device") };
        self.values.ty(name).ok_or_else(missing)
    }

    /// One update from the gradients of the trained parameters, in their order, with the learning rate times `lr_scale`.
    /// A norm that is not finite says that nothing was done; the rules of the recipe decide what follows.
    ///
    /// Errors: gradients of another number, type or size; the optimiser's; the device's.
    pub fn update(
        &mut self,
        optimizer: &dyn Optimizer,
        state: &mut State,
        grads: &[Left],
        lr_scale: f64,
    ) -> Result<Processed> {
        let rule = optimizer.elementwise(state.step() + 1, lr_scale)?;
        let rule = rule.ok_or_else(|| Error::Missing { what: "a rule for components".into() })?;
        let arrays = self.arrays(grads)?;
        if arrays != self.grads {
            self.write_table(&arrays)?;
            self.grads = arrays;
        }
        let bytes: Vec<u8> = rule.numbers().iter().flat_map(|x| x.to_le_bytes()).collect();
        self.numbers.write(0, &bytes)?;
        self.launches.start()?;
        let mut found = [0; 24];
        self.numbers.read(FACTOR * 8, &mut found)?;
        let [factor, go, norm] =
            [0, 8, 16].map(|at| f64::from_le_bytes(std::array::from_fn(|k| found[at + k])));
        if go != 1.0 {
            return Ok(Processed { norm: f64::NAN, verdict: Verdict::Skip });
        }
        for name in &self.trained {
            self.values.array_mut(name)?;
            for slot in &self.slots {
                self.values.array_mut(&slot_name(name, slot))?;
            }
        }
        state.count_step();
        let verdict = if self.clips && factor < 1.0 { Verdict::Clipped } else { Verdict::Kept };
        Ok(Processed { norm, verdict })
    }

    /// Where the gradients are.
    fn arrays(&mut self, grads: &[Left]) -> Result<Vec<Array>> {
        let mismatch = |what: String, expected: String, got: String| Error::Mismatch { what, expected, got };
        if grads.len() != self.trained.len() {
            let (expected, got) = (self.trained.len().to_string(), grads.len().to_string());
            return Err(mismatch("number of gradients".into(), expected, got));
        }
        let mut numbers = Params::new();
        for (name, grad) in self.trained.iter().zip(grads) {
            let (dtype, dims) = self.ty(name)?;
            match grad {
                Left::Number(re, _) => numbers.insert(name.clone(), Tensor::full(dtype, dims, *re)?),
                Left::At(array) => {
                    let len = dims.iter().product::<usize>();
                    if array.dtype != dtype || array.len != len {
                        let text = |dtype: DType, len: usize| format!("{dtype}, {len} elements");
                        let (expected, got) = (text(dtype, len), text(array.dtype, array.len));
                        return Err(mismatch(format!("gradient of `{name}`"), expected, got));
                    }
                }
            }
        }
        if self.fixed.as_ref().map_or(0, |f| f.names().len()) != numbers.len() {
            self.fixed = None;
        }
        if self.fixed.is_none() && !numbers.is_empty() {
            self.fixed = Some(Resident::of(&self.device, &numbers)?);
        }
        let of = |(name, grad): (&String, &Left)| match (grad, &self.fixed) {
            (Left::At(array), _) => Ok(*array),
            (Left::Number(..), Some(fixed)) => Ok(fixed.array(name)?),
            (Left::Number(..), None) => Err(Error::Missing { what: format!("gradient of `{name}`") }),
        };
        self.trained.iter().zip(grads).map(of).collect()
    }

    fn write_table(&mut self, grads: &[Array]) -> Result<()> {
        let mut bytes = Vec::with_capacity(self.table.len());
        for class in &self.classes {
            for (name, grad) in self.trained.iter().zip(grads) {
                if type_of(grad.dtype) != class.ty {
                    continue;
                }
                let mut arrays = vec![*grad, self.values.array_mut(name)?];
                for slot in &self.slots {
                    arrays.push(self.values.array_mut(&slot_name(name, slot))?);
                }
                for plane in 0..grad.dtype.planes() {
                    for start in (0..grad.len).step_by(CHUNK) {
                        let count = CHUNK.min(grad.len - start) as u64;
                        let skip = (start * class.ty.bytes()) as u64;
                        let addresses = arrays.iter().map(|array| array.planes[plane] + skip);
                        let row = [count].into_iter().chain(addresses);
                        bytes.extend(row.flat_map(u64::to_le_bytes));
                    }
                }
            }
        }
        Ok(self.table.write(0, &bytes)?)
    }
}
