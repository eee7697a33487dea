//! Last words of groups that were lost: their pods are gone, the operator's Events stay for an hour.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;

use super::super::cluster::{ClusterError, Session, during};
use super::LogsArgs;
use super::lines::Line;
use crate::crd::ModelDeployment;

/// The reason of the operator's Events about losses.
const LOST: &str = "GroupLost";

/// What the operator told of lost groups of `model`, as far as the caller asked for them and may read Events.
pub(super) async fn words(
    session: &Session,
    model: &ModelDeployment,
    args: &LogsArgs,
) -> Result<Vec<Line>, ClusterError> {
    let events: Api<Event> = Api::namespaced(session.client.clone(), &session.namespace);
    let uid = model.metadata.uid.as_deref().unwrap_or_default();
    let params = ListParams::default().fields(&format!("regarding.uid={uid},reason={LOST}"));
    let events = events.list(&params).await.map_err(during("list Events of the ModelDeployment"))?;
    Ok(events.items.into_iter().filter_map(|event| line(event, args.group, args.epoch)).collect())
}

fn line(event: Event, group: Option<u32>, epoch: Option<u64>) -> Option<Line> {
    let note = event.note?;
    let begins = |wanted: Option<String>| wanted.is_none_or(|wanted| note.contains(&wanted));
    let asked =
        begins(group.map(|index| format!("group {index} "))) && begins(epoch.map(|e| format!(" epoch {e} lost")));
    let last = event.series.map(|series| series.last_observed_time);
    let at = last.or(event.event_time).map(|time| time.0);
    asked.then(|| Line::told(at, note))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_operators_words_are_found_by_group_and_epoch() {
        let note =
            "group 1 epoch 2 lost a shard (OutOfMemory): shard 0: OOMKilled (exit code 137); it forms again as epoch 3";
        let event = || -> Event {
            serde_json::from_value(json!({"metadata": {}, "eventTime": "2026-01-01T00:00:00.000000Z", "note": note}))
                .unwrap()
        };
        assert_eq!(line(event(), None, None).unwrap().shown(false), format!("operator | {note}"));
        assert!(line(event(), Some(1), Some(2)).is_some());
        assert!(line(event(), Some(2), None).is_none() && line(event(), None, Some(3)).is_none());
    }
}
