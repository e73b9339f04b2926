//! Values that stay on a device from run to run.

use std::sync::{Arc, Weak};

use indexmap::IndexMap;

use super::Device;
use super::region::Region;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::plan::memory::aligned;
use crate::shape::Dims;
use crate::storage::Storage;
use crate::tensor::Tensor;

/// Named values in the memory of a device: parameters, and what an optimizer remembers of them.
///
/// A program that is given them ([`Program::run_with`](crate::Program::run_with)) reads them where they are; nothing is
/// copied. Complex numbers lie there as two planes.
#[derive(Debug)]
pub struct Resident {
    memory: Region,
    places: IndexMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    dtype: DType,
    dims: Dims,
    /// Bytes from the start.
    offset: usize,
    /// What was written last, as long as nobody changes it.
    from: Weak<Storage>,
}

impl Place {
    fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// An array on a device: the addresses of its planes of so many real numbers each, one plane unless it is complex. What
/// it holds is its owner's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Elements.
    pub len: usize,
    /// Address of each plane; the second one is 0 for real numbers.
    pub planes: [u64; 2],
}

impl Array {
    /// Copies it into a tensor of its type and number of elements. Errors: another type or number; the device's.
    pub fn read(&self, device: &Arc<dyn Device>, out: &mut Tensor) -> Result<()> {
        if (out.dtype(), out.len()) != (self.dtype, self.len) {
            let text = |dtype: DType, len: usize| format!("{dtype}, {len} elements");
            let (expected, got) = (text(self.dtype, self.len), text(out.dtype(), out.len()));
            return Err(Error::shape("read", "tensor", expected, got));
        }
        if self.len == 0 {
            return Ok(());
        }
        match self.dtype {
            DType::C32 => self.join::<f32>(device, out.components_mut()?),
            DType::C64 => self.join::<f64>(device, out.components_mut()?),
            _ => device.read(self.planes[0], out.as_bytes_mut()),
        }
    }

    /// Planes into interleaved components.
    fn join<R: Element + bytemuck::Pod>(&self, device: &Arc<dyn Device>, out: &mut [R]) -> Result<()> {
        let mut part = vec![R::zeroed(); self.len];
        for (plane, address) in self.planes.into_iter().enumerate() {
            device.read(address, bytemuck::cast_slice_mut(&mut part))?;
            out.iter_mut().skip(plane).step_by(2).zip(&part).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

/// Bytes that values of these types and numbers of elements take.
pub(crate) fn resident_bytes(values: impl Iterator<Item = (DType, usize)>) -> usize {
    values.map(|(dtype, len)| aligned(dtype.size() * len)).sum()
}

impl Resident {
    /// Room for values of these names, types and sizes; they hold anything until they are [set](Resident::set). Errors:
    /// the device has not as much memory.
    pub fn new<'a>(
        device: &Arc<dyn Device>,
        values: impl IntoIterator<Item = (&'a str, DType, &'a [usize])>,
    ) -> Result<Resident> {
        let (mut places, mut bytes) = (IndexMap::new(), 0);
        for (name, dtype, dims) in values {
            let place = Place { dtype, dims: Dims::from_slice(dims), offset: bytes, from: Weak::new() };
            bytes += resident_bytes(std::iter::once((dtype, place.len())));
            places.insert(name.to_owned(), place);
        }
        Ok(Resident { memory: Region::new(device, bytes)?, places })
    }

    /// The values of `params`. Errors: the device's.
    pub fn of(device: &Arc<dyn Device>, params: &Params) -> Result<Resident> {
        let mut all = Resident::new(device, params.iter().map(|(name, t)| (name, t.dtype(), t.dims())))?;
        params.iter().try_for_each(|(name, tensor)| all.set(name, tensor))?;
        Ok(all)
    }

    /// Copies a value there, unless it is the one that was copied last and nobody has changed either. Errors: no value of
    /// that name, another type or other sizes, the device's.
    pub fn set(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.copied(name, tensor).map(|_| ())
    }

    /// [`set`](Resident::set), which says how many bytes it copied.
    pub(crate) fn copied(&mut self, name: &str, tensor: &Tensor) -> Result<usize> {
        let place = self.place(name)?;
        let text = |dtype: DType, dims: &[usize]| format!("{dtype} {dims:?}");
        if place.dtype != tensor.dtype() || place.dims[..] != *tensor.dims() {
            let (expected, got) = (text(place.dtype, &place.dims), text(tensor.dtype(), tensor.dims()));
            return Err(Error::Binding {
                name: name.to_owned(),
                what: format!("on the device, expected {expected}, got {got}"),
            });
        }
        let storage = tensor.storage();
        if place.from.upgrade().is_some_and(|held| Arc::ptr_eq(&held, storage)) {
            return Ok(0);
        }
        let (offset, len) = (place.offset, place.len());
        self.memory.write_tensor(offset, len, tensor)?;
        if let Some(place) = self.places.get_mut(name) {
            place.from = Arc::downgrade(storage);
        }
        Ok(tensor.as_bytes().len())
    }

    /// A copy of a value. Errors: no value of that name, the device's.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let place = self.place(name)?;
        let mut tensor = Tensor::zeros(place.dtype, &place.dims)?;
        self.array(name)?.read(self.memory.device(), &mut tensor)?;
        Ok(tensor)
    }

    /// Where a value is, to be read.
    pub fn array(&self, name: &str) -> Result<Array> {
        let place = self.place(name)?;
        let first = self.memory.address() + place.offset as u64;
        let plane = (place.len() * place.dtype.size() / place.dtype.planes()) as u64;
        let second = if place.dtype.is_complex() { first + plane } else { 0 };
        Ok(Array { dtype: place.dtype, len: place.len(), planes: [first, second] })
    }

    /// Where a value is, to be changed there: what was [set](Resident::set) counts no more.
    pub fn array_mut(&mut self, name: &str) -> Result<Array> {
        if let Some(place) = self.places.get_mut(name) {
            place.from = Weak::new();
        }
        self.array(name)
    }

    /// Names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Type and sizes of a value.
    pub fn ty(&self, name: &str) -> Option<(DType, &[usize])> {
        self.places.get(name).map(|place| (place.dtype, &place.dims[..]))
    }

    /// Whether they are on this device.
    pub fn is_on(&self, device: &Arc<dyn Device>) -> bool {
        self.memory.is_on(device)
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    fn place(&self, name: &str) -> Result<&Place> {
        let missing =
            || Error::Binding { name: name.into(), what: "not among the values on the device".into() };
        self.places.get(name).ok_or_else(missing)
    }
}
