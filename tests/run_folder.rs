//! Run folders under hard conditions: processes that are killed, disks that are full, folders that cannot be
//! written. The other process is this test's own program, started again for one test with [`TASK`] set.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use retrograd::run::checkpoint::{Metadata, load, load_last, save, save_last};
use retrograd::run::{
    BEST, CONFIG, Error, LAST, METRICS, Metrics, PREVIOUS, RunFolder, TensorBoard, read_metrics,
};
use retrograd_engine::{Params, Tensor};
use serde_json::json;

const TASK: &str = "RETROGRAD_TEST_TASK";
const FOLDER: &str = "RETROGRAD_TEST_FOLDER";

/// "Training": a state that depends on all steps before.
fn advance(state: &mut Params) {
    for x in state.get_mut("w").unwrap().as_mut_slice::<f64>().unwrap() {
        *x = (*x * 1.000_1 + 0.3).sin();
    }
}

fn fresh() -> Params {
    [("w".to_owned(), Tensor::full(retrograd_engine::DType::F64, [100, 100], 0.25).unwrap())]
        .into_iter()
        .collect()
}

/// Runs to `total`, from the checkpoint in the folder if there is one.
fn train(folder: &RunFolder, total: u64) -> Result<(), Error> {
    let resumed = folder.file(LAST).exists() || folder.file(PREVIOUS).exists();
    let (mut state, start) = if resumed {
        let (mut checkpoint, _) = load_last(folder.path())?;
        (checkpoint.groups.remove("model").unwrap(), checkpoint.metadata["step"].parse().unwrap())
    } else {
        (fresh(), 0)
    };
    let mut metrics = Metrics::resume(folder.file(METRICS), start)?;
    let mut board = if resumed {
        TensorBoard::resume(folder.path(), start)?
    } else {
        TensorBoard::create(folder.path())?
    };
    for step in start + 1..=total {
        advance(&mut state);
        let loss = state.require("w")?.get(7).re;
        metrics.append(step, &json!({"loss": loss}))?;
        board.scalars(step, &[("loss", loss)])?;
        if step % 3 == 0 || step == total {
            metrics.sync()?;
            let metadata = Metadata::from([("step".to_owned(), step.to_string())]);
            save_last(folder.path(), &[("model", &state)], &metadata)?;
        }
    }
    Ok(())
}

/// The part of the other process; does nothing in an ordinary test run.
#[test]
fn other_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let path = std::env::var(FOLDER).unwrap();
    let path = Path::new(&path);
    match task.as_str() {
        "train" => {
            let folder = if path.join(CONFIG).exists() {
                RunFolder::resume(path).unwrap()
            } else {
                let folder = RunFolder::create(path).unwrap();
                folder.write_config(&json!({"lr": 0.1})).unwrap();
                folder
            };
            println!("\nready");
            train(&folder, u64::MAX).unwrap();
        }
        "fill" => match save(path.join(BEST), &[("model", &fresh())], &Metadata::new()) {
            Err(Error::Io { path: culprit, .. }) if culprit == path.join(BEST) => println!("\nrefused"),
            other => panic!("{other:?}"),
        },
        "fill_metrics" => {
            let mut metrics = Metrics::resume(path.join(METRICS), 1).unwrap();
            let error = (2..100_000).find_map(|step| metrics.append(step, &json!({"loss": 0.5})).err());
            assert!(matches!(error, Some(Error::Io { .. })), "{error:?}");
            println!("\nrefused");
        }
        other => panic!("{other}"),
    }
}

fn this_test(task: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "other_process", "--nocapture"]).env(TASK, task).env(FOLDER, folder);
    command
}

/// Starts a process that trains in `folder` until it is killed; returns once it has the folder.
fn start(folder: &Path) -> Child {
    let mut child = this_test("train", folder).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|l| l == "ready"), "the other process did not get ready");
    child
}

#[test]
fn a_killed_run_resumes_to_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let killed = dir.path().join("killed");
    for round in 0..6u64 {
        let mut child = start(&killed);
        let locked = RunFolder::resume(&killed).unwrap_err();
        let holder = format!("process {}", child.id());
        assert!(matches!(&locked, Error::Locked { holder: h, .. } if *h == holder), "{locked}");
        // Other moments each time, and at least one checkpoint in all.
        std::thread::sleep(Duration::from_millis(7 + 13 * round));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !killed.join(LAST).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The lock of the dead process stops nobody.
    let folder = RunFolder::resume(&killed).unwrap();
    let hidden = |name: &str| name.starts_with('.') && name.ends_with(".tmp");
    let names = fs::read_dir(&killed).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|n| hidden(n)).count(), 0);

    let done: u64 = load_last(&killed).unwrap().0.metadata["step"].parse().unwrap();
    let total = done + 4;
    train(&folder, total).unwrap();
    let whole = RunFolder::create(dir.path().join("whole")).unwrap();
    train(&whole, total).unwrap();
    for name in [LAST, METRICS] {
        assert!(
            fs::read(whole.file(name)).unwrap() == fs::read(folder.file(name)).unwrap(),
            "{name} differs"
        );
    }
    assert_eq!(read_metrics(folder.file(METRICS)).unwrap().len() as u64, total);
}

/// Runs `task` with files limited to `blocks` of 512 bytes, which the system reports like a full disk.
#[cfg(unix)]
fn with_small_files(task: &str, folder: &Path, blocks: u32) {
    let command = this_test(task, folder);
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("\nrefused"), "{text}{:?}", output.status);
}

#[test]
#[cfg(unix)]
fn no_space_for_a_checkpoint_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let small: Params = [("w".to_owned(), Tensor::scalar(1.5f32))].into_iter().collect();
    save(dir.path().join(BEST), &[("model", &small)], &Metadata::new()).unwrap();
    with_small_files("fill", dir.path(), 8);
    assert_eq!(load(dir.path().join(BEST)).unwrap().groups["model"], small);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is still there");
}

#[test]
#[cfg(unix)]
fn no_space_for_a_record_leaves_whole_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(METRICS);
    Metrics::create(&path).unwrap().append(1, &json!({"loss": 0.5})).unwrap();
    with_small_files("fill_metrics", dir.path(), 8);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("}\n") && text.len() > 3000, "{} bytes", text.len());
    assert_eq!(text.lines().count(), read_metrics(&path).unwrap().len());
}

#[test]
#[cfg(target_os = "linux")]
fn folders_that_cannot_be_written_are_named() {
    // Nobody can make files there, whatever rights the tests run with.
    let error = RunFolder::create("/proc/run").unwrap_err();
    assert!(error.to_string().contains("/proc/run"), "{error}");
    let error = RunFolder::create_numbered("/proc/runs", "adding", "kru").unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path == Path::new("/proc/runs")), "{error}");
    let error = save("/proc/best.safetensors", &[], &Metadata::new()).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("best.safetensors")), "{error}");
    let error = TensorBoard::create("/proc").unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with("/proc")), "{error}");
    let error = Metrics::create("/proc/metrics.jsonl").unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("metrics.jsonl")), "{error}");
}
