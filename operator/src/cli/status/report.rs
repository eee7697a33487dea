//! A status as text for people. Pure: the time is given.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::cluster::name;
use super::super::seen::Seen;
use crate::crd::{GroupPhase, ModelDeploymentStatus};

/// One line per model. Columns only grow, so that lines printed later still stand below the head.
pub(super) struct Table {
    namespaces: bool,
    widths: Vec<usize>,
}

impl Table {
    /// `namespaces`: with a column for them.
    pub(super) fn new(namespaces: bool) -> Self {
        Self { namespaces, widths: Vec::new() }
    }

    /// The head and a line per model.
    pub(super) fn whole(&mut self, models: &[Seen], now: Timestamp) -> String {
        let head = ["NAMESPACE", "NAME", "READY", "GROUPS", "AGE", "PLAN", "REASON"].map(str::to_owned);
        let rows = models.iter().map(|model| row(model, now));
        self.lines(std::iter::once(head).chain(rows).collect())
    }

    /// One line more.
    pub(super) fn row(&mut self, model: &Seen, now: Timestamp) -> String {
        self.lines(vec![row(model, now)])
    }

    /// The last line of a model.
    pub(super) fn gone(&mut self, model: &Seen) -> String {
        let nothing = Seen { status: None, ..model.clone() };
        let [namespace, name, ..] = row(&nothing, Timestamp::UNIX_EPOCH);
        let [ready, groups, age, plan] = ["False", "", "", ""].map(str::to_owned);
        self.lines(vec![[namespace, name, ready, groups, age, plan, "Deleted".to_owned()]])
    }

    fn lines(&mut self, rows: Vec<[String; 7]>) -> String {
        let skipped = usize::from(!self.namespaces);
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row.into_iter().skip(skipped).collect()).collect();
        padded(&rows, &mut self.widths, "")
    }
}

fn row(model: &Seen, now: Timestamp) -> [String; 7] {
    let status = model.status.clone().unwrap_or_default();
    let ready = condition(&status, "Ready");
    let unread = || model.source.as_ref().err().map(|_| "NotUnderstood".to_owned());
    let reason = ready.map(|ready| ready.reason.clone()).or_else(unread).unwrap_or_default();
    [
        model.metadata.namespace.clone().unwrap_or_default(),
        name(&model.metadata).to_owned(),
        ready.map_or("Unknown", |ready| ready.status.as_str()).to_owned(),
        status.groups_ready.clone(),
        age(model, now),
        status.plan.as_ref().map(|plan| plan.summary.clone()).unwrap_or_default(),
        reason,
    ]
}

/// Everything that is known of one model.
pub(super) fn report(model: &Seen, now: Timestamp) -> String {
    let Some(status) = model.status.as_ref().filter(|status| status.is_written()) else {
        let why = model.source.as_ref().err().map(|problem| format!("this version cannot read it: {problem}"));
        let why = why.unwrap_or_else(|| "no operator has looked at it yet".to_owned());
        return format!("{}: {why}\n", name(&model.metadata));
    };
    let mut text = format!("{}  {} groups ready  ", name(&model.metadata), status.groups_ready);
    let _ = match &model.source {
        Ok(source) => writeln!(text, "source {source}  age {}", age(model, now)),
        Err(problem) => writeln!(text, "age {}\nthis version cannot read it: {problem}", age(model, now)),
    };
    if status.observed_generation != model.metadata.generation {
        text += "the newest edit has not been looked at yet\n";
    }
    plan(&mut text, status);
    conditions(&mut text, status);
    groups(&mut text, status);
    recovery(&mut text, status, now);
    text
}

fn plan(text: &mut String, status: &ModelDeploymentStatus) {
    let Some(plan) = &status.plan else { return };
    let _ = writeln!(text, "\nplan: {}", plan.summary);
    plan.arithmetic.iter().for_each(|line| *text += &format!("  {line}\n"));
    plan.rejected.iter().for_each(|other| *text += &format!("  not {}: {}\n", other.layout, other.reason));
    plan.better.iter().for_each(|better| *text += &format!("  better, for the next edit: {better}\n"));
}

fn conditions(text: &mut String, status: &ModelDeploymentStatus) {
    let rows = status.conditions.iter().map(|condition| {
        let Condition { type_, status, reason, message, .. } = condition;
        [type_.clone(), status.clone(), reason.clone(), message.clone()]
    });
    *text += "\nconditions:\n";
    *text += &aligned(rows.collect(), "  ");
}

fn groups(text: &mut String, status: &ModelDeploymentStatus) {
    if status.groups.is_empty() {
        return;
    }
    let head = ["GROUP", "EPOCH", "REVISION", "PHASE", "SHARDS", ""].map(str::to_owned);
    let rows = status.groups.iter().map(|group| {
        [
            group.index.to_string(),
            group.epoch.to_string(),
            group.revision.clone(),
            phase(group.phase).to_owned(),
            format!("{}/{}", group.ready_shards, group.shards),
            group.message.clone().unwrap_or_default(),
        ]
    });
    *text += "\ngroups:\n";
    *text += &aligned(std::iter::once(head).chain(rows).collect(), "  ");
}

fn recovery(text: &mut String, status: &ModelDeploymentStatus, now: Timestamp) {
    if status.recovery.is_empty() {
        return;
    }
    *text += "\nlost and formed again:\n";
    for entry in &status.recovery {
        let retry = entry.next_retry.as_ref().filter(|retry| retry.0 > now);
        let retry = retry.map(|retry| format!(", next try in {}", short(retry.0, now))).unwrap_or_default();
        let (group, epoch, failures) = (entry.group, entry.epoch, entry.failures);
        let _ = writeln!(text, "  group {group}: epoch {epoch}, {failures} losses, last {}{retry}", entry.reason);
    }
}

fn phase(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Pending => "Pending",
        GroupPhase::Starting => "Starting",
        GroupPhase::Ready => "Ready",
        GroupPhase::Lost => "Lost",
        GroupPhase::Draining => "Draining",
    }
}

fn condition<'a>(status: &'a ModelDeploymentStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn age(model: &Seen, now: Timestamp) -> String {
    model.metadata.creation_timestamp.as_ref().map_or_else(String::new, |created| short(now, created.0))
}

/// The time between two moments in its largest unit, as kubectl prints ages.
fn short(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = later.duration_since(earlier).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Columns as wide as their widest cell.
fn aligned<const N: usize>(rows: Vec<[String; N]>, indent: &str) -> String {
    padded(&rows.into_iter().map(Vec::from).collect::<Vec<_>>(), &mut Vec::new(), indent)
}

/// Columns two spaces apart, at least `widths` wide, which grow to the widest cell; the last is not padded.
fn padded(rows: &[Vec<String>], widths: &mut Vec<usize>, indent: &str) -> String {
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (cell, width) in row.iter().zip(widths.iter_mut()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths.iter()).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text += &format!("{indent}{}\n", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::crd::ModelDeployment;

    fn model() -> ModelDeployment {
        let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "False", "reason": reason, "message": "why", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "tiny", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"model": {"source": "file:///models/tiny"}},
            "status": {
                "observedGeneration": 1, "groupsReady": "1/2", "replicas": 2, "availableGroups": 1, "updatedGroups": 2,
                "selector": "", "plan": {"summary": "2 × CPU", "arithmetic": ["sum: 1 MiB"], "rejected": [{"layout": "1 × CPU", "reason": "too big"}]},
                "conditions": [condition("Ready", "Unfinished"), condition("Stalled", "No")],
                "groups": [
                    {"index": 0, "epoch": 1, "revision": "aa", "phase": "Ready", "readyShards": 2, "shards": 2},
                    {"index": 1, "epoch": 3, "revision": "aa", "phase": "Lost", "readyShards": 1, "shards": 2, "message": "rank 1"},
                ],
                "recovery": [{"group": 1, "epoch": 3, "failures": 2, "reason": "OutOfMemory", "nextRetry": "2026-01-01T00:10:30Z"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_model_is_told_whole() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        assert_eq!(
            report(&Seen::from(&model()), now),
            "tiny  1/2 groups ready  source file:///models/tiny  age 10m\n\
             the newest edit has not been looked at yet\n\
             \nplan: 2 × CPU\n  sum: 1 MiB\n  not 1 × CPU: too big\n\
             \nconditions:\n  Ready    False  Unfinished  why\n  Stalled  False  No          why\n\
             \ngroups:\n  GROUP  EPOCH  REVISION  PHASE  SHARDS\n\
             \x20 0      1      aa        Ready  2/2\n\
             \x20 1      3      aa        Lost   1/2     rank 1\n\
             \nlost and formed again:\n  group 1: epoch 3, 2 losses, last OutOfMemory, next try in 30s\n"
        );
    }

    #[test]
    fn several_are_a_table_whose_later_lines_stand_below_its_head() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let mut table = Table::new(false);
        assert_eq!(
            table.whole(&[Seen::from(&model())], now),
            "NAME  READY  GROUPS  AGE  PLAN     REASON\ntiny  False  1/2     10m  2 × CPU  Unfinished\n"
        );
        let mut other = Seen::from(&model());
        other.metadata.name = Some("t".to_owned());
        assert_eq!(table.row(&other, now), "t     False  1/2     10m  2 × CPU  Unfinished\n");
        assert_eq!(table.gone(&other), "t     False                        Deleted\n");
        other.metadata.namespace = Some("team".to_owned());
        assert_eq!(
            Table::new(true).whole(&[other], now),
            "NAMESPACE  NAME  READY  GROUPS  AGE  PLAN     REASON\nteam       t     False  1/2     10m  2 × CPU  Unfinished\n"
        );
    }

    #[test]
    fn a_model_that_nobody_has_looked_at_says_so() {
        let default = ModelDeploymentStatus { observed_generation: Some(-1), ..ModelDeploymentStatus::default() };
        for status in [None, Some(default)] {
            let unseen = Seen { status, ..Seen::from(&model()) };
            assert_eq!(report(&unseen, Timestamp::UNIX_EPOCH), "tiny: no operator has looked at it yet\n");
        }
    }

    #[test]
    fn of_one_that_cannot_be_read_the_status_is_told_as_far_as_it_can_be_and_why() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let source = Err("spec.hardware.backend: \"TPU\"".to_owned());
        let seen = Seen { source, ..Seen::from(&model()) };
        let words = "tiny  1/2 groups ready  age 10m\nthis version cannot read it: spec.hardware.backend: \"TPU\"\n";
        assert!(report(&seen, now).starts_with(words), "{}", report(&seen, now));
        let blank = Seen { status: None, ..seen };
        assert_eq!(report(&blank, now), "tiny: this version cannot read it: spec.hardware.backend: \"TPU\"\n");
        let row = "NAME  READY    GROUPS  AGE  PLAN  REASON\ntiny  Unknown          10m        NotUnderstood\n";
        assert_eq!(Table::new(false).whole(&[blank], now), row);
    }
}
