//! Files and tables agree: a file that no table names would be compiled but known to nobody.

use std::collections::BTreeSet;
use std::path::Path;

use retrograd_cells::{CELLS, OPERATORS, Settings, cell_entry, operator_entry};

fn files(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|e| Some(e.path().file_stem()?.to_str()?.to_string())).collect()
}

#[test]
fn tables_list_the_folders() {
    let cells: BTreeSet<String> = CELLS.iter().map(|e| e.name.to_string()).collect();
    assert_eq!(files("cells"), cells);
    let operators: BTreeSet<String> = OPERATORS.iter().map(|e| e.name.to_string()).collect();
    assert_eq!(files("operators"), operators);
}

#[test]
fn every_entry_is_made_by_its_defaults() -> retrograd_cells::Result<()> {
    for e in CELLS {
        assert_eq!(e.make(&Settings::new())?.name(), e.name);
        // A default written out is the same cell.
        let written = e.options.iter().map(|o| (o.key, o.default)).collect::<Settings>();
        assert_eq!(format!("{:?}", e.make(&written)?), format!("{:?}", e.make(&Settings::new())?));
        operator_entry(e.operator)?;
        assert_eq!(cell_entry(e.name)?.summary, e.summary);
    }
    for e in OPERATORS {
        assert_eq!(e.make(&Settings::new())?.name(), e.name);
        let written = e.options.iter().map(|o| (o.key, o.default)).collect::<Settings>();
        assert_eq!(format!("{:?}", e.make(&written)?), format!("{:?}", e.make(&Settings::new())?));
    }
    Ok(())
}

#[test]
fn keys_of_a_cell_and_an_operator_do_not_collide() {
    for cell in CELLS {
        for operator in OPERATORS {
            let both = cell.options.iter().filter(|c| operator.options.iter().any(|o| o.key == c.key));
            assert_eq!(both.count(), 0, "{} and {}", cell.name, operator.name);
        }
    }
}
