//! `retrograd data`: what each task needs, where it is published, what is here; fetches what is free.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use retrograd::Error;
use retrograd_datasets::catalog::{self, Access, DataFile, DataFolder};
use retrograd_datasets::fetch::{self, Outcome};
use retrograd_datasets::{TASKS, TaskEntry, data_dir};
use serde_json::{Value, json};

use super::{Output, Report, Result};

const EXAMPLES: &str = "\
Examples:
  retrograd data
  retrograd data list ptbword
  retrograd data fetch jsb
  retrograd data fetch psmnist --dir data
  retrograd data fetch ptb/ptb.train.txt --url https://example.org/ptb.train.txt
  retrograd data fetch ptbword --url https://example.org/simple-examples/";

/// Arguments of `retrograd data`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Folder with the data files [default: RETROGRAD_DATA, else the places that `list` names]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what tasks need, where it is published, under which license, and what is here (this is the default)
    List {
        /// A task; all of them if left out
        task: Option<String>,
    },
    /// Download what a task needs, over HTTPS; continues where an earlier attempt was cut, checks every file
    Fetch {
        /// A task, a file as `list` names it, or `all` for everything that is free
        what: String,
        /// Where to get it instead: address of the file, or of a folder of such files if it ends in `/`
        #[arg(long)]
        url: Option<String>,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args, out: &Output) -> Result<Report> {
    let dir = args.dir.as_deref();
    match &args.action {
        None => list(None, dir, out),
        Some(Action::List { task }) => list(task.as_deref(), dir, out),
        Some(Action::Fetch { what, url }) => fetch(what, url.as_deref(), dir, out),
    }
}

fn list(task: Option<&str>, dir: Option<&Path>, out: &Output) -> Result<Report> {
    let tasks: Vec<&TaskEntry> = match task {
        Some(name) => vec![retrograd_datasets::find(name)?],
        None => TASKS.iter().collect(),
    };
    let places = data_dir::places(dir);
    out.line("task          needs                                    size  here");
    for task in &tasks {
        if task.needs.is_empty() {
            out.line(format!("{:<14}nothing", task.name));
        }
        for (i, path) in task.needs.iter().enumerate() {
            let name = if i == 0 { task.name } else { "" };
            let here = data_dir::find_any(dir, path).map_or("no".into(), |at| at.display().to_string());
            let folder = || String::from("folder");
            let size = catalog::file(path).map_or_else(folder, |f| size(f.bytes));
            out.line(format!("{name:<14}{path:<35}{size:>10}  {here}"));
        }
    }
    // Files of one source side by side: what is the same for all of them is said once.
    let files: Vec<&DataFile> =
        catalog::FILES.iter().filter(|f| tasks.iter().any(|t| t.needs.contains(&f.path))).collect();
    for group in files.chunk_by(|a, b| (a.source, a.license) == (b.source, b.license)) {
        let names: Vec<&str> = group.iter().map(|f| f.path).collect();
        out.line(format!("\n{}", names.join(", ")));
        out.line(format!("  source   {}", group[0].source));
        out.line(format!("  license  {}", group[0].license));
        match group[0].access {
            Access::Published(_) | Access::PianoRolls(_) => {
                for address in group.iter().flat_map(|f| addresses(f)) {
                    out.line(format!("  fetched  {address}"));
                }
            }
            Access::Manual(why) => out.line(format!("  by hand  {why}")),
        }
    }
    let folders: Vec<&DataFolder> =
        catalog::FOLDERS.iter().filter(|f| tasks.iter().any(|t| t.needs.contains(&f.path))).collect();
    for folder in &folders {
        out.line(format!("\n{}", folder.path));
        out.line(format!("  source   {}", folder.source));
        out.line(format!("  license  {}", folder.license));
        out.line(format!("  by hand  unpack {}", folder.address));
        out.line(format!("  holds    {}", folder.layout));
    }
    if !files.is_empty() || !folders.is_empty() {
        out.line(format!("\nLooked at, in this order: {}", join(&places)));
        out.line(format!("Fetched files go to {}", data_dir::destination(dir).display()));
    }
    let tasks: Vec<Value> =
        tasks.iter().map(|t| json!({ "task": t.name, "summary": t.summary, "needs": t.needs })).collect();
    let files: Vec<Value> = files
        .iter()
        .map(|f| {
            let reason = if let Access::Manual(why) = f.access { Some(why) } else { None };
            json!({
                "file": f.path, "bytes": f.bytes, "sha256": f.sha256, "source": f.source, "license": f.license,
                "addresses": addresses(f), "free": f.is_free(), "by_hand": reason,
                "here": data_dir::find(dir, f.path).ok(),
            })
        })
        .collect();
    let folders: Vec<Value> = folders
        .iter()
        .map(|f| {
            json!({
                "folder": f.path, "layout": f.layout, "source": f.source, "license": f.license, "address": f.address,
                "here": data_dir::find_folder(dir, f.path).ok(),
            })
        })
        .collect();
    let destination = data_dir::destination(dir);
    Ok(Report::new(json!({
        "tasks": tasks, "files": files, "folders": folders, "places": places, "destination": destination,
    })))
}

fn fetch(what: &str, url: Option<&str>, dir: Option<&Path>, out: &Output) -> Result<Report> {
    let files = wanted(what)?;
    if let Some(url) = url
        && files.len() > 1
        && !url.ends_with('/')
    {
        let needs: Vec<&str> = files.iter().map(|f| f.path).collect();
        let reason = format!(
            "one address for {} files ({}); name one file, or a folder ending in `/`",
            files.len(),
            needs.join(", ")
        );
        return Err(Error::config("url", reason));
    }
    let destination = data_dir::destination(dir);
    let (mut results, mut first_error) = (Vec::new(), None);
    for file in &files {
        match fetch_one(file, url, dir, &destination, out) {
            Ok(result) => results.push(result),
            // The other files are fetched all the same.
            Err(error) => {
                if files.len() > 1 {
                    out.line(format!("{}: {error}", file.path));
                }
                first_error.get_or_insert(error);
            }
        }
    }
    if files.is_empty() {
        out.line(format!("`{what}` needs no files"));
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(Report::new(json!({ "destination": destination, "files": results }))),
    }
}

/// The files a task name, a file name or `all` stands for.
fn wanted(what: &str) -> Result<Vec<&'static DataFile>> {
    if what == "all" {
        return Ok(catalog::FILES.iter().filter(|f| f.is_free()).collect());
    }
    if let Some(file) = catalog::file(what) {
        return Ok(vec![file]);
    }
    let task = retrograd_datasets::find(what);
    // Folders come as archives, some of which ask for a registration: they are unpacked by hand.
    let named = |f: &&DataFolder| {
        f.path.trim_end_matches('/') == what.trim_end_matches('/')
            || task.as_ref().is_ok_and(|t| t.needs.contains(&f.path))
    };
    if let Some(folder) = catalog::FOLDERS.iter().find(named) {
        let reason = format!(
            "`{}` is a folder, to be unpacked by hand from {}; expected in it: {}",
            folder.path, folder.address, folder.layout
        );
        return Err(Error::config("fetch", reason));
    }
    let task = task?;
    Ok(task.needs.iter().filter_map(|path| catalog::file(path)).collect())
}

fn fetch_one(
    file: &DataFile,
    url: Option<&str>,
    dir: Option<&Path>,
    destination: &Path,
    out: &Output,
) -> Result<Value> {
    let at = destination.join(file.path);
    // A good copy in another place is as good; one at the destination is checked by the download itself.
    if let Ok(found) = data_dir::find(dir, file.path)
        && found != at
        && fetch::digest(&found)? == file.sha256
    {
        out.line(format!("{}: there already, {}", file.path, found.display()));
        return Ok(json!({ "file": file.path, "path": found, "fetched": false }));
    }
    let url = url.map(|url| match url.ends_with('/') {
        true => format!("{url}{}", file.path.rsplit('/').next().unwrap_or(file.path)),
        false => url.to_string(),
    });
    let bar = bar(file, out);
    let outcome = fetch::fetch_file(file, destination, url.as_deref(), &mut |progress| {
        bar.set_length(progress.total.unwrap_or(file.bytes));
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let (fetched, resumed_at) = match outcome? {
        Outcome::Present => {
            out.line(format!("{}: there already, {}", file.path, at.display()));
            (false, 0)
        }
        Outcome::Fetched { resumed_at } => {
            let resumed = if resumed_at > 0 {
                format!(", continued after {}", size(resumed_at))
            } else {
                String::new()
            };
            out.line(format!(
                "{}: {}{resumed}, checksum right, {}",
                file.path,
                size(file.bytes),
                at.display()
            ));
            (true, resumed_at)
        }
    };
    Ok(json!({ "file": file.path, "path": at, "fetched": fetched, "resumed_at": resumed_at }))
}

/// A progress bar on standard error, hidden where nobody looks.
fn bar(file: &DataFile, out: &Output) -> ProgressBar {
    let visible = !out.json() && std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(file.bytes), target);
    let template = "{prefix} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.set_prefix(file.path);
    bar
}

fn addresses(file: &DataFile) -> &[&'static str] {
    match &file.access {
        Access::Published(addresses) => addresses,
        Access::PianoRolls(address) => std::slice::from_ref(address),
        Access::Manual(_) => &[],
    }
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn join(places: &[PathBuf]) -> String {
    places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
