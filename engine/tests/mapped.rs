//! Sequences that stay in a file: a program reads them where they are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use retrograd_engine::core_ops::{add, fill, sum_dims, sum_rows};
use retrograd_engine::{
    DType, Error, Params, Program, Result, RunOptions, Shape, Tape, Tensor, Ty, grad, matmul, scan,
};

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn file(name: &str, bytes: &[u8]) -> Scratch {
    let path = std::env::temp_dir().join(format!("retrograd-{}-{name}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    Scratch(path)
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.618_034).fract() - 0.5).collect()
}

#[test]
fn a_mapped_sequence_gives_the_same_bits() -> Result<()> {
    let (steps, rows, header) = (20_000, 2, 16);
    let data = numbers(steps * rows * 3);
    let mut bytes = vec![7u8; header];
    bytes.extend_from_slice(bytemuck::cast_slice(&data));
    let scratch = file("sequence", &bytes);
    // SAFETY: this test alone knows the file.
    let mapped = unsafe { Tensor::map_file(&scratch.0, header as u64, DType::F32, [steps, rows, 3])? };

    let mut tape = Tape::new();
    let t = &mut tape;
    let (w, u) = (t.param("w", DType::F32, [4, 4])?, t.param("u", DType::F32, [3, 4])?);
    let x = t.input("x", DType::F32, Shape::sequence([3]))?;
    let zero = fill(t, Ty::new(DType::F32, Shape::rows([4])), 0.0)?;
    let (h, ()) = scan(t, zero, x, |t, h, x| {
        let (wh, ux) = (matmul(t, h, w)?, matmul(t, x, u)?);
        Ok((add(t, wh, ux)?, ()))
    })?;
    let sum = sum_rows(t, h)?;
    let loss = sum_dims(t, sum, &[])?;
    let bars = grad(t, loss, &[w, u])?;
    let options = RunOptions { budget: Some(256 << 10), threads: Some(2), ..RunOptions::default() };
    let mut program = Program::new(&tape, &[loss, bars[0], bars[1]], options)?;
    let mut p = Params::new();
    p.insert("w", Tensor::full(DType::F32, [4, 4], 0.2)?);
    p.insert("u", Tensor::full(DType::F32, [3, 4], 0.3)?);
    p.insert("x", Tensor::from_slice([steps, rows, 3], &data)?);
    let expected = program.run(&[&p])?;
    p.insert("x", mapped);
    let got = program.run(&[&p])?;
    assert!(program.last_peak_bytes() <= 256 << 10);
    assert!(got.iter().zip(&expected).all(|(a, b)| a.bit_eq(b)));
    assert!(expected[1].get(0).re != 0.0);
    Ok(())
}

#[test]
fn writing_copies_and_leaves_the_file() -> Result<()> {
    let data = numbers(8);
    let scratch = file("written", bytemuck::cast_slice(&data));
    // SAFETY: as above.
    let mut mapped = unsafe { Tensor::map_file(&scratch.0, 0, DType::F32, [8])? };
    let kept = mapped.clone();
    mapped.as_mut_slice::<f32>()?[3] = 9.0;
    assert_eq!((mapped.get(3).re, mapped.get(4).re as f32), (9.0, data[4]));
    assert_eq!(kept.as_slice::<f32>()?, data);
    assert_eq!(fs::read(&scratch.0).unwrap(), bytemuck::cast_slice::<f32, u8>(&data));
    Ok(())
}

#[test]
fn files_that_do_not_fit_are_refused_by_name() {
    let scratch = file("short", &[0; 20]);
    let refused = |offset, dims: &[usize]| {
        // SAFETY: as above.
        match unsafe { Tensor::map_file(&scratch.0, offset, DType::F32, dims) } {
            Err(e) => e.to_string(),
            Ok(_) => panic!("mapped"),
        }
    };
    assert!(
        refused(0, &[6]).contains("24 bytes from byte 0 on, and the file has 20"),
        "{}",
        refused(0, &[6])
    );
    assert!(refused(2, &[1]).contains("offset 2, expected a multiple of 4"));
    assert!(refused(u64::MAX - 3, &[1]).contains("and the file has 20"));
    // SAFETY: as above.
    let missing = unsafe { Tensor::map_file("/no such file", 0, DType::F32, [1]) };
    assert!(matches!(missing, Err(Error::Argument { .. })), "{missing:?}");
}
