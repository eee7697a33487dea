//! What a request asks for, in RBAC's words. Pure.

use http::Request;

use crate::metrics::verb;

/// Verb and resource of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`.
    pub(super) verb: &'static str,
    /// Plural, with `/SUBRESOURCE` where there is one; empty for paths that are no resource's.
    pub(super) resource: String,
}

impl Call {
    /// Reads method, path and query; the server's address may have a path of its own in front.
    pub(super) fn of<A>(request: &Request<A>) -> Self {
        let mut parts = request.uri().path().split('/').filter(|part| !part.is_empty());
        // /api/VERSION/… and /apis/GROUP/VERSION/…
        let root = parts.find(|part| matches!(*part, "api" | "apis"));
        let rest: Vec<&str> = parts.skip(if root == Some("apis") { 2 } else { 1 }).collect();
        let within = match rest.as_slice() {
            ["namespaces", _, resource, ..] if *resource != "status" => &rest[2..],
            all => all,
        };
        let resource = within.first().copied().unwrap_or_default();
        let subresource = within.get(2).map(|part| format!("/{part}")).unwrap_or_default();
        let named = within.len() > 1;
        let verb = match verb(request) {
            "get" if !named => "list",
            verb => verb,
        };
        Self { verb, resource: format!("{resource}{subresource}") }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Method::GET, "/api/v1/pods?limit=500", "list pods")]
    #[case(Method::GET, "/api/v1/pods?watch=true", "watch pods")]
    #[case(Method::POST, "/api/v1/namespaces/n/pods?fieldManager=shoal", "create pods")]
    #[case(Method::DELETE, "/api/v1/namespaces/n/pods/p", "delete pods")]
    #[case(Method::GET, "/prefix/api/v1/nodes/n", "get nodes")]
    #[case(
        Method::PATCH,
        "/apis/inference.shoal.dev/v1alpha1/namespaces/n/modeldeployments/m/status",
        "patch modeldeployments/status"
    )]
    #[case(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", "update leases")]
    #[case(Method::GET, "/version", "list ")]
    fn a_request_shows_its_verb_and_resource(#[case] method: Method, #[case] uri: &str, #[case] shown: &str) {
        let call = Call::of(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert_eq!(format!("{} {}", call.verb, call.resource), shown);
    }
}
