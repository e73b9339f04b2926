//! Tensors: what goes into a program and comes out of it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use num_complex::{Complex32, Complex64};

use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::shape::Dims;
use crate::storage::Storage;

/// A dense array in host memory, rightmost axis fastest, complex numbers interleaved.
///
/// Cloning shares the storage; writing to a shared tensor copies it first.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    dims: Dims,
    storage: Arc<Storage>,
}

fn count(dims: &[usize], dtype: DType) -> Result<usize> {
    dims.iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|n| n.checked_mul(dtype.size()).is_some_and(|bytes| bytes <= isize::MAX as usize))
        .ok_or_else(|| Error::Overflow { what: "tensor".into(), sizes: format!("{dims:?}") })
}

impl Tensor {
    /// Zeros. Errors: sizes that overflow.
    pub fn zeros(dtype: DType, dims: impl AsRef<[usize]>) -> Result<Tensor> {
        let dims = Dims::from_slice(dims.as_ref());
        let len = count(&dims, dtype)?;
        Ok(Tensor { dtype, storage: Arc::new(Storage::zeroed("tensor", len * dtype.size())?), dims })
    }

    /// The elements of `data` in the shape `dims`. Errors: a length that is not the product of `dims`.
    pub fn from_slice<E: Element>(dims: impl AsRef<[usize]>, data: &[E]) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(E::DTYPE, dims)?;
        if tensor.len() != data.len() {
            let got = format!("{} elements", data.len());
            return Err(Error::shape("tensor", "data", format!("{:?}", &tensor.dims[..]), got));
        }
        tensor.as_mut_slice::<E>()?.copy_from_slice(data);
        Ok(tensor)
    }

    /// The elements that a file has from byte `offset`, in the byte order of this machine, without reading them: they
    /// come into memory when they are used and go again when room is short. A program reads an input step by step, so
    /// it may be larger than memory. Writing to the tensor makes a copy in memory.
    ///
    /// Errors: a file that cannot be mapped or is too short; an offset that is no multiple of the size of an element;
    /// sizes that overflow.
    ///
    /// # Safety
    ///
    /// As long as the tensor or a clone lives, nobody changes the file, in this process or another.
    pub unsafe fn map_file(
        path: impl AsRef<Path>,
        offset: u64,
        dtype: DType,
        dims: impl AsRef<[usize]>,
    ) -> Result<Tensor> {
        let path = path.as_ref();
        let wrong = |what: String| Error::argument("map_file", format!("{}: {what}", path.display()));
        let dims = Dims::from_slice(dims.as_ref());
        let len = count(&dims, dtype)? * dtype.size();
        if !offset.is_multiple_of(dtype.size() as u64) {
            return Err(wrong(format!("offset {offset}, expected a multiple of {}", dtype.size())));
        }
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let bytes = file.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > bytes) {
            return Err(wrong(format!("{len} bytes from byte {offset} on, and the file has {bytes}")));
        }
        if len == 0 {
            return Tensor::zeros(dtype, dims);
        }
        // SAFETY: nobody changes the file, by the caller's word.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| wrong(e.to_string()))?;
        let storage = Storage::mapped(map, offset as usize, len);
        Ok(Tensor { dtype, dims, storage: Arc::new(storage) })
    }

    /// Every element `value`, converted to `dtype`.
    pub fn full(dtype: DType, dims: impl AsRef<[usize]>, value: f64) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(dtype, dims)?;
        tensor.fill_with(|_| Complex64::new(value, 0.0));
        Ok(tensor)
    }

    /// A tensor without axes holding one real number.
    pub fn scalar<E: Element>(value: E) -> Tensor {
        let mut storage = Storage::line(E::DTYPE.size());
        storage.as_mut_slice::<E>()[0] = value;
        Tensor { dtype: E::DTYPE, dims: Dims::new(), storage: Arc::new(storage) }
    }

    /// Sets element `i` (in memory order) to `f(i)` converted to the element type.
    pub fn fill_with(&mut self, mut f: impl FnMut(usize) -> Complex64) {
        let dtype = self.dtype;
        let storage = Arc::make_mut(&mut self.storage);
        macro_rules! fill {
            ($t:ty, $convert:expr) => {
                for (i, x) in storage.as_mut_slice::<$t>().iter_mut().enumerate() {
                    *x = $convert(f(i));
                }
            };
        }
        match dtype {
            DType::F32 => fill!(f32, |z: Complex64| z.re as f32),
            DType::F64 => fill!(f64, |z: Complex64| z.re),
            DType::C32 => fill!(Complex32, |z: Complex64| Complex32::new(z.re as f32, z.im as f32)),
            DType::C64 => fill!(Complex64, |z: Complex64| z),
            DType::F16 => fill!(f16, |z: Complex64| f16::from_f64(z.re)),
            DType::BF16 => fill!(bf16, |z: Complex64| bf16::from_f64(z.re)),
            DType::I32 => fill!(i32, |z: Complex64| z.re as i32),
        }
    }

    /// Element `i` in memory order as a complex `f64` (imaginary part 0 for real types). Panics past the end.
    pub fn get(&self, i: usize) -> Complex64 {
        match self.dtype {
            DType::F32 => Complex64::new(self.storage.as_slice::<f32>()[i] as f64, 0.0),
            DType::F64 => Complex64::new(self.storage.as_slice::<f64>()[i], 0.0),
            DType::C32 => {
                let z = self.storage.as_slice::<Complex32>()[i];
                Complex64::new(z.re as f64, z.im as f64)
            }
            DType::C64 => self.storage.as_slice::<Complex64>()[i],
            DType::F16 => Complex64::new(self.storage.as_slice::<f16>()[i].to_f64(), 0.0),
            DType::BF16 => Complex64::new(self.storage.as_slice::<bf16>()[i].to_f64(), 0.0),
            DType::I32 => Complex64::new(self.storage.as_slice::<i32>()[i] as f64, 0.0),
        }
    }

    /// The same numbers in another type; complex to real drops the imaginary part, real to index truncates.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let mut out = Tensor::zeros(dtype, &self.dims)?;
        out.fill_with(|i| self.get(i));
        Ok(out)
    }

    /// The same elements under other sizes. Errors: another number of elements.
    pub fn reshape(&self, dims: impl AsRef<[usize]>) -> Result<Tensor> {
        let dims = Dims::from_slice(dims.as_ref());
        if count(&dims, self.dtype)? != self.len() {
            let (to, from) = (format!("{:?}", &dims[..]), format!("{:?}", &self.dims[..]));
            return Err(Error::shape("reshape", "number of elements", from, to));
        }
        Ok(Tensor { dtype: self.dtype, dims, storage: self.storage.clone() })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// What holds the elements: another one once they have changed.
    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    fn check<E: Element>(&self) -> Result<()> {
        if E::DTYPE == self.dtype {
            return Ok(());
        }
        Err(Error::dtype("tensor", "elements", E::DTYPE, self.dtype))
    }

    /// The elements. Errors: another element type.
    pub fn as_slice<E: Element>(&self) -> Result<&[E]> {
        self.check::<E>()?;
        Ok(self.storage.as_slice())
    }

    /// The elements, mutable; copies first if the storage is shared. Errors: another element type.
    pub fn as_mut_slice<E: Element>(&mut self) -> Result<&mut [E]> {
        self.check::<E>()?;
        Ok(Arc::make_mut(&mut self.storage).as_mut_slice())
    }

    /// The real components of a floating type: complex numbers as pairs. Errors: index or half types.
    pub fn components<R: Element>(&self) -> Result<&[R]> {
        if self.dtype.real() != R::DTYPE {
            return Err(Error::dtype("tensor", "components", R::DTYPE, self.dtype));
        }
        Ok(self.storage.as_slice())
    }

    /// The real components, mutable; see [`Tensor::components`].
    pub fn components_mut<R: Element>(&mut self) -> Result<&mut [R]> {
        if self.dtype.real() != R::DTYPE {
            return Err(Error::dtype("tensor", "components", R::DTYPE, self.dtype));
        }
        Ok(Arc::make_mut(&mut self.storage).as_mut_slice())
    }

    /// The raw bytes, little-endian on the machines supported.
    pub fn as_bytes(&self) -> &[u8] {
        self.storage.as_slice()
    }

    /// The raw bytes, mutable; copies first if the storage is shared.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.storage).as_mut_slice()
    }

    /// The only element, as `f64` (real part). Errors: not exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.len() != 1 {
            return Err(Error::shape("item", "tensor", "one element", format!("{:?}", &self.dims[..])));
        }
        Ok(self.get(0).re)
    }

    /// Whether every component is finite (indices always are).
    pub fn is_finite(&self) -> bool {
        (0..self.len()).all(|i| {
            let z = self.get(i);
            z.re.is_finite() && z.im.is_finite()
        })
    }

    /// Whether both hold the same bits, type and sizes.
    pub fn bit_eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype && self.dims == other.dims && self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype
            && self.dims == other.dims
            && (0..self.len()).all(|i| self.get(i) == other.get(i))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {} {:?} [", self.dtype, &self.dims[..])?;
        for i in 0..self.len().min(8) {
            let z = self.get(i);
            let sep = if i == 0 { "" } else { ", " };
            if self.dtype.is_complex() { write!(f, "{sep}{z}")? } else { write!(f, "{sep}{}", z.re)? }
        }
        f.write_str(if self.len() > 8 { ", ..]" } else { "]" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cast_keeps_values_and_write_copies() -> Result<()> {
        let a = Tensor::from_slice([2, 2], &[1.0f32, -2.0, 0.5, 3.0])?;
        let mut b = a.clone();
        b.as_mut_slice::<f32>()?[0] = 9.0;
        assert_eq!(a.as_slice::<f32>()?[0], 1.0);
        for d in [DType::F64, DType::C32, DType::C64, DType::F16, DType::BF16] {
            assert_eq!(a.cast(d)?.cast(DType::F32)?, a, "{d}");
        }
        Ok(())
    }

    #[test]
    fn bad_sizes_are_errors() {
        assert!(matches!(Tensor::from_slice([3], &[1.0f32]), Err(Error::Shape { .. })));
        assert!(matches!(Tensor::zeros(DType::F32, [usize::MAX, 2]), Err(Error::Overflow { .. })));
        assert!(matches!(Tensor::scalar(1.0f32).as_slice::<f64>(), Err(Error::DType { .. })));
    }
}
