//! Probes as kubelet runs them: startup first, then readiness and liveness side by side, each with its period,
//! timeout and thresholds.
//!
//! Never stops a process: a failed probe is reported to whoever holds it.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{GRPCAction, Probe};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// One gRPC health probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSpec {
    /// Where `grpc.health.v1` answers.
    pub address: SocketAddr,
    /// The service asked about; empty is the process.
    pub service: String,
    /// From the start of the process to the first probe.
    pub initial_delay: Duration,
    /// From probe to probe.
    pub period: Duration,
    /// For connecting and answering together.
    pub timeout: Duration,
    /// Successes in a row that turn the result good.
    pub success_threshold: u32,
    /// Failures in a row that turn the result bad.
    pub failure_threshold: u32,
}

impl ProbeSpec {
    /// The numbers of `probe`, with Kubernetes' defaults; where it connects to is the caller's.
    #[must_use]
    pub fn new(address: SocketAddr, grpc: &GRPCAction, probe: &Probe) -> Self {
        let number = |field: Option<i32>, default: u32| field.map_or(default, |n| u32::try_from(n).unwrap_or_default());
        let seconds = |count: u32| Duration::from_secs(count.into());
        Self {
            address,
            service: grpc.service.clone().unwrap_or_default(),
            initial_delay: seconds(number(probe.initial_delay_seconds, 0)),
            period: seconds(number(probe.period_seconds, 10).max(1)),
            timeout: seconds(number(probe.timeout_seconds, 1).max(1)),
            success_threshold: number(probe.success_threshold, 1).max(1),
            failure_threshold: number(probe.failure_threshold, 3).max(1),
        }
    }
}

/// The probes of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// Holds the others back until it succeeds once.
    pub startup: Option<ProbeSpec>,
    /// Without it, a started process is ready.
    pub readiness: Option<ProbeSpec>,
    /// Its failure ends the process.
    pub liveness: Option<ProbeSpec>,
}

/// What a probe changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The pod takes traffic.
    Ready,
    /// It does not, or no longer.
    NotReady,
    /// The process must be ended; the text says which probe failed and how.
    Dead(String),
}

/// Results in a row, turned into one verdict by the thresholds.
#[derive(Debug)]
struct Streak {
    successes: u32,
    failures: u32,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Streak {
    fn new(probe: &ProbeSpec) -> Self {
        let ProbeSpec { success_threshold, failure_threshold, .. } = *probe;
        Self { successes: 0, failures: 0, success_threshold, failure_threshold }
    }

    /// `Some` while the last results, all alike, have reached their threshold.
    fn add(&mut self, success: bool) -> Option<bool> {
        if success {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
            (self.successes >= self.success_threshold).then_some(true)
        } else {
            (self.successes, self.failures) = (0, self.failures.saturating_add(1));
            (self.failures >= self.failure_threshold).then_some(false)
        }
    }
}

/// Runs all probes of a process that has just started, until one of them ends it or `verdicts` is closed.
pub async fn run(probes: &Probes, verdicts: &mpsc::Sender<Verdict>) {
    if let Some(startup) = &probes.startup
        && let Err(reason) = until_started(startup).await
    {
        let text = format!("startup probe failed {} times: {reason}", startup.failure_threshold);
        // A closed channel means that the pod is being stopped already.
        let _ = verdicts.send(Verdict::Dead(text)).await;
        return;
    }
    tokio::join!(readiness(probes.readiness.as_ref(), verdicts), liveness(probes.liveness.as_ref(), verdicts));
}

async fn until_started(probe: &ProbeSpec) -> Result<(), String> {
    let mut streak = Streak::new(probe);
    sleep(probe.initial_delay).await;
    let mut ticks = ticks(probe);
    loop {
        ticks.tick().await;
        let result = check(probe).await;
        match (streak.add(result.is_ok()), result) {
            (Some(true), _) => return Ok(()),
            (Some(false), Err(reason)) => return Err(reason),
            _ => {}
        }
    }
}

async fn readiness(probe: Option<&ProbeSpec>, verdicts: &mpsc::Sender<Verdict>) {
    let Some(probe) = probe else {
        let _ = verdicts.send(Verdict::Ready).await;
        return;
    };
    let (mut streak, mut ready) = (Streak::new(probe), false);
    sleep(probe.initial_delay).await;
    let mut ticks = ticks(probe);
    loop {
        ticks.tick().await;
        let Some(now) = streak.add(check(probe).await.is_ok()) else { continue };
        if now == ready {
            continue;
        }
        ready = now;
        if verdicts.send(if ready { Verdict::Ready } else { Verdict::NotReady }).await.is_err() {
            return;
        }
    }
}

async fn liveness(probe: Option<&ProbeSpec>, verdicts: &mpsc::Sender<Verdict>) {
    let Some(probe) = probe else { return };
    let mut streak = Streak::new(probe);
    sleep(probe.initial_delay).await;
    let mut ticks = ticks(probe);
    loop {
        ticks.tick().await;
        let result = check(probe).await;
        if let (Some(false), Err(reason)) = (streak.add(result.is_ok()), result) {
            let text = format!("liveness probe failed {} times: {reason}", probe.failure_threshold);
            let _ = verdicts.send(Verdict::Dead(text)).await;
            return;
        }
    }
}

fn ticks(probe: &ProbeSpec) -> tokio::time::Interval {
    let mut ticks = interval(probe.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// One probe over a connection of its own, as kubelet does.
async fn check(probe: &ProbeSpec) -> Result<(), String> {
    let attempt = async {
        let endpoint = Endpoint::from_shared(format!("http://{}", probe.address)).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| format!("{} refuses: {error}", probe.address))?;
        let request = HealthCheckRequest { service: probe.service.clone() };
        let reply = HealthClient::new(channel).check(request).await.map_err(|status| status.to_string())?;
        match reply.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            status => Err(format!("{:?} is {}", probe.service, status.as_str_name())),
        }
    };
    timeout(probe.timeout, attempt).await.unwrap_or_else(|_| Err(format!("no answer within {:?}", probe.timeout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_its_threshold_of_equal_results_in_a_row() {
        let mut streak = Streak { successes: 0, failures: 0, success_threshold: 1, failure_threshold: 3 };
        let results = [false, false, true, false, false, false, false, true];
        let verdicts = results.map(|success| streak.add(success));
        assert_eq!(
            verdicts,
            [None, None, Some(true), None, None, Some(false), Some(false), Some(true)],
            "kubelet repeats a verdict while it lasts; the caller reports changes only"
        );
    }

    #[tokio::test]
    async fn readiness_follows_the_named_service_and_a_vanished_process_is_dead() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("group", tonic_health::ServingStatus::NotServing).await;
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server =
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let probe = |service: &str| ProbeSpec {
            address,
            service: service.to_owned(),
            initial_delay: Duration::ZERO,
            period: Duration::from_millis(20),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 2,
        };
        let probes = Probes { startup: Some(probe("")), readiness: Some(probe("group")), liveness: Some(probe("")) };
        let (sender, mut verdicts) = mpsc::channel(4);
        tokio::spawn(async move { run(&probes, &sender).await });

        reporter.set_service_status("group", tonic_health::ServingStatus::Serving).await;
        assert_eq!(verdicts.recv().await, Some(Verdict::Ready));
        reporter.set_service_status("group", tonic_health::ServingStatus::NotServing).await;
        assert_eq!(verdicts.recv().await, Some(Verdict::NotReady));
        server.abort();
        let Some(Verdict::Dead(text)) = verdicts.recv().await else { panic!("should be dead") };
        assert!(text.starts_with("liveness probe failed 2 times"), "{text}");
    }
}
