//! A line of a log, with who said it and when. Pure.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::names::label;

/// A pod of the model whose log can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) pod: String,
    pub(super) uid: String,
    /// Such as `g0-e1-r2`: group, epoch, rank.
    pub(super) short: String,
    /// Whether its container has begun, so that there is a log.
    pub(super) speaks: bool,
}

impl Shard {
    /// `None` for a pod without the labels of a shard.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        let [group, epoch, rank] = [label::GROUP, label::EPOCH, label::RANK].map(|key| labels.get(key));
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Some(Self {
            pod: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            short: format!("g{}-e{}-r{}", group?, epoch?, rank?),
            speaks: matches!(phase, Some("Running" | "Succeeded" | "Failed")),
        })
    }
}

/// What a shard said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When kubelet wrote it down; absent when it did not say.
    pub(super) at: Option<Timestamp>,
    short: String,
    text: String,
}

impl Line {
    /// Takes a line apart that begins with its RFC 3339 time and a space, as the API server sends it when asked to.
    pub(super) fn stamped(shard: &Shard, line: &str) -> Self {
        let stamped = line.split_once(' ').and_then(|(at, text)| Some((at.parse().ok()?, text)));
        let (at, text) = stamped.map_or((None, line), |(at, text)| (Some(at), text));
        Self { at, short: shard.short.clone(), text: text.to_owned() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.short, self.text)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn pod(labels: &serde_json::Value, phase: &str) -> Pod {
        let metadata = json!({"name": "tiny-aaaaaa-g0-e1-r2", "uid": "u", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
    }

    #[test]
    fn a_line_names_its_shard_and_keeps_its_time_apart() {
        let labels = json!({label::GROUP: "0", label::EPOCH: "1", label::RANK: "2"});
        let shard = Shard::of(&pod(&labels, "Running")).unwrap();
        assert!(shard.speaks && !Shard::of(&pod(&labels, "Pending")).unwrap().speaks);
        let line = Line::stamped(&shard, "2026-01-01T00:00:00.123456789Z {\"level\": \"INFO\"}");
        assert_eq!(line.at, Some("2026-01-01T00:00:00.123456789Z".parse().unwrap()));
        assert_eq!(line.to_string(), "g0-e1-r2 | {\"level\": \"INFO\"}");
        assert_eq!(Line::stamped(&shard, "no time").to_string(), "g0-e1-r2 | no time");
    }

    #[test]
    fn a_stranger_with_the_model_label_is_no_shard() {
        assert_eq!(Shard::of(&pod(&json!({label::MODEL: "tiny"}), "Running")), None);
    }
}
