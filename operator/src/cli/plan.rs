//! `shoal plan`: what would run where, and why.
//!
//! Never creates anything; `--write` changes the manifest only.

mod answer;
mod nodes;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::status::Output;
use crate::controller::validate::{ModelSource, Rejection};
use crate::crd::ModelDeployment;
use crate::inventory::Catalogue;
use crate::inventory::catalogue::CatalogueError;
use crate::manifest::{self, ManifestError, WriteError};
use crate::shape::folder::{self, FolderError};

pub(super) use self::answer::describe;
use self::answer::{Answer, ModelAnswer};
pub use self::nodes::NodesError;

/// Shows what would run where, and why.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Manifest; may be given more than once
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Output of `kubectl get nodes -o yaml` [default: the current kube context, else this machine]
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// GPUs to know beside the built-in ones: a list of {product, memoryGiB, bandwidthGBps, bf16Tflops}
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Read the model's files and write spec.model.shape into the manifest
    #[arg(long)]
    write: bool,
    /// Where model paths begin on this machine: file:///P is DIR/P, pvc://C/P is DIR/C/P
    #[arg(long, value_name = "DIR", default_value = "/")]
    model_root: PathBuf,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The nodes cannot be read.
    #[error(transparent)]
    Nodes(#[from] NodesError),
    /// The source is refused or has no files here.
    #[error("{name} is not accepted")]
    Rejected {
        /// Name of the model.
        name: String,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// `--write` for a source that no folder holds.
    #[error("{0} has no files on this machine; --write takes file:// and pvc:// sources")]
    NoFiles(ModelSource),
    /// The model's files give no sizes.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The manifest cannot be edited.
    #[error("cannot write {path}")]
    Write {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// The catalogue cannot be read.
    #[error("cannot read {path}")]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CatalogueError,
    },
    /// The answer cannot be put into JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    /// The answer cannot be put into YAML.
    #[error("cannot write YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// A file cannot be read, or a file or standard output cannot be written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// At least one manifest is not accepted.
    #[error("{0} of the models cannot run as written")]
    Refused(usize),
}

/// Runs `shoal plan`.
///
/// # Errors
/// [`PlanError`]; plans made before it have been printed.
pub async fn run(args: PlanArgs) -> Result<(), PlanError> {
    if args.write {
        args.files.iter().try_for_each(|path| write_shapes(path, &args.model_root))?;
    }
    let objects = manifest::read(&args.files)?;
    let catalogue = args.catalogue.as_deref().map_or_else(|| Ok(Catalogue::default()), catalogue)?;
    let (inventory, origin) = nodes::inventory(args.nodes.as_deref(), &catalogue).await?;
    let models = objects.iter().map(|object| ModelAnswer::of(object, &inventory)).collect();
    let answer = Answer { nodes: origin, models };
    let text = match args.output {
        Output::Table => answer.to_string(),
        Output::Json => serde_json::to_string_pretty(&answer)? + "\n",
        Output::Yaml => manifest::to_yaml(&answer)?,
    };
    let failed = |source| PlanError::Io { doing: "write", path: "standard output".into(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)?;
    match answer.models.iter().filter(|model| !model.can_run()).count() {
        0 => Ok(()),
        refused => Err(PlanError::Refused(refused)),
    }
}

fn catalogue(path: &Path) -> Result<Catalogue, PlanError> {
    let failed = |source| PlanError::Io { doing: "read", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Catalogue::extended(&text).map_err(|source| PlanError::Catalogue { path: path.to_owned(), source })
}

/// Every shape is read before the file is written: a failure changes nothing.
fn write_shapes(path: &Path, root: &Path) -> Result<(), PlanError> {
    let objects = manifest::read(&[path.to_owned()])?;
    let failed = |doing| move |source| PlanError::Io { doing, path: path.to_owned(), source };
    let mut text = std::fs::read_to_string(path).map_err(failed("read"))?;
    for (index, object) in objects.iter().enumerate() {
        let shape = folder::shape(&model_folder(object, root)?)?;
        text = manifest::with_shape(&text, index, &shape)
            .map_err(|source| PlanError::Write { path: path.to_owned(), source })?;
    }
    std::fs::write(path, text).map_err(failed("write"))
}

fn model_folder(object: &ModelDeployment, root: &Path) -> Result<PathBuf, PlanError> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let source = ModelSource::parse(&object.spec.model.source)
        .map_err(|source| PlanError::Rejected { name, source: source.into() })?;
    match &source {
        ModelSource::File { path } => Ok(root.join(path.trim_start_matches('/'))),
        ModelSource::Claim { claim, path } => Ok(root.join(claim).join(path)),
        _ => Err(PlanError::NoFiles(source)),
    }
}
