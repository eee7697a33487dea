//! A line of a log, with who said it and when. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::names::label;

/// A pod of the model whose log can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) group: u32,
    pub(super) epoch: u64,
    pub(super) rank: u32,
    /// Whether its container has begun, so that there is a log.
    pub(super) speaks: bool,
    /// Whether it has ended or was told to.
    ends: bool,
}

impl Shard {
    /// `None` for a pod without the labels of a shard.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Some(Self {
            pod: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            group: labels.get(label::GROUP)?.parse().ok()?,
            epoch: labels.get(label::EPOCH)?.parse().ok()?,
            rank: labels.get(label::RANK)?.parse().ok()?,
            speaks: matches!(phase, Some("Running" | "Succeeded" | "Failed")),
            ends: pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed")),
        })
    }

    /// Such as `g0-e1-r2`: group, epoch, rank.
    pub(super) fn short(&self) -> String {
        format!("g{}-e{}-r{}", self.group, self.epoch, self.rank)
    }
}

/// The shards of formations that are over: of an epoch below the newest of its group, or with a shard that ends.
pub(super) fn lost(all: &[Shard]) -> Vec<Shard> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for shard in all {
        let epoch = newest.entry(shard.group).or_default();
        *epoch = shard.epoch.max(*epoch);
    }
    let over = |shard: &Shard| {
        let mates = all.iter().filter(|mate| (mate.group, mate.epoch) == (shard.group, shard.epoch));
        newest.get(&shard.group) > Some(&shard.epoch) || mates.into_iter().any(|mate| mate.ends)
    };
    all.iter().filter(|shard| over(shard)).cloned().collect()
}

/// What a shard said, or what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When kubelet wrote it down; absent when it did not say.
    pub(super) at: Option<Timestamp>,
    /// Who said it; absent: the operator of the model.
    shard: Option<Shard>,
    text: String,
}

impl Line {
    /// Takes a line apart that begins with its RFC 3339 time and a space, as the API server sends it when asked to.
    pub(super) fn stamped(shard: &Shard, line: &str) -> Self {
        let stamped = line.split_once(' ').and_then(|(at, text)| Some((at.parse().ok()?, text)));
        let (at, text) = stamped.map_or((None, line), |(at, text)| (Some(at), text));
        Self { at, shard: Some(shard.clone()), text: text.to_owned() }
    }

    /// What the operator says.
    pub(super) fn told(at: Option<Timestamp>, text: String) -> Self {
        Self { at, shard: None, text }
    }

    /// As a line for people, or as a JSON object.
    pub(super) fn shown(&self, json: bool) -> String {
        let Some(shard) = &self.shard else {
            let object = json!({"time": self.at, "text": self.text});
            return if json { object.to_string() } else { format!("operator | {}", self.text) };
        };
        if !json {
            return format!("{} | {}", shard.short(), self.text);
        }
        let Shard { pod, group, epoch, rank, .. } = shard;
        json!({"time": self.at, "pod": pod, "group": group, "epoch": epoch, "rank": rank, "text": self.text})
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn pod(group: u32, epoch: u64, rank: u32, phase: &str) -> Pod {
        let labels = json!({
            label::GROUP: group.to_string(), label::EPOCH: epoch.to_string(), label::RANK: rank.to_string()
        });
        let metadata = json!({"name": "tiny-aaaaaa-g0-e1-r2", "uid": "u", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
    }

    #[test]
    fn a_line_names_its_shard_and_keeps_its_time_apart() {
        let shard = Shard::of(&pod(0, 1, 2, "Running")).unwrap();
        assert!(shard.speaks && !Shard::of(&pod(0, 1, 2, "Pending")).unwrap().speaks);
        let line = Line::stamped(&shard, "2026-01-01T00:00:00.123456789Z {\"level\": \"INFO\"}");
        assert_eq!(line.at, Some("2026-01-01T00:00:00.123456789Z".parse().unwrap()));
        assert_eq!(line.shown(false), "g0-e1-r2 | {\"level\": \"INFO\"}");
        let object: serde_json::Value = serde_json::from_str(&line.shown(true)).unwrap();
        assert_eq!(
            object,
            json!({
                "time": "2026-01-01T00:00:00.123456789Z", "pod": "tiny-aaaaaa-g0-e1-r2",
                "group": 0, "epoch": 1, "rank": 2, "text": "{\"level\": \"INFO\"}",
            })
        );
        assert_eq!(Line::stamped(&shard, "no time").shown(false), "g0-e1-r2 | no time");
    }

    #[test]
    fn lost_are_older_epochs_and_groups_of_which_a_shard_ends() {
        let all = [(0, 1, "Running"), (0, 2, "Running"), (1, 1, "Failed"), (2, 3, "Running")];
        let all: Vec<_> =
            all.iter().filter_map(|&(group, epoch, phase)| Shard::of(&pod(group, epoch, 0, phase))).collect();
        let found: Vec<_> = lost(&all).iter().map(Shard::short).collect();
        assert_eq!(found, ["g0-e1-r0", "g1-e1-r0"]);
    }

    #[test]
    fn a_stranger_with_the_model_label_is_no_shard() {
        let mut stranger = pod(0, 1, 2, "Running");
        stranger.metadata.labels = Some([(label::MODEL.to_owned(), "tiny".to_owned())].into());
        assert_eq!(Shard::of(&stranger), None);
    }
}
