//! Leader election over a `coordination.k8s.io/v1` Lease, by client-go's rules.
//!
//! [`elector`] decides, pure; this file only carries its wishes out. A PUT always carries the resourceVersion that the
//! decision was made on, so of two candidates one is refused. Never trusts the holder's clock: a lease expires when it
//! has not changed for a whole lease duration of our own monotonic clock.

pub mod elector;
#[cfg(test)]
mod races;

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::elector::{Elector, Wish};
use crate::timing::Timing;

/// Where the lease is and who wants it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Unique among the candidates, also after a restart.
    pub identity: String,
}

/// Why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It could not be renewed in time, or somebody else holds it. The process must exit: what it believes is stale.
    #[error("lost the lease {namespace}/{name}")]
    Lost {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// What a candidate knows of its own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lease has not been read yet.
    Unknown,
    /// Somebody else leads, or nobody yet.
    StandsBy,
    /// This candidate leads.
    Leads,
}

/// Acquires the lease, says so through `standing`, renews it until `stop`, then releases it.
///
/// # Errors
/// [`LeaseError::Lost`] once a held lease is lost.
pub async fn lead(
    client: Client,
    candidate: Candidate,
    timing: Timing,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
) -> Result<(), LeaseError> {
    let api: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let mut elector = Elector::new(candidate.identity.clone(), timing);
    loop {
        let attempt = tokio::time::timeout(timing.renew, try_once(&api, &candidate.name, &mut elector));
        match attempt.await {
            Ok(Ok(())) if *standing.borrow() == Standing::Unknown => {
                standing.send_replace(Standing::StandsBy);
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lease = %candidate.name, error = %error, "lease not written"),
            Err(_) => tracing::warn!(lease = %candidate.name, "the API server does not answer"),
        }
        let (led, leads) = (*standing.borrow() == Standing::Leads, elector.leads(Instant::now()));
        if led && !leads {
            return Err(LeaseError::Lost { namespace: candidate.namespace, name: candidate.name });
        }
        if leads && !led {
            standing.send_replace(Standing::Leads);
            tracing::info!(lease = %candidate.name, identity = %candidate.identity, "leading");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(jittered(timing)) => {}
        }
    }
    if let Some(lease) = elector.release(Timestamp::now()) {
        let released = api.replace(&candidate.name, &PostParams::default(), &lease).await;
        if let Err(error) = released {
            tracing::warn!(lease = %candidate.name, error = %error, "lease not released; it will expire");
        }
    }
    Ok(())
}

/// Up to 20 % more than the retry period, so that candidates do not try in step.
fn jittered(timing: Timing) -> std::time::Duration {
    timing.retry.mul_f64(1.0 + rand::random::<f64>() * 0.2)
}

async fn try_once(api: &Api<Lease>, name: &str, elector: &mut Elector) -> Result<(), kube::Error> {
    if !elector.may_skip_reading(Instant::now()) {
        elector.read(api.get_opt(name).await?, Instant::now());
    }
    let sent = Instant::now();
    let written = match elector.wish(name, sent, Timestamp::now()) {
        Wish::Nothing => return Ok(()),
        Wish::Create(lease) => api.create(&PostParams::default(), &lease).await,
        Wish::Replace(lease) => api.replace(name, &PostParams::default(), &lease).await,
    };
    match written {
        Ok(lease) => {
            elector.wrote(lease, sent);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            elector.refused();
            Ok(())
        }
        Err(error) => {
            elector.refused();
            Err(error)
        }
    }
}
