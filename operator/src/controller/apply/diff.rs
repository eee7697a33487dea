//! The JSON merge patch (RFC 7386) between two values, and what of a status must stay in it.

use serde_json::{Map, Value};

use crate::crd::admit::{Section, known};

/// What must be merged into `from` to get `to`; an empty object when nothing must. Fields that `to` lacks become null,
/// except where `from` lacks them too: what others wrote and we never read stays.
#[must_use]
pub fn merge_diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old @ Value::Object(_)) if new.is_object() => {
                patch.insert(key.clone(), merge_diff(old, new));
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    Value::Object(patch)
}

/// What tells the entries of our lists apart: the first set of fields that an entry has.
const IDENTITIES: [&[&str]; 5] = [&["type"], &["hash"], &["group"], &["index", "epoch"], &["layout"]];

/// The status `after` with everything that `before` holds and this version does not know. A patch replaces lists whole, so
/// this reaches into their entries.
#[must_use]
pub fn keep_unknown(before: &Value, mut after: Value) -> Value {
    keep(Section::Status.schema(), before, &mut after);
    after
}

fn keep(schema: &Value, before: &Value, after: &mut Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, old) in before {
                match (known(schema, name), after.get_mut(name)) {
                    (Some(schema), Some(new)) => keep(schema, old, new),
                    (Some(_), None) => {}
                    (None, _) => _ = after.insert(name.clone(), old.clone()),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for new in after {
                let identity = |entry: &Value| {
                    let keys = IDENTITIES.into_iter().find(|keys| keys.iter().all(|key| entry.get(key).is_some()))?;
                    Some(keys.iter().map(|key| entry[key].clone()).collect::<Vec<_>>())
                };
                let wanted = identity(new);
                let old = before.iter().find(|old| wanted.is_some() && identity(old) == wanted);
                old.into_iter().for_each(|old| keep(&schema["items"], old, new));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_sent_and_what_is_gone_becomes_null() {
        let from = json!({"a": 1, "b": {"x": 1, "y": [1]}, "c": "old", "d": {"z": 1}});
        let to = json!({"a": 1, "b": {"x": 2, "y": [1]}, "d": 3, "e": [1]});
        assert_eq!(merge_diff(&from, &to), json!({"b": {"x": 2}, "c": null, "d": 3, "e": [1]}));
        assert_eq!(merge_diff(&to, &to), json!({}));
    }

    #[test]
    fn a_status_write_keeps_what_a_newer_version_wrote_even_in_the_entries_of_lists() {
        let before = json!({
            "joules": 5, "replicas": 1, "progressedAt": "then",
            "plan": {"summary": "old", "cost": 3},
            "groups": [{"index": 0, "epoch": 1, "watts": 700}, {"index": 1, "epoch": 1, "watts": 300}],
            "recovery": [{"group": 1, "epoch": 2, "blame": {"who": "x"}}],
            "revisions": [{"hash": "a", "draft": [1]}],
            "conditions": [{"type": "Ready", "status": "True", "score": 1}],
        });
        let ours = json!({
            "replicas": 2,
            "plan": {"summary": "new"},
            "groups": [{"index": 1, "epoch": 1}, {"index": 2, "epoch": 1}],
            "recovery": [{"group": 1, "epoch": 3}],
            "revisions": [{"hash": "b"}, {"hash": "a"}],
            "conditions": [{"type": "Stalled"}, {"type": "Ready", "status": "False"}],
        });
        let kept = keep_unknown(&before, ours);
        let expected = json!({
            "joules": 5, "replicas": 2,
            "plan": {"summary": "new", "cost": 3},
            "groups": [{"index": 1, "epoch": 1, "watts": 300}, {"index": 2, "epoch": 1}],
            "recovery": [{"group": 1, "epoch": 3, "blame": {"who": "x"}}],
            "revisions": [{"hash": "b"}, {"hash": "a", "draft": [1]}],
            "conditions": [{"type": "Stalled"}, {"type": "Ready", "status": "False", "score": 1}],
        });
        assert_eq!(kept, expected);
        assert_eq!(merge_diff(&before, &kept)["progressedAt"], Value::Null);
    }
}
