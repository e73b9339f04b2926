//! The folder of tasks and the table must agree.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use retrograd_datasets::{Error, TASKS, find};

#[test]
fn every_file_has_entries_and_every_entry_a_file() -> std::io::Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tasks");
    let files: BTreeSet<String> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_string()))
        .collect();
    let modules: BTreeSet<String> =
        TASKS.iter().filter_map(|t| Some(t.module.rsplit("::").next()?.to_string())).collect();
    assert_eq!(files, modules);
    Ok(())
}

#[test]
fn names_and_texts_are_fit_to_print() {
    let mut names = BTreeSet::new();
    for t in TASKS {
        assert!(names.insert(t.name), "{} twice", t.name);
        assert!(
            t.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{}",
            t.name
        );
        assert!(!t.summary.is_empty() && t.summary.len() <= 72 && !t.summary.contains('\n'), "{}", t.name);
        let mut keys = BTreeSet::new();
        for o in t.options {
            assert!(keys.insert(o.key), "{}: {} twice", t.name, o.key);
            assert!(!o.doc.is_empty() && !o.default.is_empty(), "{}: {}", t.name, o.key);
        }
    }
}

#[test]
fn unknown_names_get_the_nearest() {
    for (name, nearest) in
        [("psmist", Some("psmnist")), ("pianomidi", Some("piano-midi")), ("JSB", Some("jsb")), ("zzz", None)]
    {
        match find(name) {
            Err(Error::UnknownTask { nearest: got, .. }) => assert_eq!(got, nearest, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
