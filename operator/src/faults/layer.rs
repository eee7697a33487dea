//! The layer around the Kubernetes client that carries out what [`ApiFaults`] orders.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http::header::RETRY_AFTER;
use http::{Request, Response};
use kube::client::Body;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use tower::{BoxError, Layer, Service};

use super::body::Answer;
use super::call::Call;
use super::rule::{ApiFaults, Fault, Rule};

/// See the module. Counts calls per rule, over all clones.
#[derive(Clone)]
pub struct InjectFaults<S = ()> {
    rules: Arc<Vec<(Rule, AtomicU64)>>,
    inner: S,
}

impl InjectFaults {
    /// The layer.
    #[must_use]
    pub fn new(faults: ApiFaults) -> Self {
        let rules = faults.0.into_iter().map(|rule| (rule, AtomicU64::new(0)));
        Self { rules: Arc::new(rules.collect()), inner: () }
    }
}

impl<S> Layer<S> for InjectFaults {
    type Service = InjectFaults<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InjectFaults { rules: Arc::clone(&self.rules), inner }
    }
}

impl<S> InjectFaults<S> {
    /// Every rule counts the calls that it is about; the first that strikes wins.
    fn strike(&self, call: &Call) -> Option<Fault> {
        let mut struck = None;
        for (rule, seen) in self.rules.iter().filter(|(rule, _)| rule.is_about(call)) {
            let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if rule.strikes(number) && struck.is_none() {
                tracing::warn!(fault = ?rule.fault, verb = call.verb, resource = %call.resource, number, "API fault");
                struck = Some(rule.fault);
            }
        }
        struck
    }
}

impl<S, B> Service<Request<Body>> for InjectFaults<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Answer<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call::of(&request);
        let fault = self.strike(&call);
        match fault {
            Some(Fault::Status(code)) => return Box::pin(async move { Ok(refusal(code, call.verb)) }),
            Some(Fault::Reset) => {
                return Box::pin(async { Err(std::io::Error::from(ErrorKind::ConnectionReset).into()) });
            }
            Some(Fault::CrashBefore) => die(),
            _ => {}
        }
        // Nothing is sent before the future is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            if let Some(Fault::Slow(by)) = fault {
                tokio::time::sleep(by).await;
            }
            let answer = answer.await.map_err(Into::into)?;
            Ok(match fault {
                Some(Fault::CrashAfter) => {
                    die();
                    answer.map(Answer::whole)
                }
                Some(Fault::Truncated) => answer.map(Answer::truncated),
                Some(Fault::Ended(after)) => answer.map(|body| Answer::ended(body, after, false)),
                Some(Fault::Expired(after)) => answer.map(|body| Answer::ended(body, after, true)),
                _ => answer.map(Answer::whole),
            })
        })
    }
}

/// As `kill -9` does it: nothing is flushed, nothing released.
fn die() {
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        tracing::error!(%error, "the process outlives its crash");
    }
}

/// In the words of an API server.
fn refusal<B>(code: u16, verb: &str) -> Response<Answer<B>> {
    let reason = match (code, verb) {
        (409, "create") => "AlreadyExists",
        (409, _) => "Conflict",
        (429, _) => "TooManyRequests",
        (503, _) => "ServiceUnavailable",
        (504, _) => "Timeout",
        _ => "InternalError",
    };
    let details = if code == 429 { json!({"retryAfterSeconds": 1}) } else { json!({}) };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "injected", "reason": reason, "details": details, "code": code,
    });
    let mut answer = Response::builder().status(code);
    if code == 429 {
        answer = answer.header(RETRY_AFTER, "1");
    }
    answer.body(Answer::made_up(status.to_string())).expect("a status code from the grammar should be valid")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use pretty_assertions::assert_eq;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    /// What a client sees of calls sent one after the other through `faults`.
    async fn seen(faults: &str, calls: &[(&str, &str)]) -> Vec<String> {
        let server =
            service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from(vec![b'x'; 100]))) });
        let layer = InjectFaults::new(faults.parse().unwrap());
        let mut shown = Vec::new();
        for (method, uri) in calls {
            let request = Request::builder().method(*method).uri(*uri).body(Body::empty()).unwrap();
            // Clones share the count.
            shown.push(match layer.layer(server).oneshot(request).await {
                Ok(answer) => {
                    let (code, again) = (answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER));
                    let length =
                        axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 20).await.unwrap().len();
                    format!("{code}{}{}", if again { " again" } else { "" }, if length == 64 { " cut" } else { "" })
                }
                Err(error) => error.to_string(),
            });
        }
        shown
    }

    #[tokio::test]
    async fn the_nth_call_of_a_rule_is_struck_and_no_other() {
        let (pods, leases) = ("/api/v1/namespaces/n/pods", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l");
        let calls = [("POST", pods), ("PUT", leases), ("GET", pods), ("POST", pods), ("POST", pods)];
        assert_eq!(seen("429 write * 2", &calls).await, ["200", "200", "200", "429 again", "200"]);
        assert_eq!(seen("reset create", &calls[..2]).await, ["connection reset", "200"]);
        let both = "truncated list; 503 * leases";
        assert_eq!(seen(both, &calls[..3]).await, ["200", "503", "200 cut"]);
    }
}
