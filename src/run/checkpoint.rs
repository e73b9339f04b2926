//! Checkpoints: named tensors and metadata in one safetensors file.
//!
//! A file holds groups of [`Params`] (`model`, `optimizer`, ..). The tensor `w` of the group `model` is stored as
//! `model/w`, in the safetensors type of the same width, so other programs can read it. `C32` is the format's
//! `C64`; the format has no wider complex type, so `C64` is stored as `F64` with a last axis of 2. The header's
//! metadata has one entry, `retrograd`: JSON with the order of groups and tensors, their types, and the caller's
//! metadata. The same content always gives the same bytes.
//!
//! [`save_last`] keeps the newest checkpoint and the one before; [`load_last`] falls back on that one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use retrograd_engine::{DType, Params, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use super::atomic::{Staged, write_atomic};
use super::error::{Error, Result};
use super::folder::{LAST, PREVIOUS};

/// What a checkpoint says about itself besides tensors: step, epoch, state of generator and schedules, best
/// metric, each as text (numbers and structures as JSON).
pub type Metadata = BTreeMap<String, String>;

/// The content of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Groups by name; the tensors of each in the order in which they were saved.
    pub groups: HashMap<String, Params>,
    /// The metadata.
    pub metadata: Metadata,
}

/// Version of the layout described in the module's doc.
const VERSION: u32 = 1;
/// Key of the one entry of the header's metadata.
const KEY: &str = "retrograd";

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    groups: Vec<Group>,
    metadata: Metadata,
}

#[derive(Serialize, Deserialize)]
struct Group {
    name: String,
    /// Name and type of each tensor.
    tensors: Vec<(String, String)>,
}

/// Writes `groups` and `metadata` to `path`, atomically: a file that is there already is replaced by a complete
/// one or not at all.
///
/// Errors: [`Error::Checkpoint`] for group names that are empty, repeated or contain `/`; [`Error::Io`].
pub fn save(path: impl AsRef<Path>, groups: &[(&str, &Params)], metadata: &Metadata) -> Result<()> {
    let path = path.as_ref();
    write_atomic(path, &encode(path, groups, metadata)?)
}

/// Reads a checkpoint. Every tensor comes back bit by bit.
///
/// Errors: [`Error::Io`] for a file that is missing or unreadable; [`Error::Checkpoint`] for one that is
/// truncated, malformed, or not a checkpoint of this library.
pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(Error::io(path))?;
    decode(&bytes).map_err(|reason| Error::checkpoint(path, reason))
}

/// Saves the newest checkpoint of a run folder as [`LAST`] and keeps the one before as [`PREVIOUS`].
///
/// The new file is complete and on the disk before any other is touched; at every moment at least one of the two
/// names is a complete checkpoint. Errors: those of [`save`].
pub fn save_last(folder: impl AsRef<Path>, groups: &[(&str, &Params)], metadata: &Metadata) -> Result<()> {
    let (last, previous) = (folder.as_ref().join(LAST), folder.as_ref().join(PREVIOUS));
    let staged = Staged::write(&last, &encode(&last, groups, metadata)?)?;
    match fs::rename(&last, &previous) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(&previous)(e)),
        _ => staged.commit(),
    }
}

/// Loads the newest readable checkpoint of a run folder: [`LAST`], else [`PREVIOUS`] together with the reason why
/// not the other. Errors: that same reason, if neither can be read.
pub fn load_last(folder: impl AsRef<Path>) -> Result<(Checkpoint, Option<Error>)> {
    let folder = folder.as_ref();
    let lost = match load(folder.join(LAST)) {
        Ok(checkpoint) => return Ok((checkpoint, None)),
        Err(lost) => lost,
    };
    match load(folder.join(PREVIOUS)) {
        Ok(checkpoint) => Ok((checkpoint, Some(lost))),
        Err(_) => Err(lost),
    }
}

fn encode(path: &Path, groups: &[(&str, &Params)], metadata: &Metadata) -> Result<Vec<u8>> {
    let bad = |reason: String| Error::checkpoint(path, reason);
    let mut seen = HashSet::new();
    for (name, _) in groups {
        if name.is_empty() || name.contains('/') {
            return Err(bad(format!("group name `{name}`: must not be empty or contain `/`")));
        }
        if !seen.insert(name) {
            return Err(bad(format!("two groups named `{name}`")));
        }
    }
    let manifest = Manifest {
        version: VERSION,
        groups: groups
            .iter()
            .map(|&(name, params)| Group {
                name: name.into(),
                tensors: params.iter().map(|(n, t)| (n.into(), t.dtype().name().into())).collect(),
            })
            .collect(),
        metadata: metadata.clone(),
    };
    let manifest = serde_json::to_string(&manifest).map_err(|e| bad(e.to_string()))?;
    let mut views = Vec::new();
    for &(group, params) in groups {
        for (name, tensor) in params.iter() {
            let (dtype, shape) = stored(tensor.dtype(), tensor.dims());
            let view = TensorView::new(dtype, shape, tensor.as_bytes()).map_err(|e| bad(e.to_string()))?;
            views.push((format!("{group}/{name}"), view));
        }
    }
    // One entry only: the order of several would change from process to process.
    let header = HashMap::from([(KEY.to_owned(), manifest)]);
    serialize(views, Some(header)).map_err(|e| bad(e.to_string()))
}

fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let manifest = header.metadata().as_ref().and_then(|m| m.get(KEY));
    let manifest =
        manifest.ok_or_else(|| format!("no `{KEY}` entry in the metadata; another program's file"))?;
    let manifest: Manifest =
        serde_json::from_str(manifest).map_err(|e| format!("`{KEY}` entry of the metadata: {e}"))?;
    if manifest.version != VERSION {
        return Err(format!("layout version {}, expected {VERSION}", manifest.version));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut groups = HashMap::new();
    let mut used = 0;
    for Group { name: group, tensors } in manifest.groups {
        let mut params = Params::new();
        let count = tensors.len();
        for (name, dtype) in tensors {
            let full = format!("{group}/{name}");
            let view = file.tensor(&full).map_err(|e| e.to_string())?;
            params.insert(name, tensor(&full, &dtype, &view)?);
        }
        used += count;
        if params.len() != count || groups.insert(group.clone(), params).is_some() {
            return Err(format!("group `{group}`: a name is there twice"));
        }
    }
    if used != file.len() {
        return Err(format!("{} tensors, but {used} of them are listed in the metadata", file.len()));
    }
    Ok(Checkpoint { groups, metadata: manifest.metadata })
}

/// Type and sizes in the file of a tensor of this type and these sizes.
fn stored(dtype: DType, dims: &[usize]) -> (Dtype, Vec<usize>) {
    let mut shape = dims.to_vec();
    let dtype = match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::C32 => Dtype::C64,
        DType::C64 => {
            shape.push(2);
            Dtype::F64
        }
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
    };
    (dtype, shape)
}

fn tensor(name: &str, dtype: &str, view: &TensorView) -> Result<Tensor, String> {
    let Some(dtype) = DType::ALL.into_iter().find(|d| d.name() == dtype) else {
        return Err(format!("tensor `{name}`: unknown type `{dtype}`"));
    };
    let dims = match view.shape() {
        [dims @ .., 2] if dtype == DType::C64 => dims,
        shape => shape,
    };
    if stored(dtype, dims) != (view.dtype(), view.shape().to_vec()) {
        let got = format!("{} {:?}", view.dtype(), view.shape());
        return Err(format!("tensor `{name}`: listed as {dtype}, stored as {got}"));
    }
    let mut tensor = Tensor::zeros(dtype, dims).map_err(|e| format!("tensor `{name}`: {e}"))?;
    // The sizes and the type agree, so the lengths do.
    tensor.as_bytes_mut().copy_from_slice(view.data());
    Ok(tensor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use half::{bf16, f16};
    use num_complex::{Complex32, Complex64};
    use proptest::prelude::*;

    use super::*;

    fn tensors() -> impl Strategy<Value = Tensor> {
        let dims = prop::collection::vec(0usize..4, 0..4);
        (0..DType::ALL.len(), dims, any::<u64>()).prop_map(|(d, dims, seed)| {
            let mut tensor = Tensor::zeros(DType::ALL[d], dims).unwrap();
            // Any bits: NaNs with payloads, infinities and subnormals among them.
            let mut bits = seed;
            for byte in tensor.as_bytes_mut() {
                bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *byte = (bits >> 56) as u8;
            }
            tensor
        })
    }

    fn params() -> impl Strategy<Value = Params> {
        prop::collection::vec(("[a-zA-Z./ é\"\\\\]{0,6}", tensors()), 0..6)
            .prop_map(|all| all.into_iter().collect())
    }

    fn same(a: &Params, b: &Params) -> bool {
        a.len() == b.len() && a.iter().zip(b.iter()).all(|((m, x), (n, y))| m == n && x.bit_eq(y))
    }

    proptest! {
        #[test]
        fn round_trip_is_exact(a in params(), b in params(), metadata in any::<Metadata>()) {
            let groups = [("model", &a), ("optimizer", &b)];
            let bytes = encode(Path::new("x"), &groups, &metadata).unwrap();
            prop_assert_eq!(&bytes, &encode(Path::new("x"), &groups, &metadata).unwrap());
            let back = decode(&bytes).unwrap();
            prop_assert!(same(&back.groups["model"], &a));
            prop_assert!(same(&back.groups["optimizer"], &b));
            prop_assert_eq!(back.metadata, metadata);
        }

        #[test]
        fn damage_is_an_error_or_only_other_numbers(p in params(), at in any::<prop::sample::Index>(), xor in 1u8..) {
            let mut bytes = encode(Path::new("x"), &[("model", &p)], &Metadata::new()).unwrap();
            let cut = at.index(bytes.len());
            prop_assert!(decode(&bytes[..cut]).is_err());
            bytes[cut] ^= xor;
            if let Ok(back) = decode(&bytes) {
                prop_assert_eq!(back.groups.values().map(Params::len).sum::<usize>(), p.len());
            }
        }
    }

    fn sample() -> Params {
        let all = [
            ("z.first", Tensor::from_slice([2], &[1.0f32, -0.0]).unwrap()),
            ("a/b", Tensor::from_slice([1, 1], &[Complex64::new(1.0, f64::NAN)]).unwrap()),
            ("c", Tensor::from_slice([2], &[Complex32::new(1.0, 2.0), Complex32::new(3.0, 4.0)]).unwrap()),
            ("h", Tensor::from_slice([1], &[f16::from_f32(0.5)]).unwrap()),
            ("b", Tensor::from_slice([0, 3], &[] as &[bf16]).unwrap()),
            ("i", Tensor::scalar(-7i32)),
        ];
        all.into_iter().map(|(n, t)| (n.to_owned(), t)).collect()
    }

    #[test]
    fn other_programs_find_readable_names_and_types() {
        let bytes =
            encode(Path::new("x"), &[("model", &sample()), ("none", &Params::new())], &Metadata::new());
        let bytes = bytes.unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, dtype, shape) in [
            ("model/z.first", Dtype::F32, vec![2]),
            ("model/a/b", Dtype::F64, vec![1, 1, 2]),
            ("model/c", Dtype::C64, vec![2]),
            ("model/h", Dtype::F16, vec![1]),
            ("model/b", Dtype::BF16, vec![0, 3]),
            ("model/i", Dtype::I32, vec![]),
        ] {
            let view = file.tensor(name).unwrap();
            assert_eq!((view.dtype(), view.shape()), (dtype, &shape[..]), "{name}");
        }
        let back = decode(&bytes).unwrap();
        let names: Vec<_> = back.groups["model"].names().map(str::to_owned).collect();
        assert_eq!(names, ["z.first", "a/b", "c", "h", "b", "i"]);
        assert!(back.groups["none"].is_empty());
    }

    #[test]
    fn bad_groups_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let p = Params::new();
        for groups in [&[("a/b", &p)][..], &[("", &p)], &[("a", &p), ("a", &p)]] {
            let error = save(dir.path().join("x"), groups, &Metadata::new()).unwrap_err();
            assert!(matches!(&error, Error::Checkpoint { .. }), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// A safetensors file with this header and data.
    fn raw(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn hostile_files_are_errors_that_name_file_and_reason() {
        let manifest = |text: &str, tensors: &str| {
            let text = serde_json::Value::String(text.into());
            format!("{{\"__metadata__\":{{\"retrograd\":{text}}}{tensors}}}")
        };
        let listed = |name: &str, dtype: &str| {
            format!(
                "{{\"version\":1,\"metadata\":{{}},\"groups\":[{{\"name\":\"m\",\"tensors\":[[\"{name}\",\"{dtype}\"]]}}]}}"
            )
        };
        let w = |dtype: &str, shape: &str, end: usize| {
            format!(",\"m/w\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}")
        };
        let f32s = w("F32", "[1]", 4);
        let huge = w("F32", "[4294967296,4294967296,4294967296]", 4);
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("empty", vec![], "header too small"),
            ("text", b"hello, this is not a checkpoint".to_vec(), "header too large"),
            ("length", u64::MAX.to_le_bytes().to_vec(), "header too large"),
            ("short", 99u64.to_le_bytes().to_vec(), "invalid header length"),
            ("json", raw("{\"a\":", b""), "invalid JSON"),
            ("utf8", [&1u64.to_le_bytes()[..], &[0xff]].concat(), "UTF-8"),
            ("foreign", raw("{}", b""), "another program's file"),
            ("manifest", raw(&manifest("{}", ""), b""), "`retrograd` entry"),
            ("version", raw(&manifest(&listed("w", "f32").replacen('1', "2", 1), ""), b""), "version 2"),
            ("missing", raw(&manifest(&listed("w", "f32"), ""), b""), "`m/w` not found"),
            (
                "unlisted",
                raw(&manifest("{\"version\":1,\"metadata\":{},\"groups\":[]}", &f32s), &[0; 4]),
                "1 tensors",
            ),
            ("type", raw(&manifest(&listed("w", "f64"), &f32s), &[0; 4]), "listed as f64, stored as F32 [1]"),
            ("unknown", raw(&manifest(&listed("w", "f8"), &f32s), &[0; 4]), "unknown type `f8`"),
            ("pairs", raw(&manifest(&listed("w", "c64"), &w("F64", "[1]", 8)), &[0; 8]), "stored as F64 [1]"),
            ("overflow", raw(&manifest(&listed("w", "f32"), &huge), &[0; 4]), "overflow"),
            ("cut", raw(&manifest(&listed("w", "f32"), &f32s), &[0; 3]), "not fully covered"),
            ("longer", raw(&manifest(&listed("w", "f32"), &f32s), &[0; 5]), "not fully covered"),
            ("twice", raw(&manifest(&listed("w\",\"f32\"],[\"w", "f32"), &f32s), &[0; 4]), "twice"),
        ];
        let dir = tempfile::tempdir().unwrap();
        let mut failed = Vec::new();
        for (name, bytes, part) in cases {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            match load(&path) {
                Err(Error::Checkpoint { file, reason }) if file == path && reason.contains(part) => {}
                other => failed.push(format!("{name}: {other:?}")),
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(matches!(load(dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn the_one_before_is_kept_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert!(matches!(load_last(path), Err(Error::Io { .. })));
        let save_step = |step: &str| {
            let metadata = Metadata::from([("step".to_owned(), step.to_owned())]);
            save_last(path, &[("model", &sample())], &metadata).unwrap();
        };
        let step = |found: &Checkpoint| found.metadata["step"].clone();
        save_step("1");
        save_step("2");
        let (found, lost) = load_last(path).unwrap();
        assert_eq!(step(&found), "2");
        assert!(lost.is_none());
        assert_eq!(step(&load(path.join(PREVIOUS)).unwrap()), "1");

        // Killed between the two renames.
        fs::rename(path.join(LAST), path.join(PREVIOUS)).unwrap();
        let (found, lost) = load_last(path).unwrap();
        assert_eq!(step(&found), "2");
        assert!(matches!(lost, Some(Error::Io { .. })));

        // Damaged.
        save_step("3");
        let bytes = fs::read(path.join(LAST)).unwrap();
        fs::write(path.join(LAST), &bytes[..bytes.len() - 1]).unwrap();
        let (found, lost) = load_last(path).unwrap();
        assert_eq!(step(&found), "2");
        assert!(matches!(lost, Some(Error::Checkpoint { file, .. }) if file == path.join(LAST)));
        fs::write(path.join(PREVIOUS), "").unwrap();
        assert!(matches!(load_last(path), Err(Error::Checkpoint { file, .. }) if file == path.join(LAST)));
    }
}
