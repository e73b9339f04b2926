//! The table of operations against the directory: a file that is not in the table would be silent.

use std::collections::BTreeSet;
use std::path::Path;

use retrograd_ops::{FILES, OPS};

/// Files of the crate that are not operations.
const OTHERS: [&str; 10] =
    ["lib", "axis", "check", "exp_sum", "fold", "lanes", "pieces", "rule", "spec", "testing"];

#[test]
fn every_file_is_in_the_table() -> std::io::Result<()> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "rs") && !OTHERS.contains(&name.as_str()) {
            found.insert(name);
        }
    }
    let table: BTreeSet<String> = FILES.iter().map(|f| f.to_string()).collect();
    assert_eq!(table.len(), FILES.len(), "a file is in the table twice");
    assert_eq!(found, table);
    Ok(())
}

#[test]
fn names_are_unique_and_every_operation_says_how_to_try_it() {
    let names: BTreeSet<_> = OPS.iter().map(|op| op.name).collect();
    assert_eq!(names.len(), OPS.len());
    for op in OPS {
        assert!(!op.summary.is_empty() && !op.cases.is_empty(), "{}", op.name);
        let labels: BTreeSet<_> = op.cases.iter().map(|c| c.label).collect();
        assert_eq!(labels.len(), op.cases.len(), "{}: two cases of one label", op.name);
        assert!(op.cases.iter().all(|c| !c.inputs.is_empty()), "{}", op.name);
    }
}
