//! The API server's audit log as values: who called what.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A place in the log: calls answered later come after it.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// API group; empty for core.
    pub group: String,
    /// Plural resource, with `/SUBRESOURCE` where there is one; a path for requests that are no resource's.
    pub resource: String,
    /// Empty for cluster-scoped requests.
    pub namespace: String,
    /// Empty for lists and creations.
    pub name: String,
    /// HTTP status code.
    pub code: u16,
}

impl Call {
    /// Anything but reading.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head")
    }

    /// The right that RBAC must grant for it: verb, group, resource. A patch answered 201 created the object.
    #[must_use]
    pub fn rights(&self) -> Vec<Right> {
        let right = |verb: &str| (verb.to_owned(), self.group.clone(), self.resource.clone());
        let upsert = self.verb == "patch" && self.code == 201;
        [Some(right(&self.verb)), upsert.then(|| right("create"))].into_iter().flatten().collect()
    }
}

/// The log file; reading it never changes it.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

impl AuditLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The end of the log now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(std::fs::metadata(&self.0).with_context(|| self.0.display().to_string())?.len()))
    }

    /// Calls of `user` answered after `mark`, oldest first. Watches appear when they end.
    ///
    /// # Errors
    /// When the log cannot be read or is not an audit log.
    pub fn calls_since(&self, mark: Mark, user: &str) -> Result<Vec<Call>> {
        let ours = |event: &Event| event.user.username == user && event.stage == "ResponseComplete";
        Ok(self.events(mark)?.into_iter().filter(ours).map(Event::into_call).collect())
    }

    /// All calls of `user`.
    ///
    /// # Errors
    /// As [`AuditLog::calls_since`].
    pub fn calls(&self, user: &str) -> Result<Vec<Call>> {
        self.calls_since(Mark(0), user)
    }

    /// Writes of `user` after `mark`.
    ///
    /// # Errors
    /// As [`AuditLog::calls_since`].
    pub fn writes_since(&self, mark: Mark, user: &str) -> Result<Vec<Call>> {
        Ok(self.calls_since(mark, user)?.into_iter().filter(Call::is_write).collect())
    }

    /// The paths, with their queries, that were listed or watched by any of `users`.
    ///
    /// # Errors
    /// As [`AuditLog::calls_since`].
    pub fn lists(&self, users: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
        let listed = |event: &Event| users(&event.user.username) && matches!(event.verb.as_str(), "list" | "watch");
        Ok(self.events(Mark(0))?.into_iter().filter(listed).map(|event| event.request_uri).collect())
    }

    /// Every right that each of `users` has used or wanted: also by a watch that has not ended, and by a call that RBAC
    /// refused.
    ///
    /// # Errors
    /// As [`AuditLog::calls_since`].
    pub fn rights_used(&self, users: impl Fn(&str) -> bool) -> Result<BTreeMap<String, BTreeSet<Right>>> {
        let mut used: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
        for event in self.events(Mark(0))? {
            if users(&event.user.username) {
                let rights = used.entry(event.user.username.clone()).or_default();
                rights.extend(event.into_call().rights());
            }
        }
        Ok(used)
    }

    fn events(&self, mark: Mark) -> Result<Vec<Event>> {
        let mut file = File::open(&self.0).with_context(|| self.0.display().to_string())?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let log = std::str::from_utf8(&bytes)?;
        // The last line may still be in the writing: it belongs to the next reading.
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let read = |line| serde_json::from_str(line).with_context(|| format!("audit line {line:?}"));
        complete.lines().map(read).collect()
    }
}

/// What RBAC grants: verb, API group, resource.
pub type Right = (String, String, String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(rename = "requestURI")]
    request_uri: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl Event {
    fn into_call(self) -> Call {
        let object = self.object_ref;
        let resource = match (object.resource.as_str(), object.subresource.as_str()) {
            ("", _) => self.request_uri,
            (resource, "") => resource.to_owned(),
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        Call {
            verb: self.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: self.response_status.code,
        }
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const LOG: &str = concat!(
        r#"{"stage":"ResponseComplete","requestURI":"/x","verb":"patch","user":{"username":"op"},"#,
        r#""objectRef":{"resource":"services","namespace":"n","name":"m","apiVersion":"v1"},"responseStatus":{"code":201}}"#,
        "\n",
        r#"{"stage":"ResponseComplete","requestURI":"/x","verb":"get","user":{"username":"admin"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"stage":"Resp"#,
    );

    #[test]
    fn a_patch_that_created_needs_both_rights_and_a_half_written_line_waits() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LOG).unwrap();
        let log = AuditLog::new(file.path().to_owned());
        let used = log.rights_used(|user| user == "op").unwrap();
        let right = |verb: &str| (verb.to_owned(), String::new(), "services".to_owned());
        assert_eq!(used, BTreeMap::from([("op".to_owned(), BTreeSet::from([right("create"), right("patch")]))]));
        assert_eq!(log.writes_since(log.mark().unwrap(), "op").unwrap(), vec![]);
        assert_eq!(log.writes_since(Mark(0), "op").unwrap().len(), 1);
    }
}
