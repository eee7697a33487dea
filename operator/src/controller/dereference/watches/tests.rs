use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use pretty_assertions::assert_eq;
use tokio::sync::mpsc;

use super::*;

/// An API server that refuses everything, and what it was asked for.
fn deaf() -> (Client, mpsc::UnboundedReceiver<String>) {
    let (asked, questions) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        // Nobody listens any more when the test has seen enough.
        let _ = asked.send(request.uri().to_string());
        async { Ok::<_, Infallible>(Response::builder().status(500).body(Body::empty()).expect("a response")) }
    });
    (Client::new(service, "default"), questions)
}

#[tokio::test]
async fn of_what_the_cluster_holds_only_nodes_and_what_carries_our_label_is_asked_for() {
    let (client, mut questions) = deaf();
    let (metrics, _registry) = Metrics::new();
    let mut tasks = JoinSet::new();
    let (timing, catalogue) = (Timing::default(), Catalogue::default());
    let _world = World::watch(&client, None, (timing, &metrics, &catalogue), &mut tasks).await;
    let mut asked = BTreeSet::new();
    while asked.len() < 6 {
        let uri = questions.recv().await.expect("a question");
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
        let ours = query.contains("labelSelector=inference.shoal.dev%2Fmodel");
        asked.insert(format!("{kind}{}", if ours { " of ours" } else { "" }));
    }
    let expected = [
        "modeldeployments",
        "networkpolicies of ours",
        "nodes",
        "poddisruptionbudgets of ours",
        "pods of ours",
        "services of ours",
    ];
    assert_eq!(asked.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
