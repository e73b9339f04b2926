//! The program from outside: its commands, its one line for every error, and what it leaves behind.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use retrograd::run::{BEST, CONFIG, CURVES, LAST, METRICS, read_metrics};
use serde_json::Value;
use tempfile::TempDir;

/// A network and a task that take a moment.
const TINY: &[&str] = &[
    "train",
    "adding",
    "--cell",
    "rnn",
    "--hidden",
    "6",
    "--set",
    "T=6",
    "--set",
    "train=60",
    "--set",
    "valid=20",
    "--set",
    "test=20",
    "--set",
    "batch=10",
    "--set",
    "eval_batch=20",
    "--set",
    "eval_every=4",
    "--set",
    "log_every=1",
];

struct Program {
    dir: TempDir,
}

impl Program {
    fn new() -> Program {
        Program { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_retrograd"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_remove("RETROGRAD_DATA")
            .env("HOME", self.dir.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The object a command prints as its last line.
    fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--json"]].concat());
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    /// The one line of a command that must fail with status 2.
    fn error(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{args:?}: {stderr}");
        lines[0].strip_prefix("error: ").unwrap_or_else(|| panic!("{args:?}: {stderr}")).to_string()
    }
}

fn tiny<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [TINY, more].concat()
}

#[test]
fn every_command_has_help_with_examples() {
    let program = Program::new();
    let help = program.ok(&["--help"]);
    for command in [
        "train",
        "eval",
        "list",
        "explain",
        "gradcheck",
        "bench",
        "data",
        "device",
        "diagnose",
        "reproduce",
        "completions",
    ] {
        assert!(help.contains(command), "{command}");
        let help = program.ok(&[command, "--help"]);
        assert!(help.contains("Examples:") && help.contains("--json"), "{command}: {help}");
    }
    assert!(program.ok(&["--version"]).starts_with("retrograd 0."));
}

#[test]
fn lists_name_everything_that_has_a_name() {
    let program = Program::new();
    let all = program.json(&["list"]);
    for (kind, name) in [
        ("cells", "kru"),
        ("operators", "kron"),
        ("tasks", "psmnist"),
        ("optimizers", "rmsprop"),
        ("schedules", "plateau"),
        ("penalties", "soft-unitary"),
        ("constraints", "max-norm"),
        ("ops", "tanh"),
        ("keys", "patience"),
    ] {
        let rows = all[kind].as_array().unwrap();
        assert!(rows.iter().any(|r| r["name"] == name), "{kind} {name}");
        assert!(rows.iter().all(|r| !r["summary"].as_str().unwrap().is_empty()), "{kind}");
        let list = program.ok(&["list", kind]);
        assert!(list.contains(name) && list.lines().count() == rows.len() + 1, "{list}");
    }
    assert!(program.ok(&["list", "kru"]).contains("modrelu="));
    assert!(program.ok(&["list", "jsb"]).contains("chunk=all"));
}

#[test]
fn completions_are_scripts() {
    let program = Program::new();
    for (shell, part) in
        [("bash", "_retrograd()"), ("zsh", "#compdef retrograd"), ("fish", "complete -c retrograd")]
    {
        let script = program.ok(&["completions", shell]);
        assert!(script.contains(part) && script.contains("gradcheck"), "{shell}");
    }
}

#[test]
fn a_run_leaves_a_folder_that_can_be_judged_again() {
    let program = Program::new();
    let summary = program.json(&tiny(&["--epochs", "2", "--out", "mine"]));
    assert_eq!((&summary["steps"], &summary["epochs"]), (&Value::from(12), &Value::from(2)));
    assert_eq!(summary["planned_peak_bytes"], summary["measured_peak_bytes"]);
    for file in [CONFIG, METRICS, BEST, LAST, CURVES, "result.json", "times.jsonl"] {
        assert!(program.path("mine").join(file).is_file(), "{file}");
    }
    let records = read_metrics(program.path("mine").join(METRICS)).unwrap();
    let of = |kind: &str| records.iter().filter(|r| r["kind"] == kind).count();
    assert_eq!((of("train"), of("valid")), (12, 3));

    let test = program.json(&["eval", "mine"]);
    assert_eq!((&test["metric"], &test["value"]), (&summary["metric"], &summary["test"]));
    let valid = program.json(&["eval", "mine", "--split", "valid"]);
    assert_eq!(valid["value"], summary["best"]["metric"]);
    let last = program.json(&["eval", "mine", "--split", "valid", "--checkpoint", "last"]);
    assert_eq!(last["value"], records.iter().rfind(|r| r["kind"] == "valid").unwrap()["metric"]);

    // Numbered folders, and the newest of them.
    program.ok(&tiny(&["--steps", "3"]));
    program.ok(&tiny(&["--steps", "3"]));
    assert!(program.path("runs/adding-rnn-2").is_dir());
    let resumed = program.json(&["train", "--resume", "--steps", "5"]);
    assert_eq!((&resumed["folder"], &resumed["steps"]), (&Value::from("runs/adding-rnn-2"), &Value::from(5)));
}

#[test]
fn budget_and_threads_do_not_change_a_bit() {
    let program = Program::new();
    let steps = ["--steps", "6", "--set", "T=2000"];
    let free = program.json(&tiny(&[&steps[..], &["--out", "a"]].concat()));
    let full = free["measured_peak_bytes"].as_u64().unwrap();
    let budget = (full / 2).to_string();
    let tight = [&steps[..], &["--out", "b", "--budget", &budget, "--threads", "2"]].concat();
    let tight = program.json(&tiny(&tight));
    assert!(tight["measured_peak_bytes"].as_u64().unwrap() <= full / 2);
    assert_eq!(free["test"], tight["test"]);
    for file in [LAST, BEST, METRICS] {
        let read = |run: &str| fs::read(program.path(run).join(file)).unwrap();
        assert!(read("a") == read("b"), "{file}");
    }
}

#[test]
fn bad_input_is_one_readable_line() {
    let program = Program::new();
    fs::write(program.path("file"), "text").unwrap();
    fs::create_dir(program.path("used")).unwrap();
    fs::write(program.path("used/thesis.tex"), "precious").unwrap();
    let set = |value: &'static str| tiny(&["--set", value]);
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["trian"], "unrecognized subcommand 'trian'; tip: a similar subcommand exists: 'train'"),
        (vec!["train"], "the following required arguments were not provided: <TASK>"),
        (vec!["train", "addng"], "unknown task `addng`, did you mean `adding`?"),
        (vec!["train", "adding", "--cell", "kur"], "unknown cell `kur`; did you mean `kru`?"),
        (vec!["train", "adding", "--operator", "krn"], "unknown operator `krn`; did you mean `kron`?"),
        (set("hiden=3"), "configuration `hiden`: unknown, did you mean `hidden`?"),
        (set("hidden"), "configuration `hidden`: expected key=value"),
        (set("T=1"), "task adding: option `T` is `1`, expected a whole number from 2"),
        (set("lr=fast"), "setting `lr`, expected a number, got `fast`"),
        (set("optimizer=adm"), "unknown optimizer `adm`, did you mean `adam`?"),
        (set("penalty=soft-unitary"), "soft-unitary: operator `dense` has no Kronecker factors"),
        (set("dropout=1.5"), "configuration `dropout`: 1.5, expected from 0 to below 1"),
        (set("frozen=layer7"), "frozen parameter `layer7` does not exist"),
        (
            vec!["train", "adding", "--hidden", "100", "--set", "factors=2x2"],
            "kron: factors 2x2 multiply to 4, hidden size is 100",
        ),
        (
            tiny(&["--epochs", "0"]),
            "invalid value '0' for '--epochs <EPOCHS>': expected a whole number from 1",
        ),
        (
            tiny(&["--epochs", "1", "--steps", "2"]),
            "'--epochs <EPOCHS>' cannot be used with '--steps <STEPS>'",
        ),
        (
            tiny(&["--sed", "1"]),
            "unexpected argument '--sed' found; tip: a similar argument exists: '--seed'",
        ),
        (tiny(&["--budget", "3parsecs"]), "`parsecs` is no unit of bytes, expected one of B, kB, MB"),
        (tiny(&["--budget", "1k"]), "a budget of 1000 B is too small: this run needs at least"),
        (
            vec!["train", "jsb", "--data", "nowhere"],
            "data file `music/jsb_chorales.json` not found, looked at",
        ),
        (tiny(&["--out", "used"]), "run folder used: not empty (found thesis.tex)"),
        (tiny(&["--out", "file"]), "run folder file: not a folder"),
        (tiny(&["--out", "file/run"]), "file/run: "),
        (tiny(&["--out", "no/where"]), "run folder no/where: the folder it should be in does not exist"),
        (vec!["train", "--resume"], "run folder runs: does not exist"),
        (vec!["train", "--resume", "--out", "used"], "run folder used: no run in it (no config.json)"),
        (vec!["eval", "nowhere"], "run folder nowhere: does not exist"),
        (vec!["list", "krux"], "unknown name `krux`, did you mean `kru`?"),
        (vec!["completions", "powerbash"], "invalid value 'powerbash'"),
    ];
    let mut failed = Vec::new();
    for (args, part) in cases {
        let error = program.error(&args);
        if !error.contains(part) {
            failed.push(format!("{args:?}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(!program.path("runs").exists(), "nothing is left of a run that could not start");
    assert_eq!(fs::read_dir(program.path("used")).unwrap().count(), 1);
}

#[test]
fn damaged_runs_are_refused_and_left_alone() {
    let program = Program::new();
    program.ok(&tiny(&["--steps", "8", "--out", "run"]));
    let file = |name: &str| program.path("run").join(name);
    let config = fs::read_to_string(file(CONFIG)).unwrap();

    assert!(program.error(&tiny(&["--out", "run"])).contains("there is a run in it already"));
    let error = program.error(&["train", "copy", "--resume", "--out", "run"]);
    assert!(error.contains("a resumed run stays what it was: task is"), "{error}");
    let error = program.error(&["train", "--resume", "--out", "run", "--hidden", "7"]);
    assert!(error.contains("hidden is 7, was 6"), "{error}");

    // Another network than the checkpoint's.
    fs::write(file(CONFIG), config.replace("\"hidden\": 6", "\"hidden\": 7")).unwrap();
    let error = program.error(&["eval", "run"]);
    assert!(
        error.contains("best.safetensors: parameter `layer0.U`: expected f32 [2, 7], got f32 [2, 6]"),
        "{error}"
    );
    fs::write(file(CONFIG), config.replace("\"hidden\": 6", "\"hiden\": 6")).unwrap();
    assert!(program.error(&["eval", "run"]).contains("unknown field `hiden`"));
    fs::write(file(CONFIG), "{").unwrap();
    assert!(program.error(&["train", "--resume", "--out", "run"]).contains("config.json is not JSON"));
    fs::write(file(CONFIG), &config).unwrap();

    // A newest checkpoint that is cut short: the one before serves; if that is lost too, an error.
    let bytes = fs::read(file(LAST)).unwrap();
    fs::write(file(LAST), &bytes[..bytes.len() / 2]).unwrap();
    let text = program.ok(&["train", "--resume", "--out", "run", "--steps", "10"]);
    assert!(text.contains("took the one before") && text.contains("10 steps"), "{text}");
    for name in [LAST, "previous.safetensors", BEST] {
        fs::write(file(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    let error = program.error(&["train", "--resume", "--out", "run", "--steps", "12"]);
    assert!(error.starts_with("checkpoint run/last.safetensors: "), "{error}");
    assert!(program.error(&["eval", "run"]).starts_with("checkpoint run/best.safetensors: "));
    fs::remove_file(file(BEST)).unwrap();
    assert!(program.error(&["eval", "run"]).contains("no run/best.safetensors"));

    // Errors are an object too.
    let output = program.run(&["eval", "nowhere", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"], "run folder nowhere: does not exist");
}

#[test]
fn a_loss_that_is_not_finite_stops_and_keeps_what_was_good() {
    let program = Program::new();
    let wild = ["--steps", "200", "--out", "run", "--set", "activation=relu", "--set", "optimizer=sgd"];
    let error = program.error(&tiny(&[&wild[..], &["--set", "lr=1e12", "--quiet"]].concat()));
    assert!(error.contains("kept the last good checkpoint run/last.safetensors"), "{error}");
    assert!(retrograd::run::checkpoint::load(Path::new(&program.path("run")).join(LAST)).is_ok());
    let skip = ["--set", "lr=1e12", "--set", "non_finite=skip", "--quiet"];
    let mut args = tiny(&[&wild[..], &skip].concat());
    *args.iter_mut().find(|a| **a == "run").unwrap() = "other";
    let error = program.error(&args);
    assert!(error.contains("not finite"), "{error}");
}

#[test]
fn data_in_folders_is_listed_and_unpacked_by_hand() {
    let program = Program::new();
    let text = program.ok(&["data", "list", "har-2"]);
    assert!(text.contains("UCI HAR Dataset/") && text.contains("by hand  unpack https://"), "{text}");
    let listed = program.json(&["data", "list", "timit"]);
    assert_eq!(listed["folders"][0]["folder"], "timit/");
    let refused = program.error(&["data", "fetch", "google-12"]);
    assert!(refused.contains("speech_commands/") && refused.contains("by hand"), "{refused}");
    let missing = program.error(&["train", "yelp-5", "--cell", "gru", "--data", "nowhere"]);
    assert!(
        missing.contains("`yelp/` not found") && missing.contains("https://www.yelp.com/dataset"),
        "{missing}"
    );
}

#[test]
fn kfac_says_how_it_treats_parameters() {
    let p = Program::new();
    let text = p.ok(&[TINY, &["--kfac", "option1", "--steps", "8", "--out", "run", "--quiet"]].concat());
    assert!(text.contains("kfac, batches of 10"), "{text}");
    assert!(
        text.contains("recurrent map: layer0.W + layer0.b, layer0.U; map: readout.V + readout.c"),
        "{text}"
    );
    let config = fs::read_to_string(p.path("run").join(CONFIG)).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["optimizer"]["name"], "kfac");
    assert_eq!(config["optimizer"]["settings"]["kfac"], "option1");
    let resumed = p.ok(&["train", "--resume", "--out", "run", "--steps", "10", "--quiet"]);
    assert!(resumed.contains("resumed after step 8") && resumed.contains("10 steps"), "{resumed}");
    let wrong = p.run(&[TINY, &["--kfac", "option3", "--steps", "2"]].concat());
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && error.contains("kfac: setting `kfac`"), "{error}");
}
