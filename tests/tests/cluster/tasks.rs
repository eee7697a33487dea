//! `docs/tasks.md`, typed: every command of the page in its order, and what it prints beside what the page shows.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shoal_tests::cluster::install::Mode;
use shoal_tests::paths::{binary, repository};
use tokio::process::Command;

use super::bench::{Bench, with_operator};

const PAGE: &str = "docs/tasks.md";
const PATIENCE: Duration = Duration::from_secs(120);

/// What the page says, and what the test types and expects instead, each with its reason.
const INSTEAD: [(&str, &str, &str); 5] = [
    ("NAME", "tiny", "the sample"),
    ("model.yaml", "manifests/tiny-cpu.yaml", "the sample"),
    ("--create-namespace", "--create-namespace --set crd.install=false", "the tests have installed the definition"),
    ("delete crd", "delete --dry-run=server crd", "other tests still use the definition"),
    ("=10m", "=60s", "fake nodes are fast"),
];
/// What is not typed here, and where it is.
const ELSEWHERE: [(&str, &str); 3] = [
    ("kubectl drain ", "here it would drain what other tests run on: disruption.rs drains a node of its own"),
    ("shoal logs NAME --follow", "fake nodes keep no logs and it never ends: tests/tests/node.rs follows a real group"),
    ("shoal up ", "it never ends: tests/tests/local.rs serves and asks with it"),
];

/// A command of the page, and the lines below it.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    line: usize,
    command: String,
    shown: Vec<String>,
}

/// The commands in the `console` blocks.
fn tasks(page: &str) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut inside = false;
    for (line, text) in (1..).zip(page.lines()) {
        if text.starts_with("```") {
            inside = text == "```console";
        } else if let Some(command) = text.strip_prefix("$ ").filter(|_| inside) {
            tasks.push(Task { line, command: command.to_owned(), shown: Vec::new() });
        } else if let Some(task) = tasks.last_mut().filter(|_| inside) {
            task.shown.push(text.to_owned());
        }
    }
    tasks
}

fn instead(text: &str) -> String {
    // Columns of kubectl are called NAME too.
    let is_head =
        text.contains("READY") || text.contains("TYPE") || text.contains("MIN AVAILABLE") || text == "NAME: shoal";
    let pairs = INSTEAD.iter().filter(|(page, ..)| !(is_head && *page == "NAME"));
    pairs.fold(text.to_owned(), |text, (page, here, _)| text.replace(page, here))
}

/// Whether the lines are those shown: `…` in a line stands for any text, alone for any number of lines.
fn same(shown: &[String], found: &[&str]) -> bool {
    match (shown.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((wild, rest)), _) if wild == "…" => {
            same(rest, found) || found.split_first().is_some_and(|(_, less)| same(shown, less))
        }
        (Some((line, rest)), Some((there, others))) => fits(line, there) && same(rest, others),
        _ => false,
    }
}

/// Runs of blanks count as one: they align columns.
fn fits(shown: &str, found: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, found) = (plain(shown), plain(found));
    let mut parts = shown.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

async fn type_in(bench: &Bench<'_>, kubeconfig: &Path, command: &str) -> Result<String> {
    let shoal = binary("shoal")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", shoal.parent().context("a folder")?.display());
    // One stream, as on a terminal.
    let script = format!("exec 2>&1\n{command}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(repository()).env("PATH", path).env("KUBECONFIG", kubeconfig);
    let run = bash.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, run).await.context("it hangs")??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {said} (namespace {})", output.status, bench.namespace);
    Ok(said)
}

/// The admin's kubeconfig with this test's namespace, as `kubectl config set-context --namespace` makes it.
fn kubeconfig(bench: &Bench<'_>) -> Result<std::path::PathBuf> {
    let text = std::fs::read_to_string(bench.cluster.run_folder().join("admin.kubeconfig"))?;
    let mut config: serde_json::Value = serde_yaml::from_str(&text)?;
    config["contexts"][0]["context"]["namespace"] = bench.namespace.into();
    let path = bench.cluster.run_folder().join("tasks.kubeconfig");
    std::fs::write(&path, serde_yaml::to_string(&config)?)?;
    Ok(path)
}

pub(crate) async fn every_command_of_the_page_prints_what_the_page_shows() -> Result<()> {
    let page = std::fs::read_to_string(repository().join(PAGE))?;
    let tasks = tasks(&page);
    ensure!(tasks.len() >= 30, "only {} commands are on the page", tasks.len());
    for (page, ..) in INSTEAD {
        ensure!(tasks.iter().any(|task| task.command.contains(page)), "{page:?} is on no line any more");
    }
    for (page, _) in ELSEWHERE {
        ensure!(tasks.iter().any(|task| task.command.starts_with(page)), "{page:?} is on no line any more");
    }
    with_operator(Mode::Cluster, async |bench| {
        let kubeconfig = kubeconfig(bench)?;
        let mut wrong = Vec::new();
        for task in &tasks {
            if ELSEWHERE.iter().any(|(page, _)| task.command.starts_with(page)) {
                continue;
            }
            // One mistake does not hide the next.
            if let Err(error) = check(bench, &kubeconfig, task).await {
                wrong.push(format!("{PAGE}:{}: {error:#}", task.line));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        Ok(())
    })
    .await
}

async fn check(bench: &Bench<'_>, kubeconfig: &Path, task: &Task) -> Result<()> {
    let fails = task.shown.first().is_some_and(|line| line.starts_with("error: "));
    let command = instead(&task.command);
    let command = if fails { format!("! {command}") } else { command };
    let said = type_in(bench, kubeconfig, &command).await.with_context(|| command.clone())?;
    let shown: Vec<_> = task.shown.iter().filter(|line| !line.is_empty()).map(|line| instead(line)).collect();
    let found: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    if !shown.is_empty() && !same(&shown, &found) {
        bail!("{command}\nshould print\n{}\nbut prints\n{said}", shown.join("\n"));
    }
    Ok(())
}

pub(crate) async fn the_comparison_takes_wildcards_and_nothing_else() -> Result<()> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (shown, found, wanted) in [
        ("a\n…\nc", "a\nb\nb\nc", true),
        ("a\n…\nc", "a\nc", true),
        ("a\n…\nc", "a\nb", false),
        ("a", "a\nb", false),
        ("pod …-r1 deleted…", "pod x-r1 deleted from y", true),
        ("pod …-r1 deleted", "pod x-r1 deleted from y", false),
        ("a …1/1 …", "a   True   1/1  3s", true),
        ("a …1/1 …", "a   True   0/1  3s", false),
    ] {
        let found: Vec<_> = found.lines().collect();
        ensure!(same(&lines(shown), &found) == wanted, "{shown:?} and {found:?}");
    }
    let page = "```console\n$ a   # b\nc\n```\n$ d\n```console\n$ e\n```";
    let commands: Vec<_> = tasks(page).into_iter().map(|task| (task.line, task.command, task.shown.len())).collect();
    ensure!(commands == [(2, "a   # b".to_owned(), 1), (7, "e".to_owned(), 0)], "{commands:?}");
    Ok(())
}
