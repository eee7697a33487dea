use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::controller::rollout::{self, Budget, Target};
use crate::crd::{RecoveryWishes, Rollout};
use crate::local::command::LocalCommand;
use crate::local::process::Surroundings;
use crate::local::spawner::Spawner;
use crate::timing::Timing;

/// A model of one group of two processes that sleep, and a clock that the test moves.
struct Fixture {
    table: ProcessTable,
    around: Surroundings,
    _logs: tempfile::TempDir,
    _events: mpsc::Receiver<Event>,
    now: Timestamp,
}

impl Fixture {
    fn new() -> Self {
        let logs = tempfile::tempdir().unwrap();
        let (events, received) = mpsc::channel(64);
        let spawner = Spawner::start().unwrap();
        let around = Surroundings { spawner, inherited: vec![], logs: logs.path().to_owned(), events };
        Self { table: ProcessTable::default(), around, _logs: logs, _events: received, now: Timestamp::UNIX_EPOCH }
    }

    /// One decision carried out as a model does it; its steps in words.
    async fn pass(&mut self) -> Vec<String> {
        let target = Target { revision: "A".to_owned(), replicas: 1, shards: 2, serving: None };
        let rollout = Rollout { min_ready_seconds: 0, ..Rollout::default() };
        let budget = Budget::new(&rollout, &RecoveryWishes::default(), &Timing::default(), Duration::ZERO);
        let decision = rollout::step(&self.table.observed(), &target, &budget, self.now);
        self.table.remember(&decision);
        for step in &decision.steps {
            match step {
                rollout::Step::CreateGroup { index, epoch, .. } => self.create((*index, *epoch)).await,
                rollout::Step::RemoveGroup { index, epoch, .. } => self.table.remove_group((*index, *epoch)),
                rollout::Step::Wait { .. } => {}
            }
        }
        decision.steps.iter().map(ToString::to_string).collect()
    }

    async fn create(&mut self, group: (u32, u64)) {
        for rank in 0..2 {
            let command =
                LocalCommand { program: "/bin/sleep".into(), args: vec!["600".to_owned()], ..LocalCommand::default() };
            let name = format!("e{}-r{rank}", group.1);
            let process = Process::start(&name, &command, &self.around).await.unwrap();
            let (labels, ports) = (BTreeMap::from([("rank".to_owned(), rank.to_string())]), port(rank));
            let state = RowState::Running;
            self.table.insert(name, Row { group, revision: "A".to_owned(), rank, labels, ports, state, process });
        }
        self.table.note_formed(group, self.now);
    }

    fn happens(&mut self, pod: &str, change: Change) {
        assert!(self.table.apply(&Event { pod: pod.to_owned(), change }, self.now), "{pod} is in the table");
    }

    fn wait(&mut self, seconds: i64) {
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
    }
}

fn port(rank: usize) -> Vec<LocalPort> {
    let address = SocketAddr::from(([127, 0, 0, 1], 1000 + u16::try_from(rank).unwrap()));
    vec![LocalPort { name: "grpc".to_owned(), container: 50051, address }]
}

fn ended() -> Change {
    Change::Ended("killed by signal 9".to_owned())
}

#[tokio::test]
async fn a_lost_process_makes_one_new_epoch_and_the_second_loss_waits() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.pass().await, ["create g0 e1 A", "wait starting"]);
    fixture.happens("e1-r0", Change::Ready);
    fixture.happens("e1-r1", Change::Ready);
    assert_eq!(fixture.table.ready_groups(), 1);

    fixture.happens("e1-r1", ended());
    assert_eq!(fixture.table.ready_groups(), 0);
    assert_eq!(fixture.pass().await, ["remove g0 e1 A (lost: CrashLoop)", "create g0 e2 A", "wait starting"]);
    assert_eq!(fixture.pass().await, ["wait starting"], "the old group drains; nothing is done twice");
    fixture.happens("e1-r0", ended());
    assert_eq!(fixture.pass().await, ["wait starting"]);

    fixture.happens("e2-r0", ended());
    assert_eq!(fixture.pass().await, ["remove g0 e2 A (lost: CrashLoop)", "wait backoff"]);
    fixture.happens("e2-r1", ended());
    fixture.wait(9);
    assert_eq!(fixture.pass().await, ["wait backoff"], "the group that waits is not lost again");
    fixture.wait(1);
    assert_eq!(fixture.pass().await, ["create g0 e3 A", "wait starting"]);
}

#[tokio::test]
async fn a_service_leads_to_pods_that_are_selected_ready_and_not_stopping() {
    let mut fixture = Fixture::new();
    fixture.pass().await;
    let port = ServicePort {
        port: 50051,
        target_port: Some(IntOrString::String("grpc".to_owned())),
        ..ServicePort::default()
    };
    let all = BTreeMap::new();
    let rank_1 = BTreeMap::from([("rank".to_owned(), "1".to_owned())]);
    let ports = |fixture: &Fixture, selector| {
        fixture.table.endpoints(selector, &port).into_iter().map(|address| address.port()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&fixture, &all), [0_u16; 0]);
    fixture.happens("e1-r0", Change::Ready);
    fixture.happens("e1-r1", Change::Ready);
    assert_eq!(ports(&fixture, &all), [1000, 1001]);
    assert_eq!(ports(&fixture, &rank_1), [1001]);
    fixture.happens("e1-r0", Change::NotReady);
    assert_eq!(ports(&fixture, &all), [1001]);
    fixture.table.stop_all();
    assert_eq!(ports(&fixture, &all), [0_u16; 0]);
    assert!(!fixture.table.is_empty(), "they are stopping, not gone");
}
