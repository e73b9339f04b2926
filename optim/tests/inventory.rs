//! Folders against tables: every file is in its table under its own name, and every row can be built.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use retrograd_optim::{
    CONSTRAINTS, Entry, Error, MULTIPLICATIVE, OPTIMIZERS, PENALTIES, SCHEDULES, Settings,
};

fn compare<T: ?Sized>(folder: &str, table: &[Entry<T>]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let stem = |file: std::path::PathBuf| file.file_stem().unwrap().to_str().unwrap().replace('_', "-");
    let files: BTreeSet<_> = path.read_dir().unwrap().map(|file| stem(file.unwrap().path())).collect();
    let rows: BTreeSet<_> = table.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(files, rows, "{folder}: files on the left, table on the right");
    assert_eq!(rows.len(), table.len(), "{folder}: two rows of one name");
    for entry in table {
        assert!(!entry.summary.is_empty() && entry.options.iter().all(|o| !o.summary.is_empty()));
        let built = (entry.build)(&Settings::new());
        assert!(built.is_ok(), "{} at its defaults: {:?}", entry.name, built.err());
        let unknown = (entry.build)(&Settings::new().with("no_such_key", 1)).err();
        assert!(
            matches!(&unknown, Some(Error::UnknownKey { owner, key, .. })
                if *owner == entry.name && key == "no_such_key"),
            "{}: {unknown:?}",
            entry.name
        );
        for option in entry.options.iter().filter(|o| !matches!(o.key, "params")) {
            let bad = (entry.build)(&Settings::new().with(option.key, "?"));
            assert!(bad.is_err(), "{}: `{}=?` was taken", entry.name, option.key);
        }
    }
}

#[test]
fn every_file_has_its_row() {
    compare("optimizers", OPTIMIZERS);
    compare("multiplicative", MULTIPLICATIVE);
    compare("schedules", SCHEDULES);
    compare("penalties", PENALTIES);
    compare("constraints", CONSTRAINTS);
}

#[test]
fn unknown_names_and_values_name_the_nearest() {
    let none = Settings::new();
    let message = |error: Option<Error>| error.unwrap().to_string();
    let rows = [
        (
            message(retrograd_optim::optimizer("adm", &none).err()),
            "unknown optimizer `adm`, did you mean `adam`?",
        ),
        (
            message(retrograd_optim::optimizer("sgdm", &none).err()),
            "unknown optimizer `sgdm`, did you mean `sgd`?",
        ),
        (message(retrograd_optim::schedule("platau", &none).err()), "did you mean `plateau`?"),
        (message(retrograd_optim::penalty("soft_unitary", &none).err()), "did you mean `soft-unitary`?"),
        (message(retrograd_optim::constraint("maxnorm", &none).err()), "did you mean `max-norm`?"),
        (
            message(retrograd_optim::optimizer("adam", &none.clone().with("beta3", 0)).err()),
            "adam: unknown setting `beta3`, did you mean `beta1`?",
        ),
        (
            message(retrograd_optim::optimizer("rmsprop", &none.clone().with("variant", "urn")).err()),
            "(did you mean `uRNN`?), got `urn`",
        ),
        (
            message(retrograd_optim::optimizer("rmsprop", &none.clone().with("eps", 1e-8)).err()),
            "rmsprop: setting `eps`, expected 0, or eps_place=inside or outside, got `0.00000001`",
        ),
        (
            message(retrograd_optim::optimizer("sgd", &none.clone().with("nesterov", true)).err()),
            "sgd: setting `momentum`, expected a momentum above 0 with nesterov=true, got `0`",
        ),
        (
            message(retrograd_optim::optimizer("adam", &none.clone().with("beta1", 1)).err()),
            "adam: setting `beta1`, expected a number from 0 to below 1, got `1`",
        ),
        (
            message(retrograd_optim::schedule("warmup", &none.clone().with("then.gamma", 1)).err()),
            "constant: unknown setting `gamma`; known: none",
        ),
        (
            message(retrograd_optim::schedule("cosine", &none.clone().with("over", 0)).err()),
            "cosine: setting `over`, expected a whole number of at least 1, got `0`",
        ),
    ];
    for (message, part) in rows {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}
