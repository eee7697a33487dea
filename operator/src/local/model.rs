//! One model of `up`: its revision, its processes, its addresses, and the pass that brings them together.
//!
//! Never decides which groups exist: the rollout does, from the process table.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

use super::address::{AddressError, Addresses, Claim};
use super::command::{LocalCommand, Table, hostname};
use super::forwarder::Forwarder;
use super::localize::{LocalizeError, substitute};
use super::ports;
use super::process::{Change, Event, Process, Surroundings};
use super::share;
use super::table::{ProcessTable, Row, RowState};
use crate::controller::build;
use crate::controller::plan::Revision;
use crate::controller::rollout::{self, Budget, Decision, Step, Target};
use crate::crd::{RecoveryWishes, Rollout};
use crate::names::{Epoch, GroupId, GroupIndex};
use crate::timing::Timing;

/// Losses before a model was ever ready after which it is given up: one may be bad luck with a port.
const MAX_FAILED_STARTS: u32 = 2;
/// Why a model cannot be served here.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A pod that no process can be.
    #[error(transparent)]
    Localize(#[from] LocalizeError),
    /// The model's files are not here.
    #[error("{written} is {}, which does not exist; --model-root DIR says where model paths begin", .here.display())]
    NoSource {
        /// As in the manifest.
        written: String,
        /// Where it was looked for.
        here: PathBuf,
    },
    /// A pod did not start.
    #[error("cannot start {program}", program = .program.display())]
    Start {
        /// What was to run.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No loopback port is left.
    #[error("no free port")]
    Ports(#[source] io::Error),
    /// An address that was asked for cannot be had.
    #[error("cannot listen on {address} for {name}/{port}")]
    Listen {
        /// The model.
        name: String,
        /// Name of the Service's port.
        port: String,
        /// As asked.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name's file cannot be written.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The cap of its spec never admits one of its groups.
    #[error("{name}: a group has {shards} shards; rollout.maxAccelerators is {most}")]
    CapTooSmall {
        /// The model.
        name: String,
        /// Shards of one group.
        shards: u32,
        /// The cap.
        most: i32,
    },
    /// Its workers end before they are ready.
    #[error("{0} does not start: its workers ended {MAX_FAILED_STARTS} times before it was ready")]
    GivenUp(String),
}

/// What is to be served.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What its pods are built from.
    pub revision: Revision,
    /// Groups.
    pub replicas: u32,
    /// The budgets of the spec.
    pub rollout: Rollout,
    /// How its lost groups come back.
    pub recovery: RecoveryWishes,
}

/// What all models of this `up` share.
#[derive(Debug)]
pub struct Site {
    /// The executable that stands for the image.
    pub worker: PathBuf,
    /// Where model paths begin.
    pub model_root: Option<PathBuf>,
    /// emptyDir volumes.
    pub volumes: PathBuf,
    /// Compute threads of a worker whose manifest asks for no CPU.
    pub threads: u32,
    /// What processes need.
    pub around: Surroundings,
}

/// Something to tell the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// All groups are ready, for the first time or again.
    Ready(String),
    /// Anything else.
    Progress(String),
}

/// One served model.
#[derive(Debug)]
pub struct Model {
    name: String,
    wanted: Wanted,
    service: Service,
    table: ProcessTable,
    forwarders: BTreeMap<String, (ServicePort, Forwarder)>,
    /// `None`: given up.
    claim: Option<Claim>,
    is_ready: bool,
    was_ready: bool,
}

impl Model {
    /// Takes the name and the addresses; starts nothing yet. `published` gives addresses by the name of the port.
    ///
    /// # Errors
    /// [`ModelError::Address`] for a name that is taken, [`ModelError::Listen`] for an address that is,
    /// [`ModelError::CapTooSmall`].
    pub async fn open(
        wanted: Wanted,
        folder: &Path,
        published: &BTreeMap<String, std::net::SocketAddr>,
    ) -> Result<Self, ModelError> {
        let owner = &wanted.revision.spec.owner;
        let name = owner.name.to_string();
        let shards = wanted.revision.shards;
        if let Some(most) = wanted.rollout.max_accelerators.filter(|most| u32::try_from(*most).unwrap_or(0) < shards) {
            return Err(ModelError::CapTooSmall { name, shards, most });
        }
        let claim = Claim::new(folder, &name)?;
        let service = build::services(owner, false).client;
        let mut forwarders = BTreeMap::new();
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let port_name = port.name.clone().unwrap_or_default();
            let any = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
            let address = published.get(&port_name).copied().unwrap_or(any);
            let forwarder = Forwarder::bind(address).await.map_err(|source| {
                let (name, port) = (name.clone(), port_name.clone());
                ModelError::Listen { name, port, address, source }
            })?;
            forwarders.insert(port_name, (port.clone(), forwarder));
        }
        let table = ProcessTable::default();
        Ok(Self { name, wanted, service, table, forwarders, claim: Some(claim), is_ready: false, was_ready: false })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of its Service's ports.
    pub fn ports(&self) -> impl Iterator<Item = &String> {
        self.forwarders.keys()
    }

    /// The pods of its first group as commands, to be refused before anything starts.
    ///
    /// # Errors
    /// [`ModelError::Localize`] and [`ModelError::NoSource`].
    pub fn rehearse(&self, site: &Site) -> Result<Vec<LocalCommand>, ModelError> {
        let first = GroupId { index: GroupIndex(0), epoch: Epoch::FIRST };
        let pods = build::group(&self.wanted.revision, first).pods;
        let commands = localize(&self.wanted.revision, &pods, site)?;
        for (written, here) in commands.iter().flat_map(|command| &command.sources) {
            if !here.exists() {
                return Err(ModelError::NoSource { written: written.clone(), here: here.clone() });
            }
        }
        Ok(commands)
    }

    /// Takes in what happened to one of its pods; `None` when the pod is another model's.
    pub fn apply(&mut self, event: &Event, now: Timestamp) -> Option<Vec<Notice>> {
        let unexpected = self.table.is_running(&event.pod);
        if !self.table.apply(event, now) {
            return None;
        }
        Some(match &event.change {
            Change::Ended(how) if unexpected => vec![Notice::Progress(format!("lost {}: {how}", event.pod))],
            _ => vec![],
        })
    }

    /// Lets the rollout decide and carries its steps out, until nothing is left to do now. Returns what to tell, and
    /// when to look again though nothing happened.
    ///
    /// # Errors
    /// [`ModelError`], when a pod cannot be started or the model never becomes ready.
    pub async fn pass(&mut self, site: &Site, now: Timestamp) -> Result<(Vec<Notice>, Option<Timestamp>), ModelError> {
        let mut notices = Vec::new();
        let decision = loop {
            let decision = rollout::step(&self.table.observed(), &self.target(), &self.budget(), now);
            self.table.remember(&decision);
            let failed = decision.recovery.iter().any(|memory| memory.streak >= MAX_FAILED_STARTS);
            if failed && !self.was_ready {
                return Err(ModelError::GivenUp(self.name.clone()));
            }
            if !decision.acts() {
                break decision;
            }
            self.carry_out(&decision, (site, now), &mut notices).await?;
        };
        self.refresh(&mut notices)?;
        Ok((notices, decision.look_again()))
    }

    async fn carry_out(
        &mut self,
        decision: &Decision,
        (site, now): (&Site, Timestamp),
        notices: &mut Vec<Notice>,
    ) -> Result<(), ModelError> {
        for step in &decision.steps {
            match step {
                Step::CreateGroup { index, epoch, .. } => {
                    self.create((*index, *epoch), site, notices).await?;
                    self.table.note_formed((*index, *epoch), now);
                }
                Step::RemoveGroup { index, epoch, .. } => {
                    notices.push(Notice::Progress(format!("{}: {step}", self.name)));
                    self.table.remove_group((*index, *epoch));
                }
                Step::Wait { .. } => {}
            }
        }
        Ok(())
    }

    async fn create(
        &mut self,
        (index, epoch): (u32, u64),
        site: &Site,
        notices: &mut Vec<Notice>,
    ) -> Result<(), ModelError> {
        let group = GroupId { index: GroupIndex(index), epoch: Epoch(epoch) };
        let pods = build::group(&self.wanted.revision, group).pods;
        for (rank, (pod, command)) in pods.iter().zip(localize(&self.wanted.revision, &pods, site)?).enumerate() {
            let name = hostname(pod).to_owned();
            let started = Process::start(&name, &command, &site.around).await;
            let process = started.map_err(|source| ModelError::Start { program: command.program.clone(), source })?;
            notices.push(Notice::Progress(format!("started {name} pid={}", process.pid())));
            let row = Row {
                group: (index, epoch),
                revision: self.wanted.revision.hash.to_string(),
                rank,
                labels: pod.metadata.labels.clone().unwrap_or_default(),
                ports: command.ports,
                state: RowState::Running,
                process,
            };
            self.table.insert(name, row);
        }
        Ok(())
    }

    /// Points the addresses at the pods that are ready now, and says so when all groups are.
    fn refresh(&mut self, notices: &mut Vec<Notice>) -> Result<(), ModelError> {
        let empty = BTreeMap::new();
        let selector = self.service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).unwrap_or(&empty);
        for (port, forwarder) in self.forwarders.values() {
            forwarder.set_targets(self.table.endpoints(selector, port));
        }
        let ready = self.table.ready_groups() >= self.wanted.replicas as usize;
        if ready && !self.is_ready {
            let addresses = self.addresses();
            if let (Some(claim), Some(addresses)) = (&mut self.claim, &addresses) {
                claim.publish(addresses)?;
            }
            self.was_ready = true;
            notices.push(Notice::Ready(self.ready_line(addresses.as_ref())));
        }
        self.is_ready = ready;
        Ok(())
    }

    fn addresses(&self) -> Option<Addresses> {
        let of = |name: &str| self.forwarders.get(name).map(|(_, forwarder)| forwarder.address());
        Some(Addresses { grpc: of("grpc")?, http: of("http") })
    }

    fn ready_line(&self, addresses: Option<&Addresses>) -> String {
        let grpc = addresses.map(|addresses| format!(" grpc={}", addresses.grpc)).unwrap_or_default();
        let http = addresses.and_then(|addresses| addresses.http);
        let http = http.map(|http| format!(" http={http}")).unwrap_or_default();
        format!("ready {}{grpc}{http} shards={}", self.name, self.wanted.revision.shards)
    }

    /// Lets go of its name and addresses, and lets what is left of its processes drain; nothing starts any more.
    pub fn give_up(&mut self) {
        self.claim = None;
        self.stop();
    }

    /// Whether it was given up.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.claim.is_none()
    }

    /// Takes no new connections and lets every process drain.
    pub fn stop(&mut self) {
        self.forwarders.clear();
        self.table.stop_all();
    }

    /// Ends every process at once.
    pub fn kill(&mut self) {
        self.table.kill_all();
    }

    /// Whether no process is left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.table.is_empty()
    }

    fn target(&self) -> Target {
        let revision = &self.wanted.revision;
        Target {
            revision: revision.hash.to_string(),
            replicas: self.wanted.replicas,
            shards: revision.shards as usize,
            serving: None,
        }
    }

    fn budget(&self) -> Budget {
        // A person who starts a model wants it: there is no rollout that could be paused.
        let rollout = Rollout { paused: false, ..self.wanted.rollout.clone() };
        Budget::new(&rollout, &self.wanted.recovery, &Timing::default(), Duration::ZERO)
    }
}

fn localize(revision: &Revision, pods: &[Pod], site: &Site) -> Result<Vec<LocalCommand>, ModelError> {
    let table = Table {
        worker: site.worker.clone(),
        model_root: site.model_root.clone(),
        volumes: site.volumes.clone(),
        ports: ports::allocate(pods).map_err(ModelError::Ports)?,
        threads: (!share::asks_for_cpu(revision)).then_some(site.threads),
    };
    Ok(pods.iter().map(|pod| substitute(pod, &table)).collect::<Result<_, _>>()?)
}
