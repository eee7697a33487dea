//! Checks `spec.pod`: what the API server would refuse only once the pod is created.

use std::collections::BTreeSet;

use super::Rejection;
use crate::crd::{GROUP, Hardware, PodSpec};
use crate::inventory::quantity;

const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Refuses labels, variables and amounts that no pod may have.
pub(super) fn check(pod: &PodSpec, hardware: &Hardware) -> Result<(), Rejection> {
    labels("labels", &pod.labels)?;
    labels("nodeSelector", &pod.node_selector)?;
    keys("annotations", pod.annotations.keys())?;
    env(pod)?;
    amounts(pod, hardware)
}

fn refuse(field: &'static str, problem: String) -> Rejection {
    Rejection::Pod { field, problem }
}

fn labels(field: &'static str, all: &std::collections::BTreeMap<String, String>) -> Result<(), Rejection> {
    keys(field, all.keys())?;
    let bad = |value: &&String| !(value.is_empty() || is_label_word(value));
    match all.values().find(bad) {
        Some(value) => Err(refuse(field, format!("{value:?} is not a label value"))),
        None => Ok(()),
    }
}

fn keys<'a>(field: &'static str, keys: impl Iterator<Item = &'a String>) -> Result<(), Rejection> {
    for key in keys {
        let (prefix, word) = key.split_once('/').map_or((None, key.as_str()), |(prefix, word)| (Some(prefix), word));
        if field != "nodeSelector" && prefix == Some(GROUP) {
            return Err(refuse(field, format!("{key} belongs to Shoal; keys under {GROUP}/ are not allowed")));
        }
        let dns = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
        let prefix_ok = prefix.is_none_or(|p| !p.is_empty() && p.len() <= 253 && p.bytes().all(dns));
        if !prefix_ok || !is_label_word(word) {
            return Err(refuse(field, format!("{key:?} is not a qualified name of at most 63 characters")));
        }
    }
    Ok(())
}

/// 1 to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_label_word(word: &str) -> bool {
    let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    word.len() <= 63 && word.bytes().all(inner) && ends(word.bytes().next()) && ends(word.bytes().last())
}

fn env(pod: &PodSpec) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    match pod.env.iter().find(|variable| !seen.insert(&variable.name)) {
        Some(twice) => Err(refuse("env", format!("{} is set twice", twice.name))),
        None => Ok(()),
    }
}

fn amounts(pod: &PodSpec, hardware: &Hardware) -> Result<(), Rejection> {
    let all = pod.resources.requests.iter().chain(&pod.resources.limits);
    for (name, amount) in all {
        if !RESOURCES.contains(&name.as_str()) {
            let device = hardware.resource_name.as_deref().unwrap_or("hardware.resourceName");
            let allowed = RESOURCES.join(", ");
            return Err(refuse(
                "resources",
                format!("{name} is not allowed; {allowed} are; devices come from {device}"),
            ));
        }
        if quantity::millis(amount).is_none() {
            return Err(refuse("resources", format!("{name} {:?} is not a quantity", amount.0)));
        }
    }
    for (name, request) in &pod.resources.requests {
        let Some(limit) = pod.resources.limits.get(name) else { continue };
        if quantity::millis(request) > quantity::millis(limit) {
            return Err(refuse("resources", format!("request of {name} {} is above its limit {}", request.0, limit.0)));
        }
    }
    Ok(())
}
