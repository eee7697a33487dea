//! The control plane that this test binary runs beside: clients, tools, namespaces.
//!
//! Acts as the cluster's admin; the operator under test never does ([`operator`]).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;

use crate::inside::RUN_FOLDER;

pub mod audit;
pub mod install;
pub mod namespace;
pub mod nodes;
pub mod operator;
pub mod pods;
pub mod tools;
pub mod wait;

/// A running control plane, as its admin sees it.
pub struct Cluster {
    client: Client,
    run: PathBuf,
}

static CLUSTER: LazyLock<OnceCell<Cluster>> = LazyLock::new(OnceCell::new);

impl Cluster {
    /// The control plane of this test binary, with the CRD installed.
    ///
    /// # Errors
    /// Outside of [`crate::inside::main`], or when the API server refuses the CRD.
    pub async fn get() -> Result<&'static Self> {
        let prepare = async || {
            let cluster = Self::connect().await?;
            install::crd(&cluster).await?;
            Ok(cluster)
        };
        CLUSTER.get_or_try_init(prepare).await
    }

    /// The control plane of this test binary as it came up: nothing is installed.
    ///
    /// # Errors
    /// Outside of [`crate::inside::main`].
    pub async fn connect() -> Result<Self> {
        let run = std::env::var_os(RUN_FOLDER).context("this test must be started by inside::main")?;
        Ok(Self { client: client(&PathBuf::from(&run).join("admin.kubeconfig")).await?, run: run.into() })
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client with every right that tries nothing twice: what is refused for now is refused.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn impatient_client(&self) -> Result<Client> {
        let mut config = config(&self.run.join("admin.kubeconfig")).await?;
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// The scratch folder; it vanishes with the cluster.
    #[must_use]
    pub fn run_folder(&self) -> &Path {
        &self.run
    }

    /// Every request that the API server answered.
    #[must_use]
    pub fn audit(&self) -> audit::AuditLog {
        audit::AuditLog::new(self.run.join("logs/audit.log"))
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::try_from(config(kubeconfig).await?)?)
}

async fn config(kubeconfig: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
