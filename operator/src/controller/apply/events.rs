//! Events (events.k8s.io/v1): repeated ones become a series instead of more objects.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};

use crate::crd::ModelDeployment;

/// The longest note that the API server takes, in bytes.
const NOTE: usize = 1024;
/// The longest action, likewise.
const ACTION: usize = 128;

/// Something worth telling, after it has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// A word: `GroupCreated`, `GroupLost`, `GroupRemoved`, or the reason of a refusal.
    pub reason: &'static str,
    /// In words.
    pub note: String,
    /// Whether someone should look.
    pub warning: bool,
}

/// Publishes Events; losing one is no failure.
#[derive(Clone)]
pub struct Teller {
    recorder: Recorder,
}

impl Teller {
    /// Reports as `instance` of the operator.
    #[must_use]
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "inference.shoal.dev/operator".into(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes all, one after the other.
    pub async fn tell(&self, model: &ModelDeployment, happenings: Vec<Happening>) {
        let reference: ObjectReference = model.object_ref(&());
        for happening in happenings {
            let event = Event {
                type_: if happening.warning { EventType::Warning } else { EventType::Normal },
                reason: happening.reason.to_owned(),
                // Equal actions and reasons make a series, so what differs must show in the action.
                action: shortened(happening.note.clone(), ACTION),
                note: Some(shortened(happening.note, NOTE)),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(reason = happening.reason, error = %error, "event not published");
            }
        }
    }
}

fn shortened(mut note: String, limit: usize) -> String {
    while note.len() > limit {
        note.pop();
    }
    note
}
