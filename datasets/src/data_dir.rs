//! Where data files are looked for.

use std::path::{Path, PathBuf};

use crate::catalog;
use crate::error::{Error, Result};

/// Environment variable that names the data folder.
pub const VARIABLE: &str = "RETROGRAD_DATA";

/// The folders that are looked at, in order: `explicit` alone if given; else the folder in [`VARIABLE`] alone
/// if set; else `../shared/data` beside the working directory and beside this crate's workspace, `data` in
/// the working directory, and the user's own ([`home`]).
pub fn places(explicit: Option<&Path>) -> Vec<PathBuf> {
    if let Some(folder) = explicit {
        return vec![folder.to_path_buf()];
    }
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        return vec![folder.into()];
    }
    let mut places = vec![PathBuf::from("../shared/data")];
    if let Some(workspace) = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent) {
        places.push(workspace.join("shared/data"));
    }
    places.push("data".into());
    places.extend(home());
    places
}

/// The user's own data folder: `retrograd` in `XDG_DATA_HOME`, or in `.local/share` of the home folder.
pub fn home() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|h| h.join(".local/share")));
    base.map(|b| b.join("retrograd"))
}

/// The folder that downloads go to: `explicit`, else the one in [`VARIABLE`], else [`home`], else `data`.
pub fn destination(explicit: Option<&Path>) -> PathBuf {
    let named = explicit.map(Path::to_path_buf);
    let variable = || std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    named.or_else(variable).or_else(home).unwrap_or_else(|| "data".into())
}

/// The first place that holds `file` (a path inside a data folder), also without its `.gz`. Errors: none
/// does.
pub fn find(explicit: Option<&Path>, file: &str) -> Result<PathBuf> {
    let looked = places(explicit);
    let names = [Some(file), file.strip_suffix(".gz")];
    looked
        .iter()
        .flat_map(|place| names.iter().flatten().map(|name| place.join(name)))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing { file: file.into(), advice: catalog::advice(file), looked })
}

/// The first place that holds the folder `name` (a path inside a data folder, with or without `/` at its end), also in
/// capitals. Errors: none does.
pub fn find_folder(explicit: Option<&Path>, name: &str) -> Result<PathBuf> {
    let looked = places(explicit);
    let names = [name.to_string(), name.to_uppercase()];
    looked
        .iter()
        .flat_map(|place| names.iter().map(|name| place.join(name.trim_end_matches('/'))))
        .find(|path| path.is_dir())
        .ok_or_else(|| Error::Missing { file: name.into(), advice: catalog::advice(name), looked })
}

/// [`find_folder`] for what ends in `/`, else [`find`].
pub fn find_any(explicit: Option<&Path>, need: &str) -> Result<PathBuf> {
    if need.ends_with('/') { find_folder(explicit, need) } else { find(explicit, need) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_plain_for_gzip_and_names_places() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("a"), "")?;
        let at = find(Some(folder.path()), "a.gz").ok();
        assert_eq!(at, Some(folder.path().join("a")));
        let message = find(Some(folder.path()), "ptb/ptb.train.txt").err().map(|e| e.to_string());
        let message = message.unwrap_or_default();
        assert!(message.contains(&folder.path().display().to_string()), "{message}");
        assert!(message.contains("retrograd data") && message.contains("ptb/ptb.train.txt"), "{message}");
        std::fs::create_dir(folder.path().join("TIMIT"))?;
        assert_eq!(find_any(Some(folder.path()), "timit/").ok(), Some(folder.path().join("TIMIT")));
        let message = find_folder(Some(folder.path()), "yelp/").err().map(|e| e.to_string());
        assert!(message.is_some_and(|m| m.contains("`yelp/`") && m.contains("retrograd data")));
        Ok(())
    }
}
