//! The real kubectl and helm, and the `shoal` under test, as an administrator runs them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::paths::{binary, repository};

/// Runs `kubectl ARGS` in the repository's root; its standard output.
///
/// # Errors
/// When it fails: the message holds its standard error.
pub async fn kubectl(args: &[&str]) -> Result<String> {
    run("kubectl", args, "").await
}

/// `kubectl apply -n NAMESPACE -f -` of `manifest` (YAML).
///
/// # Errors
/// What the API server refuses, in kubectl's words.
pub async fn apply(namespace: &str, manifest: &str) -> Result<String> {
    run("kubectl", &["apply", "-n", namespace, "-f", "-"], manifest).await
}

/// Runs `helm ARGS` in the repository's root; its standard output.
///
/// # Errors
/// When it fails: the message holds its standard error.
pub async fn helm(args: &[&str]) -> Result<String> {
    run("helm", args, "").await
}

/// Runs `shoal ARGS` in the repository's root; its standard output.
///
/// # Errors
/// When it fails: the message holds its standard error.
pub async fn shoal(args: &[&str]) -> Result<String> {
    run(&binary("shoal")?.display().to_string(), args, "").await
}

/// As [`shoal`], with the rights of this kubeconfig.
///
/// # Errors
/// When it fails: the message holds its standard error.
pub async fn shoal_as(kubeconfig: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("shoal")?);
    command.env("KUBECONFIG", kubeconfig);
    answer(command, args, "").await
}

async fn run(program: &str, args: &[&str], input: &str) -> Result<String> {
    answer(Command::new(program), args, input).await
}

async fn answer(mut command: Command, args: &[&str], input: &str) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let words = || args.join(" ");
    let mut child = command
        .args(args.iter().map(OsStr::new))
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} did not start"))?;
    let mut stdin = child.stdin.take().context("standard input was piped")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{program} {}: {}: {}", words(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
