//! `shoal plan`: what would run where, and why.
//!
//! Never creates anything; `--write` changes the manifest only.

mod nodes;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::controller::plan::{Plan, plan};
use crate::controller::validate::{ModelSource, Rejection, validate};
use crate::crd::ModelDeployment;
use crate::manifest::{self, ManifestError, WriteError};
use crate::shape::folder::{self, FolderError};

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
    /// A file or standard output cannot be written.
    #[error("cannot write {path}")]
    Output {
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
    let (inventory, origin) = nodes::inventory(args.nodes.as_deref()).await?;
    let mut refused = 0;
    let mut text = format!("nodes: {origin}\n");
    for object in &objects {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match validate(object) {
            Ok(spec) => {
                let supported = spec.supported();
                let plan = plan(&spec, &inventory);
                let accepted = supported.as_ref().map_or_else(Rejection::reason, |()| "Accepted");
                refused += usize::from(supported.is_err() || !plan.verdict.reason.permits_pods());
                text += &describe(name, accepted, supported.err(), &plan);
            }
            Err(rejection) => {
                refused += 1;
                text += &format!("\n{name}: Accepted=False/{}: {rejection}\n", rejection.reason());
            }
        }
    }
    let failed = |source| PlanError::Output { path: "standard output".into(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)?;
    if refused > 0 { Err(PlanError::Refused(refused)) } else { Ok(()) }
}

/// One plan as text: its summary, then its reasons.
pub(super) fn describe(name: &str, accepted: &str, why: Option<Rejection>, plan: &Plan) -> String {
    let mut text = format!("\n{name}: {}\n", plan.summary());
    if let Some(rejection) = why {
        text += &format!("  Accepted=False/{accepted}: {rejection}\n");
    }
    let planned = if plan.verdict.reason.permits_pods() { "True" } else { "False" };
    text += &format!("  Planned={planned}/{}: {}\n", plan.verdict.reason.as_str(), plan.verdict.message);
    for line in &plan.arithmetic {
        text += &format!("    {line}\n");
    }
    for (layout, reason) in &plan.rejected {
        text += &format!("  not {layout}: {reason}\n");
    }
    text
}

/// Every shape is read before the file is written: a failure changes nothing.
fn write_shapes(path: &Path, root: &Path) -> Result<(), PlanError> {
    let objects = manifest::read(&[path.to_owned()])?;
    let output = |source| PlanError::Output { path: path.to_owned(), source };
    let mut text = std::fs::read_to_string(path).map_err(output)?;
    for (index, object) in objects.iter().enumerate() {
        let shape = folder::shape(&model_folder(object, root)?)?;
        text = manifest::with_shape(&text, index, &shape)
            .map_err(|source| PlanError::Write { path: path.to_owned(), source })?;
    }
    std::fs::write(path, text).map_err(output)
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
