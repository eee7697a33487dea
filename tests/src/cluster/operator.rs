//! The built `shoal operator` as a child process under the chart's ServiceAccount: started, stopped, killed, restarted.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Cluster;
use super::install::{Install, Mode};
use crate::paths::binary;

/// A running operator that serves one namespace. Dropping it kills it.
pub struct Operator {
    child: Child,
    install: Install,
    log: PathBuf,
}

impl Operator {
    /// Installs the chart's rights into `namespace` and starts an operator that serves that namespace.
    ///
    /// # Errors
    /// When the chart is refused or the binary is not built.
    pub async fn start(cluster: &Cluster, namespace: &str, mode: Mode) -> Result<Self> {
        let install = Install::new(namespace, mode).await?;
        Self::start_with(cluster, &install, &[]).await
    }

    /// Starts an operator for an installed chart, with `env` on top: one more, or one after [`Operator::kill`].
    ///
    /// # Errors
    /// When the token is refused or the binary is not built.
    pub async fn start_with(cluster: &Cluster, install: &Install, env: &[(&str, &str)]) -> Result<Self> {
        let kubeconfig = install.kubeconfig(cluster).await?;
        let log = cluster.run_folder().join("logs").join(format!("operator-{}.log", install.namespace));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        // Every test has an operator of its own, so each serves one namespace whatever its rights are.
        let child = Command::new(binary("shoal")?)
            .arg("operator")
            .env_remove("POD_NAME")
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", &install.namespace)
            .env("SHOAL_NAMESPACE", &install.namespace)
            .env("SHOAL_HTTP", "127.0.0.1:0")
            .env("SHOAL_TIMING_DIVISOR", "20")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("shoal operator did not start")?;
        Ok(Self { child, install: install.clone(), log })
    }

    /// The release whose rights it has.
    #[must_use]
    pub fn install(&self) -> &Install {
        &self.install
    }

    /// Its user, as the audit log names it.
    #[must_use]
    pub fn user(&self) -> String {
        self.install.user()
    }

    /// What it has logged so far, together with earlier operators of the same namespace.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())
    }

    /// Sends `signal`: SIGSTOP and SIGCONT make it miss what happens in between.
    ///
    /// # Errors
    /// When it has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            bail!("the operator ended by itself; its log:\n{}", self.log()?);
        };
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// SIGKILL: it releases nothing.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(mut self) -> Result<Install> {
        self.child.kill().await?;
        Ok(self.install.clone())
    }

    /// SIGTERM, as a rolling update of its Deployment sends it; its exit status.
    ///
    /// # Errors
    /// When it has already ended, or has not ended after 15 seconds.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = tokio::time::timeout(Duration::from_secs(15), self.child.wait()).await;
        Ok(status.context("the operator ignores SIGTERM")??)
    }
}
