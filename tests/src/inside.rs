//! Test binaries that run beside a cluster: they re-execute themselves inside its namespaces, then run their tests there.
//!
//! One control plane (or node) serves the whole binary and dies with it. Nothing here knows what is tested.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

use crate::paths::repository;
use crate::require::skip_or_fail;

/// Set by the scripts for what they run: the scratch folder, hence also "already inside".
pub const RUN_FOLDER: &str = "CLUSTER_RUN";

/// What a test binary must run beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A control plane with fake nodes.
    ControlPlane,
    /// A real kubelet with containerd; only root can run one.
    Node,
}

impl World {
    fn script(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
        }
    }

    /// The word in `SHOAL_REQUIRE` that makes a skip a failure.
    fn word(self) -> &'static str {
        match self {
            Self::ControlPlane => "cluster",
            Self::Node => "node",
        }
    }

    /// On a control plane tests mostly wait: more of them at once than there are cores. A node's cores do the work, and
    /// its chart is there once: one after another, in the order in which they are listed.
    fn tests_at_once(self) -> usize {
        match self {
            Self::ControlPlane => 4,
            Self::Node => 1,
        }
    }

    /// Why this machine cannot run it, or `None`. Builds the cluster's binaries when they are not there yet.
    fn missing(self) -> Option<String> {
        if !cfg!(target_os = "linux") {
            return Some("not Linux: there are no network and pid namespaces".into());
        }
        let of_the_node = (self == Self::Node).then(node_missing).flatten();
        of_the_node.or_else(namespaces_refused).or_else(binaries_missing)
    }
}

fn node_missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root: containerd and kubelet need real privileges".into());
    }
    let absent = absent_commands(&["containerd", "runc", "nft", "conntrack", "buildah"]);
    if !absent.is_empty() {
        return Some(format!("not installed: {}", absent.join(", ")));
    }
    let made = ["target/venv/bin/python", "target/images/shoal-worker.tar", "target/images/pause.tar"];
    let unmade = made.into_iter().find(|file| !repository().join(file).exists());
    unmade.map(|file| format!("no {file}: `make test` makes it"))
}

fn absent_commands(names: &[&'static str]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    names.iter().copied().filter(|name| !folders.iter().any(|folder| folder.join(name).exists())).collect()
}

fn namespaces_refused() -> Option<String> {
    match Command::new(script("enter")).arg("probe").output() {
        Ok(probe) if probe.status.success() => None,
        Ok(probe) => Some(format!("no namespaces here: {}", String::from_utf8_lossy(&probe.stderr).trim())),
        Err(error) => Some(format!("no namespaces here: {error}")),
    }
}

fn binaries_missing() -> Option<String> {
    match Command::new(script("build")).status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("tests/cluster/build.sh ended with {status}")),
        Err(error) => Some(format!("tests/cluster/build.sh did not start: {error}")),
    }
}

fn script(name: &str) -> PathBuf {
    repository().join("tests/cluster").join(format!("{name}.sh"))
}

/// One test: its name as printed, and its body.
pub struct Test {
    /// The function's path, as libtest would print it.
    pub name: &'static str,
    /// Starts the body; called once.
    pub body: fn() -> LocalBoxFuture<'static, Result<()>>,
}

/// Lists async test functions by path: `tests![basics::a_pod_becomes_ready, …]`.
#[macro_export]
macro_rules! tests {
    ($($test:path),* $(,)?) => {
        vec![$($crate::inside::Test { name: stringify!($test), body: || Box::pin($test()) }),*]
    };
}

/// The `main` of a test binary that runs beside `world`; understands cargo test's usual arguments.
///
/// # Errors
/// When the namespaces cannot be entered, or the runtime inside cannot start.
pub fn main(world: World, tests: Vec<Test>) -> Result<ExitCode> {
    main_and_then(world, tests, Vec::new())
}

/// As [`main`]; `last` run when all of `tests` have, since they judge what those did. A filter leaves them out, loudly.
///
/// # Errors
/// As [`main`].
pub fn main_and_then(world: World, tests: Vec<Test>, last: Vec<Test>) -> Result<ExitCode> {
    main_within(TEST_DEADLINE, world, tests, last)
}

/// As [`main_and_then`], for tests that may each take as long as `deadline`.
///
/// # Errors
/// As [`main`].
pub fn main_within(deadline: Duration, world: World, tests: Vec<Test>, last: Vec<Test>) -> Result<ExitCode> {
    let arguments = Arguments::from_args();
    if arguments.list || std::env::var_os(RUN_FOLDER).is_some() {
        let whole = arguments.filter.is_none() && arguments.skip.is_empty();
        if !whole {
            last.iter().for_each(|test| eprintln!("skipped: {}: not all tests run", test.name));
        }
        let conclusion = run((world, deadline), arguments.clone(), tests)?;
        let judged =
            if whole && !last.is_empty() { run((world, deadline), arguments, last)?.has_failed() } else { false };
        return Ok(if judged { ExitCode::FAILURE } else { conclusion.exit_code() });
    }
    if let Some(reason) = world.missing() {
        skip_or_fail(world.word(), &reason);
        let ignored = tests.into_iter().map(|test| Trial::test(test.name, || Ok(())).with_ignored_flag(true)).collect();
        return Ok(libtest_mimic::run(&arguments, ignored).exit_code());
    }
    enter(world)
}

/// Replaces this process, so that whoever kills it kills the cluster too.
fn enter(world: World) -> Result<ExitCode> {
    let program = std::env::current_exe().context("the path of this test binary")?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    #[cfg(target_os = "linux")]
    // Cargo waits in the thread that started us, so its death (and nothing earlier) ends the cluster.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let error = Command::new(script("enter")).arg(world.script()).arg(program).args(arguments).exec();
    Err(error).context("tests/cluster/enter.sh did not start")
}

/// A test that waits longer hangs: every wait of its own is far shorter.
const TEST_DEADLINE: Duration = Duration::from_secs(900);

fn run((world, deadline): (World, Duration), mut arguments: Arguments, tests: Vec<Test>) -> Result<Conclusion> {
    arguments.test_threads.get_or_insert(world.tests_at_once());
    let runtime = tokio::runtime::Runtime::new()?;
    let trials = tests
        .into_iter()
        .map(|test| {
            let handle = runtime.handle().clone();
            Trial::test(test.name, move || {
                let outcome = handle.block_on(async { tokio::time::timeout(deadline, (test.body)()).await });
                outcome.context("the test hangs").flatten().map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    Ok(libtest_mimic::run(&arguments, trials))
}
