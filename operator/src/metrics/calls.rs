//! A layer around the Kubernetes client that counts every request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower::{Layer, Service};

use super::{CallLabels, Metrics};

/// Counts requests into [`Metrics::api_calls`].
#[derive(Clone)]
pub struct CountCalls<S = ()> {
    metrics: Metrics,
    inner: S,
}

impl CountCalls {
    /// The layer.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, inner: () }
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = CountCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountCalls { metrics: self.metrics.clone(), inner }
    }
}

impl<S, A, B> Service<Request<A>> for CountCalls<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let verb = verb(&request);
        let calls = self.metrics.api_calls.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or(0, |response| response.status().as_u16());
            calls.get_or_create(&CallLabels { verb, code }).inc();
            answer
        })
    }
}

/// The verb as far as method and query show it; lists count as `get`.
pub(crate) fn verb<A>(request: &Request<A>) -> &'static str {
    let watch = || request.uri().query().is_some_and(|query| query.contains("watch=true"));
    match *request.method() {
        Method::GET if watch() => "watch",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_of_rbac_as_far_as_a_request_shows_them() {
        let of = |method: Method, uri: &str| verb(&Request::builder().method(method).uri(uri).body(()).unwrap());
        assert_eq!(of(Method::GET, "/api/v1/pods?watch=true&timeoutSeconds=9"), "watch");
        assert_eq!(of(Method::GET, "/api/v1/pods"), "get");
        assert_eq!(of(Method::POST, "/x"), "create");
        assert_eq!(of(Method::PATCH, "/x"), "patch");
    }
}
