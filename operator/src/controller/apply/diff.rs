//! The JSON merge patch (RFC 7386) between two values.

use serde_json::{Map, Value};

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
}
