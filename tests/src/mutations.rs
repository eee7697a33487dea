//! Bad inputs, generated from a CRD's schema: every field × absent, zero, negative, huge, wrong unit, unicode, duplicate.
//!
//! Pure. Never knows a field by name: what the schema gains is tried without a change here.

use std::fmt;

use serde_json::{Map, Value, json};

/// In which way a field is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Absent,
    Zero,
    Negative,
    Huge,
    WrongUnit,
    Unicode,
    Duplicate,
}

/// One object with one field changed.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The field.
    pub path: Path,
    /// What was done to it.
    pub kind: Kind,
    /// The object as JSON: text, since no value has a key twice.
    pub text: String,
}

/// Where a field is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Field(String),
    Key,
    Item,
}

/// The key that stands for any key of a map.
const KEY: &str = "k";

impl Path {
    fn join(&self, part: Part) -> Self {
        Self(self.0.iter().cloned().chain([part]).collect())
    }

    /// The last name on the way: what a refusal must mention.
    #[must_use]
    pub fn name(&self) -> &str {
        let names = self.0.iter().rev();
        names
            .filter_map(|part| if let Part::Field(name) = part { Some(name.as_str()) } else { None })
            .next()
            .unwrap_or_default()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            match part {
                Part::Field(name) => write!(f, "{}{name}", if at == 0 { "" } else { "." })?,
                Part::Key => write!(f, ".{KEY}")?,
                Part::Item => f.write_str("[0]")?,
            }
        }
        Ok(())
    }
}

/// Every mutation of `good` in the field `root` of the schema, in the schema's order.
#[must_use]
pub fn mutations(schema: &Value, root: &str, good: &Value) -> Vec<Mutation> {
    let mut fields = Vec::new();
    collect(&schema["properties"][root], Path::default().join(Part::Field(root.to_owned())), &mut fields);
    let mut all = Vec::new();
    for (path, field) in &fields {
        let mut add = |kind, text| all.push(Mutation { path: path.clone(), kind, text });
        for (kind, values) in values(field) {
            for value in values {
                add(kind, changed(schema, good, &path.0, &|| Some(value.clone())).to_string());
            }
        }
        add(Kind::Absent, changed(schema, good, &path.0, &|| None).to_string());
        add(Kind::Duplicate, duplicated(schema, good, path));
    }
    all
}

fn collect<'a>(field: &'a Value, path: Path, all: &mut Vec<(Path, &'a Value)>) {
    all.push((path.clone(), field));
    for (name, child) in field["properties"].as_object().into_iter().flatten() {
        collect(child, path.join(Part::Field(name.clone())), all);
    }
    if field["additionalProperties"].is_object() {
        collect(&field["additionalProperties"], path.join(Part::Key), all);
    }
    if field["items"].is_object() {
        collect(&field["items"], path.join(Part::Item), all);
    }
}

/// Wrong values of every kind that a value alone can be, with those at the very edge of what is right.
fn values(field: &Value) -> Vec<(Kind, Vec<Value>)> {
    let bound = |name: &str| field[name].as_f64();
    let whole = |number: f64| if number.abs() < 9e15 { json!(number as i64) } else { json!(number) };
    let mut zero = vec![json!(0), json!(""), json!([]), json!({}), json!(false), json!(null)];
    zero.extend(bound("minimum").into_iter().flat_map(|min| [whole(min), whole(min - 1.0)]));
    let mut huge = vec![json!(i32::MAX), json!(1_i64 << 31), json!(i64::MAX), json!(1e300), json!("9".repeat(40))];
    huge.extend(bound("maximum").into_iter().flat_map(|max| [whole(max), whole(max + 1.0)]));
    let longest = bound("maxLength").unwrap_or(5000.0) as usize;
    huge.extend([json!("x".repeat(longest)), json!("x".repeat(longest + 1))]);
    let most = bound("maxItems").or(bound("maxProperties")).unwrap_or(100.0) as usize;
    huge.push(json!(vec![sample(&field["items"]); most + 1]));
    let keys = (0..=most).map(|n| (format!("k{n}"), sample(&field["additionalProperties"])));
    huge.push(Value::Object(keys.collect()));
    let units = ["1Gi", "100m", "5s", "50%", "1e3", "0x10", "true", "1 000"];
    let mut wrong: Vec<Value> = units.iter().map(|text| json!(text)).collect();
    wrong.extend([json!(1.5), json!(true), json!(["1"]), json!({"value": 1})]);
    let words = ["ü", "日本語", "🦀", "a\u{202e}b", "a\u{0}b", "ﬁ", "e\u{301}", "a\nb", " a ", "ＡＢＣ"];
    vec![
        (Kind::Zero, zero),
        (Kind::Negative, [json!(-1), json!(-1.5), json!(i32::MIN), json!(i64::MIN), json!("-1"), json!(-1e300)].into()),
        (Kind::Huge, huge),
        (Kind::WrongUnit, wrong),
        (Kind::Unicode, words.iter().map(|word| json!(word)).collect()),
    ]
}

/// A value that the types of `field` permit.
fn sample(field: &Value) -> Value {
    if let Some(first) = field["enum"].as_array().and_then(|all| all.first()) {
        return first.clone();
    }
    match field["type"].as_str() {
        Some("integer" | "number") => json!(field["minimum"].as_f64().unwrap_or(1.0) as i64),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => {
            let required = field["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Value::Object(required.map(|name| (name.to_owned(), sample(&field["properties"][name]))).collect())
        }
        _ => json!("a".repeat(field["minLength"].as_u64().unwrap_or(1).max(1) as usize)),
    }
}

/// `value` with what is at `path` replaced, or removed; what is missing on the way is made up.
fn changed(schema: &Value, value: &Value, path: &[Part], new: &dyn Fn() -> Option<Value>) -> Value {
    let Some((part, rest)) = path.split_first() else { return new().unwrap_or_default() };
    let filled = |value: &Value| if value.is_null() { sample(schema) } else { value.clone() };
    match part {
        Part::Item => {
            let mut items = value.as_array().cloned().unwrap_or_default();
            items.truncate(1);
            let child = items.pop().unwrap_or_else(|| sample(&schema["items"]));
            if !rest.is_empty() || new().is_some() {
                items.push(changed(&schema["items"], &child, rest, new));
            }
            Value::Array(items)
        }
        Part::Field(_) | Part::Key => {
            let (name, child) = match part {
                Part::Field(name) => (name.as_str(), &schema["properties"][name]),
                _ => (KEY, &schema["additionalProperties"]),
            };
            let mut fields = filled(value).as_object().cloned().unwrap_or_default();
            let before = fields.remove(name).unwrap_or_default();
            if !rest.is_empty() || new().is_some() {
                fields.insert(name.to_owned(), changed(child, &before, rest, new));
            }
            Value::Object(fields)
        }
    }
}

/// The object with the field's key, or the item, there twice.
fn duplicated(schema: &Value, good: &Value, path: &Path) -> String {
    let mut field = schema;
    let mut there = Some(good);
    for part in &path.0 {
        (field, there) = match part {
            Part::Field(name) => (&field["properties"][name], there.and_then(|value| value.get(name))),
            Part::Key => (&field["additionalProperties"], there.and_then(|value| value.get(KEY))),
            Part::Item => (&field["items"], there.and_then(|value| value.get(0))),
        };
    }
    let value = there.cloned().unwrap_or_else(|| sample(field));
    let (last, parent) = path.0.split_last().expect("a path has at least its root");
    let name = match last {
        Part::Item => {
            let twice = || Some(json!([value, value]));
            return changed(schema, good, parent, &twice).to_string();
        }
        Part::Field(name) => name.as_str(),
        Part::Key => KEY,
    };
    let twin = format!("twin of {name}");
    let with_field = changed(schema, good, &path.0, &|| Some(value.clone()));
    let mut all = with_field;
    let mut holder = &mut all;
    for part in parent {
        holder = match part {
            Part::Field(name) => &mut holder[name],
            Part::Key => &mut holder[KEY],
            Part::Item => &mut holder[0],
        };
    }
    holder.as_object_mut().unwrap_or(&mut Map::new()).insert(twin.clone(), value);
    all.to_string().replace(&twin, name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pretty_assertions::assert_eq;

    use super::*;

    fn schema() -> Value {
        json!({"properties": {"spec": {"type": "object", "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 8},
            "env": {"type": "array", "maxItems": 2, "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 3}, "value": {"type": "string"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }}}})
    }

    #[test]
    fn every_field_is_wrong_in_every_way_and_everything_else_stays() {
        let all = mutations(&schema(), "spec", &json!({"kind": "K", "spec": {"size": 4}}));
        let paths: BTreeSet<String> = all.iter().map(|mutation| mutation.path.to_string()).collect();
        let wanted = [
            "spec",
            "spec.env",
            "spec.env[0]",
            "spec.env[0].name",
            "spec.env[0].value",
            "spec.labels",
            "spec.labels.k",
            "spec.size",
        ];
        assert_eq!(paths, wanted.map(String::from).into());
        let kinds: BTreeSet<Kind> = all.iter().map(|mutation| mutation.kind).collect();
        assert_eq!(kinds.len(), 7);
        let has = |path: &str, text: &str| {
            let mut at = all.iter().filter(|mutation| mutation.path.to_string() == path);
            assert!(at.any(|mutation| mutation.text == text), "{path}: no {text}");
        };
        has("spec.size", r#"{"kind":"K","spec":{"size":9}}"#);
        has("spec.size", r#"{"kind":"K","spec":{"size":0}}"#);
        has("spec.size", r#"{"kind":"K","spec":{}}"#);
        has("spec.size", r#"{"kind":"K","spec":{"size":4,"size":4}}"#);
        has("spec.env[0].value", r#"{"kind":"K","spec":{"env":[{"name":"a","value":"5s"}],"size":4}}"#);
        has("spec.env[0].name", r#"{"kind":"K","spec":{"env":[{"name":"xxxx"}],"size":4}}"#);
        has("spec.env[0]", r#"{"kind":"K","spec":{"env":[{"name":"a"},{"name":"a"}],"size":4}}"#);
        has("spec.labels.k", r#"{"kind":"K","spec":{"labels":{"k":"a","k":"a"},"size":4}}"#);
        assert_eq!(all[0].path.name(), "spec");
    }
}
