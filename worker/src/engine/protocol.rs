//! The asynchronous side of an engine: links, server, monitor, probe and drain, on a runtime of their own. Never computes.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::drain::drain;
use super::fault::Fault;
use super::probe::probe;
use super::request::Submission;
use super::start::spawn;
use super::{EngineError, GroupConfig};
use crate::shards::group::Group;
use crate::shards::heartbeat::monitor;
use crate::shards::link::Link;
use crate::shards::parcel::Parcel;
use crate::shards::server::{Served, ShardService, serve};
use crate::shards::tls::Tls;

/// Threads of the shard protocol's runtime: streams encode on one while heartbeats go on the other.
const PROTOCOL_THREADS: usize = 2;

/// What is to run.
pub(super) struct Protocol {
    pub(super) group: Arc<Group>,
    /// What a test wants broken.
    pub(super) fault: Option<Fault>,
    links: Vec<(Link, mpsc::Receiver<Vec<Parcel>>)>,
    server: Option<(std::net::TcpListener, Served)>,
    tls: Option<Tls>,
    /// Of whoever takes requests.
    probe_token: Option<u32>,
}

impl Protocol {
    /// For a group of one until links and a server are added.
    pub(super) fn new(group: Arc<Group>, tls: Option<Tls>, fault: Option<Fault>, probe_token: Option<u32>) -> Self {
        Self { group, fault, links: vec![], server: None, tls, probe_token }
    }

    /// A link to every peer, with room for `room` batches of frames each; by rank.
    pub(super) fn link(&mut self, place: &GroupConfig, room: usize) -> Vec<(u32, mpsc::Sender<Vec<Parcel>>)> {
        let peers = (0..).zip(&place.peers).filter(|(rank, _)| *rank != place.rank);
        let one = |(rank, address): (u32, &String)| {
            let (keep, work) = mpsc::channel(room);
            let (group, address, tls) = (Arc::clone(&self.group), address.clone(), self.tls.clone());
            self.links.push((Link { group, rank, address, tls, keep: keep.clone() }, work));
            (rank, keep)
        };
        peers.map(one).collect()
    }

    /// Takes the shard port, at which `served` will answer.
    ///
    /// # Errors
    /// [`EngineError::Listen`], or [`EngineError::Group`] for a place that is none.
    pub(super) fn listen(&mut self, place: &GroupConfig, served: Served) -> Result<(), EngineError> {
        let size = place.placement.size();
        if place.peers.len() != size || place.rank as usize >= size {
            let text = format!("rank {} of {} peers does not fit a placement of {size}", place.rank, place.peers.len());
            return Err(EngineError::Group(text));
        }
        let failed = |source| EngineError::Listen { address: place.listen, source };
        let listener = std::net::TcpListener::bind(place.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        self.server = Some((listener, served));
        Ok(())
    }

    /// Runs everything on a runtime of its own, so that a busy front never delays a heartbeat.
    pub(super) fn run(self, submissions: mpsc::WeakSender<Submission>) -> Result<(), EngineError> {
        let what = "the shard protocol's runtime";
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(PROTOCOL_THREADS)
            .thread_name("shoal-shards")
            .enable_all()
            .build()
            .map_err(|source| EngineError::Thread { what, source })?;
        spawn("shoal-protocol", move || runtime.block_on(self.work(submissions)))
    }

    async fn work(self, submissions: mpsc::WeakSender<Submission>) {
        let group = self.group;
        if let Some((listener, served)) = self.server {
            let service = ShardService { group: Arc::clone(&group), served };
            tokio::spawn(async move {
                let group = Arc::clone(&service.group);
                let result = match TcpListener::from_std(listener) {
                    Ok(listener) => serve(service, listener, self.tls).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = result {
                    group.fail(&format!("the shard port failed: {error}"));
                }
            });
            tokio::spawn(monitor(Arc::clone(&group)));
        }
        for (link, work) in self.links {
            tokio::spawn(link.run(work));
        }
        if let Some(token) = self.probe_token {
            tokio::spawn(probe(Arc::clone(&group), submissions, token));
        }
        drain(group, self.fault).await;
    }
}
