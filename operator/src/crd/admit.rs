//! What the API server would refuse, without one: the CRD's schema and CEL rules, evaluated here.
//!
//! Used by `shoal plan` and `shoal up`. Never relaxes: strict decoding, as kubectl asks for it,
//! in the API server's words where they are short. Also tells what a newer definition let through that this one would not.

use std::fmt::Display;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use kube::core::cel::Validator;
use serde_json::Value;

use super::ModelDeployment;

/// Everything that is wrong with one object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("; "))]
pub struct AdmitError(pub Vec<String>);

/// Reads an object as the API server would.
///
/// # Errors
/// [`AdmitError`] with every problem, each beginning with the path of the field.
pub fn admit(raw: &Value) -> Result<ModelDeployment, AdmitError> {
    let schema = &*SCHEMA;
    let mut problems = Vec::new();
    if raw["apiVersion"] != "inference.shoal.dev/v1alpha1" || raw["kind"] != "ModelDeployment" {
        let (version, kind) = (&raw["apiVersion"], &raw["kind"]);
        problems.push(format!(
            "apiVersion {version}, kind {kind} is not supported; supported: inference.shoal.dev/v1alpha1 ModelDeployment"
        ));
        return Err(AdmitError(problems));
    }
    walk(schema, raw, "", &mut problems);
    if !problems.is_empty() {
        return Err(AdmitError(problems));
    }
    let object: ModelDeployment =
        serde_json::from_value(raw.clone()).map_err(|error| AdmitError(vec![error.to_string()]))?;
    // CEL sees the object after defaulting.
    let defaulted = serde_json::to_value(&object).map_err(|error| AdmitError(vec![error.to_string()]))?;
    match Validator::new().validate(schema, &defaulted, None) {
        Ok(()) => Ok(object),
        Err(errors) => Err(AdmitError(
            errors.as_slice().iter().map(|error| format!("{}: {}", error.field_path, error.message)).collect(),
        )),
    }
}

/// The half of an object that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What is asked.
    Spec,
    /// What was answered.
    Status,
}

impl Section {
    fn key(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Status => "status",
        }
    }

    /// Its schema.
    #[must_use]
    pub fn schema(self) -> &'static Value {
        &SCHEMA["properties"][self.key()]
    }
}

/// The first value of a stored object that cannot be read, by field; `None`: the schema finds none.
#[must_use]
pub fn misfit(raw: &Value) -> Option<String> {
    let mut problems = Vec::new();
    for section in [Section::Spec, Section::Status] {
        walk(section.schema(), &raw[section.key()], section.key(), &mut problems);
    }
    // Fields that are unknown or beyond a bound do not keep an object from being read.
    let (unsupported, invalid) = (": Unsupported value: ", ": Invalid value: ");
    problems.into_iter().find(|problem| problem.contains(unsupported) || problem.contains(invalid))
}

/// The paths of what `section` of a stored object holds and this version does not know.
#[must_use]
pub fn unknown_fields(section: Section, raw: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    within(section.key(), &mut paths, |paths| unknown(section.schema(), &raw[section.key()], paths));
    paths
}

/// Every object is looked through each time it is read, and mostly all is known: paths are made only of what is not.
fn unknown(schema: &Value, value: &Value, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match known(schema, name) {
                    Some(schema) => within(format_args!(".{name}"), paths, |paths| unknown(schema, value, paths)),
                    None => paths.push(format!(".{name}")),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                within(format_args!("[{at}]"), paths, |paths| unknown(&schema["items"], item, paths));
            }
        }
        _ => {}
    }
}

/// Puts `place` before the paths that `find` adds.
fn within(place: impl Display, paths: &mut Vec<String>, find: impl FnOnce(&mut Vec<String>)) {
    let from = paths.len();
    find(paths);
    paths[from..].iter_mut().for_each(|path| *path = format!("{place}{path}"));
}

/// The schema of a field; `None`: it is unknown.
#[must_use]
pub fn known<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))
}

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

fn schema() -> Value {
    let crd = ModelDeployment::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    serde_json::to_value(schema).expect("a derived schema has only string keys, so it should serialize")
}

fn walk(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let shown = if path.is_empty() { "object" } else { path };
    if let Some(wanted) = mistyped(schema, value) {
        problems.push(format!("{shown}: Invalid value: {value}: {shown} in body must be of type {wanted}"));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let words: Vec<_> = allowed.iter().filter(|value| !value.is_null()).map(Value::to_string).collect();
        problems.push(format!("{shown}: Unsupported value: {value}: supported values: {}", words.join(", ")));
    }
    match value {
        Value::Object(fields) => object(schema, fields, path, problems),
        Value::Array(items) => {
            bounds(schema, ("minItems", "maxItems"), items.len() as f64, shown, problems);
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), problems);
            }
        }
        Value::String(text) => {
            bounds(schema, ("minLength", "maxLength"), text.chars().count() as f64, shown, problems);
        }
        Value::Number(number) => {
            bounds(schema, ("minimum", "maximum"), number.as_f64().unwrap_or(f64::NAN), shown, problems);
        }
        Value::Bool(_) | Value::Null => {}
    }
}

/// The type that the schema wants instead.
fn mistyped<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => value.is_number(),
    };
    (!fits).then_some(wanted)
}

fn object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, problems: &mut Vec<String>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| fields.get(*name).is_none_or(Value::is_null)) {
        problems.push(format!("{}: Required value", child(name)));
    }
    let shown = if path.is_empty() { "object" } else { path };
    bounds(schema, ("minProperties", "maxProperties"), fields.len() as f64, shown, problems);
    for (name, value) in fields {
        let declared = schema["properties"].get(name);
        let embedded = path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status");
        match (declared, schema.get("additionalProperties")) {
            _ if embedded => {}
            (Some(property), _) => walk(property, value, &child(name), problems),
            (None, Some(each)) => walk(each, value, &child(name), problems),
            (None, None) => problems.push(format!("unknown field {:?}", child(name))),
        }
    }
}

fn bounds(schema: &Value, keys: (&str, &str), size: f64, path: &str, problems: &mut Vec<String>) {
    let (low, high) = keys;
    let of = if low == "minimum" { "" } else { "the length of " };
    if let Some(min) = schema[low].as_f64().filter(|min| size < *min) {
        problems.push(format!("{path}: {of}{path} in body should be greater than or equal to {min}, not {size}"));
    }
    if let Some(max) = schema[high].as_f64().filter(|max| size > *max) {
        problems.push(format!("{path}: {of}{path} in body should be less than or equal to {max}, not {size}"));
    }
}
