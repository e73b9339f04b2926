//! The commands that look rather than train, from outside: `explain`, `bench`, `gradcheck`, `data`.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

struct Program {
    dir: TempDir,
}

impl Program {
    fn new() -> Program {
        Program { dir: tempfile::tempdir().unwrap() }
    }

    fn run(&self, args: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_retrograd"))
            .args(args.split_whitespace())
            .current_dir(self.dir.path())
            .env_remove("RETROGRAD_DATA")
            .env("HOME", self.dir.path())
            .output()
            .unwrap()
    }

    fn ok(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one object that `--json` prints.
    fn json(&self, args: &str) -> Value {
        let text = self.ok(&format!("{args} --json"));
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(text.trim_end()).unwrap()
    }

    /// The one line of a command that fails with status 2.
    fn error(&self, args: &str) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args}: {text}");
        assert_eq!(text.lines().count(), 1, "{args}: {text}");
        text
    }
}

const SMALL: &str = "--hidden 8 --input 2 --output 3 --steps 40 --batch 4 --threads 2";

#[test]
fn explain_says_and_draws_the_plan() {
    let p = Program::new();
    let text = p.ok(&format!("explain --cell lstm --operator kron {SMALL} --svg plan.svg"));
    for part in ["lstm on kron", "T = 40", "N = 4", "peak", "step by step", "chunk at once", "adjoint"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let drawn = std::fs::read_to_string(p.dir.path().join("plan.svg")).unwrap();
    let picture = roxmltree::Document::parse(&drawn).unwrap();
    assert_eq!(picture.root_element().tag_name().name(), "svg");
    assert!(picture.descendants().filter(|n| n.has_tag_name("rect")).count() > 5);

    let timed = p.ok(&format!("explain --cell lstm --operator kron {SMALL} --time --svg time.svg"));
    // Which instructions are listed depends on their times; products of Kronecker factors take the most by far.
    for part in ["products", "idle", "kron_apply(", "carry", "GB/s"] {
        assert!(timed.contains(part), "no `{part}` in {timed}");
    }
    let drawn = std::fs::read_to_string(p.dir.path().join("time.svg")).unwrap();
    let picture = roxmltree::Document::parse(&drawn).unwrap();
    let texts: Vec<&str> = picture.descendants().filter_map(|n| n.text()).collect();
    assert!(texts.iter().any(|t| t.starts_with("Time of a run")), "{texts:?}");

    let whole = p.json(&format!("explain --cell kru {SMALL} --time"));
    assert_eq!(whole["plan"]["peak_bytes"], whole["peak_bytes"]);
    assert_eq!(whole["plan"]["scans"].as_array().unwrap().len(), 2);
    assert!(whole["time"]["lines"].as_array().unwrap().iter().any(|l| l["work"] == "products"));
    let peak = whole["peak_bytes"].as_u64().unwrap();
    assert!(whole["segments"].is_null() && whole["flops"].as_f64().unwrap() > 0.0);
    let error = p.error(&format!("explain --cell kru {SMALL} --budget 100"));
    let bytes = error.split(" bytes)").next().unwrap().rsplit('(').next().unwrap();
    let smallest: u64 = bytes.parse().unwrap();
    let tight = p.json(&format!("explain --cell kru {SMALL} --budget {smallest}"));
    assert!(tight["peak_bytes"].as_u64().unwrap() <= smallest && smallest <= peak);
}

#[test]
fn bench_measures() {
    let p = Program::new();
    let found = p.json(&format!("bench --cell gru {SMALL} --runs 3"));
    for part in ["forward", "forward_backward", "training_step"] {
        let row = &found[part];
        let (median, minimum) =
            (row["median_seconds"].as_f64().unwrap(), row["minimum_seconds"].as_f64().unwrap());
        assert!(0.0 < minimum && minimum <= median, "{row}");
        assert_eq!(row["seconds"].as_array().unwrap().len(), 3);
        let bytes = |key: &str| row[key].as_u64().unwrap();
        let (planned, measured) = (bytes("planned_peak_bytes"), bytes("measured_peak_bytes"));
        assert!(measured.abs_diff(planned) * 100 <= planned, "{row}");
        assert!(row["flops"].as_f64().unwrap() > 0.0);
        let shares = &row["time_shares"];
        let kinds = ["products", "pointwise", "data_movement", "everything_else", "idle"];
        let sum: f64 = kinds.iter().map(|k| shares[k].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{shares}");
        assert!(shares["products"].as_f64().unwrap() > 0.0, "{shares}");
        let (rate, peak) = (&row["flops_per_second"], &found["product_peak_flops_per_second"]);
        let share = rate.as_f64().unwrap() / peak.as_f64().unwrap();
        assert!((row["share_of_peak"].as_f64().unwrap() / share - 1.0).abs() < 1e-9, "{row}");
    }
    assert!(found["profile"].is_null());
    let flops = |part: &str| found[part]["flops"].as_f64().unwrap();
    assert!(flops("forward_backward") > 2.0 * flops("forward"));
    let text = p.ok(&format!("bench --cell gru {SMALL} --runs 1 --profile"));
    for part in ["forward+backward", "of peak", "pointwise", "took longest", "GB/s", "matmul("] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let top = p.json(&format!("bench --cell gru {SMALL} --runs 1 --profile"));
    let seconds: Vec<f64> =
        top["profile"].as_array().unwrap().iter().map(|l| l["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() > 5 && seconds.is_sorted_by(|a, b| a >= b), "{seconds:?}");
    assert!(p.error("bench --cell grue").contains("gru"));
    assert!(p.error("bench --cell gru --set colour=red").contains("colour"));
    assert!(p.error("bench --cell gru --operator krom").contains("kron"));
}

#[test]
fn gradcheck_checks_what_is_asked_for() {
    let p = Program::new();
    let tanh = p.json("gradcheck --op tanh");
    assert_eq!(tanh["passed"], true);
    assert_eq!(tanh["items"].as_array().unwrap().len(), 1);
    assert!(tanh["derivatives"].as_u64().unwrap() > 0);
    let cell = p.json("gradcheck --cell lstm --operator kron --seed 7");
    assert_eq!(cell["items"][0]["name"], "lstm on kron");
    assert!(p.error("gradcheck --op tanhh").contains("`tanh`"));
    // No derivative is right to the last bit, so this must say what is wrong, with status 1.
    let output = p.run("gradcheck --op exp --tolerance 1e-18");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("WRONG"));
}

#[test]
fn a_rounded_stash_says_what_it_does_to_gradients() {
    let p = Program::new();
    let error_of = |found: &Value| found["gradient_error"].as_f64().unwrap();
    let check = |stash: &str| p.json(&format!("gradcheck --cell lstm --operator kron --stash {stash}"));
    let (bf16, f16) = (check("bf16"), check("f16"));
    for found in [&bf16, &f16] {
        let item = &found["items"][0];
        assert_eq!(item["name"], "lstm on kron");
        let bytes = |key: &str| item[key].as_u64().unwrap() as f64;
        let share = bytes("recorded_bytes") / bytes("exact_recorded_bytes");
        assert!((share - 0.5).abs() < 0.01, "{item}");
        assert!(item["worst"]["gradient_error"].as_f64().unwrap() > 0.0, "{item}");
    }
    let (coarse, fine) = (error_of(&bf16["items"][0]), error_of(&f16["items"][0]));
    assert!(0.0 < fine && fine < coarse && coarse < 0.02, "bf16 {coarse}, f16 {fine}");
    let bench = p.json(&format!("bench --cell gru {SMALL} --runs 1 --stash bf16"));
    assert!((1e-6..0.05).contains(&error_of(&bench["rounding"])), "{}", bench["rounding"]);
    assert!(p.json(&format!("bench --cell gru {SMALL} --runs 1"))["rounding"].is_null());
    let text = p.ok(&format!("explain --cell gru {SMALL} --stash f16"));
    assert!(text.contains("as f16"), "{text}");
    assert!(p.error("gradcheck --stash f32").contains("exact, bf16, f16"));
}

#[test]
fn lengths_are_compared_under_one_budget() {
    let p = Program::new();
    let found =
        p.json("bench --cell gru --hidden 8 --batch 4 --threads 2 --steps 1200 --runs 2 --budget 1MiB --sweep-length");
    let rows = found["lengths"].as_array().unwrap();
    let steps: Vec<u64> = rows.iter().map(|r| r["steps"].as_u64().unwrap()).collect();
    assert_eq!(steps, [100, 1000, 1200]);
    for row in rows {
        let (planned, measured) = (&row["planned_peak_bytes"], &row["measured_peak_bytes"]);
        assert_eq!(planned, measured);
        assert!(planned.as_u64().unwrap() <= 1 << 20);
        assert!(row["step_sample_seconds"].as_f64().unwrap() > 0.0);
        assert!(row["expected_factor"].as_f64().unwrap() > 0.5);
    }
    assert!(p.error(&format!("bench --cell gru {SMALL} --sweep-length")).contains("--budget"));
}

/// A server that answers every request with these bytes; its address.
fn serve(content: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            stream.write_all(&[head.as_bytes(), content].concat()).unwrap();
        }
    });
    address
}

#[test]
fn data_lists_and_fetches() {
    let p = Program::new();
    let all = p.json("data --dir here");
    assert!(all["tasks"].as_array().unwrap().len() > 10);
    let files = all["files"].as_array().unwrap();
    assert!(files.iter().all(|f| f["here"].is_null() && f["license"].is_string()));
    let text = p.ok("data list ptbword --dir here");
    assert!(text.contains("ptb/ptb.train.txt") && text.contains("Linguistic Data Consortium"), "{text}");
    assert!(p.ok("data list adding").contains("nothing"));

    assert!(p.error("data fetch nottingam").contains("`nottingham`"));
    assert!(p.error("data fetch ptb/ptb.test.txt --dir here").contains("licensed"));
    assert!(p.error("data fetch ptbword --url http://127.0.0.1:9/one --dir here").contains("3 files"));
    // Something else comes than the catalog says: nothing of it stays.
    let url = serve(b"not the file");
    let error = p.error(&format!("data fetch ptb/ptb.test.txt --url {url} --dir here"));
    assert!(error.contains("checksum"), "{error}");
    let left = std::fs::read_dir(p.dir.path().join("here/ptb")).unwrap().count();
    assert_eq!(left, 0);
}

/// Whether this machine has a GPU decides what is said, not how.
#[test]
fn a_device_that_is_not_there_is_said_in_one_line() {
    let p = Program::new();
    let found = p.json("device");
    if found["device"].is_null() {
        let reason = found["reason"].as_str().unwrap();
        assert!(reason.starts_with("no CUDA d"), "{reason}");
        assert!(p.ok("device").trim_end().ends_with("; everything runs on the CPU"));
        for args in [
            "device --device cuda",
            "device --cell kru",
            "train adding --device cuda",
            "bench --cell kru --device cuda",
            "explain --cell kru --device cuda:0",
        ] {
            assert_eq!(p.error(args), format!("error: {reason}\n"), "{args}");
        }
    }
    assert!(p.error("train adding --device tpu").contains("expected cpu, cuda, cuda:N or emulated"));
    assert!(p.error("bench --cell lstm --products fp8").contains("expected one of exact, tf32, bf16"));
    let error = p.error("train adding --products tf32");
    assert!(error.contains("tf32 is of a GPU's tensor cores, not of --device cpu"), "{error}");
    assert!(p.error("device --device emulated --cell kru --hidden 24").contains("24 is not a power of two"));
    assert!(!p.dir.path().join("runs").exists(), "a run folder was made");
}

/// Training and judging there gives what the CPU gives, but for rounding.
#[test]
fn programs_run_on_the_emulated_device() {
    let p = Program::new();
    let sizes = "adding --cell kru --hidden 4 --set T=4 --set train=8 --set valid=8 --set test=8 --set batch=4 --steps 2";
    let loss = |device: &str| {
        p.ok(&format!("train {sizes} --device {device} --out on-{device} --quiet"));
        p.json(&format!("eval on-{device} --checkpoint last --device {device}"))["loss"].as_f64().unwrap()
    };
    let (cpu, emulated) = (loss("cpu"), loss("emulated"));
    assert!((cpu - emulated).abs() < 1e-5 * cpu.abs(), "{cpu} on the CPU, {emulated} on the device");
    let rounded = "eval on-cpu --checkpoint last --device emulated --products bf16";
    let rounded = p.json(rounded)["loss"].as_f64().unwrap();
    let off = (cpu - rounded).abs() / cpu.abs();
    assert!((1e-6..1e-1).contains(&off), "{cpu} on the CPU, {rounded} of rounded products");
    let bench = "bench --cell gru --hidden 3 --steps 3 --batch 2 --runs 1 --device emulated";
    let found = p.json(bench);
    let row = &found["forward_backward"];
    assert_eq!(row["planned_peak_bytes"], row["measured_peak_bytes"]);
    for part in ["forward", "forward_backward", "training_step"] {
        let shares = &found[part]["time_shares"];
        let kinds = ["products", "pointwise", "data_movement", "everything_else", "idle"];
        let sum: f64 = kinds.iter().map(|k| shares[k].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6 && shares["data_movement"].as_f64().unwrap() > 0.0, "{shares}");
    }
    let text = p.ok(&format!("{bench} --profile"));
    for part in ["time on emulated", "launches and copies that took longest", "steps: kernel of"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let top = p.json(&format!("{bench} --profile"));
    let lines = top["profile"].as_array().unwrap();
    assert!(lines.iter().any(|l| l["phase"] == "steps" && l["flops"].as_f64().unwrap() > 0.0), "{top}");

    let explain = "explain --cell gru --hidden 3 --steps 5 --batch 2 --device emulated --time";
    let text = p.ok(&format!("{explain} --svg time.svg"));
    for part in
        ["on emulated device", "the run", "  steps: kernel of", "copy outputs from the device", "idle"]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let drawn = std::fs::read_to_string(p.dir.path().join("time.svg")).unwrap();
    assert!(roxmltree::Document::parse(&drawn).is_ok() && drawn.contains("Time of a run"));
    let time = &p.json(explain)["time"];
    assert_eq!((&time["threads"], &time["device"]), (&1.into(), &"emulated device".into()));
    // Launches and copies follow each other: together they take no longer than the run, and the rest is idle.
    let lines = time["lines"].as_array().unwrap();
    let busy: f64 = lines.iter().map(|l| l["seconds"].as_f64().unwrap()).sum();
    let [idle, wall] = ["idle_seconds", "wall_seconds"].map(|key| time[key].as_f64().unwrap());
    assert!(busy > 0.0 && (busy + idle - wall).abs() < 1e-6 * wall, "{busy} and {idle} of {wall}: {time}");
}

#[test]
fn the_kernels_run_on_the_emulated_device() {
    let p = Program::new();
    for cell in ["kru", "rnn", "gru", "lstm", "irnn"] {
        let found = p
            .json(&format!("device --device emulated --cell {cell} --hidden 8 --steps 2 --batch 3 --runs 2"));
        assert_eq!(found["emulated"], true, "{cell}");
        for direction in ["forward", "backward"] {
            assert!(found["kernels"][direction]["instructions"].as_u64().unwrap() > 1000, "{cell}: {found}");
        }
    }
}
