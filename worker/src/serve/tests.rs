//! The front as a client sees it: a real tonic client over loopback, a scripted engine behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use pretty_assertions::assert_eq;
use shoal_proto::inference as wire;
use shoal_proto::inference::generate_response::Event;
use shoal_proto::inference::inference_client::InferenceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::harness::{Front, LOG, channel, collect, ids, told};
use super::scripted::Script;
use super::*;

fn says(text: &[u8]) -> Script {
    Script { tokens: text.iter().map(|&byte| byte.into()).collect(), ..Script::default() }
}

fn slow() -> Script {
    Script { pace: Duration::from_millis(20), ..Script::default() }
}

async fn health(address: SocketAddr, service: &str) -> Result<i32, Code> {
    let mut client = HealthClient::new(channel(address).await);
    let answer = client.check(HealthCheckRequest { service: service.into() }).await;
    answer.map(|answer| answer.into_inner().status).map_err(|status| status.code())
}

const SERVING: Result<i32, Code> = Ok(1);
const NOT_SERVING: Result<i32, Code> = Ok(2);

#[tokio::test]
async fn an_answer_is_a_start_its_tokens_and_one_end() {
    let front = Front::new(Script::default()).await;
    let events = front.ask(ids(&[1, 2, 3])).await.unwrap();
    assert_eq!(told(&events), ("abcab".into(), vec![97, 98, 99, 97, 98], "length".into()));
    let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
    assert_eq!((started.prompt_tokens, started.request_id.len()), (3, 32));
    let usage = wire::Usage { prompt_tokens: 3, completion_tokens: 5, cached_tokens: 0 };
    let finished = wire::Finished { reason: "length".into(), usage: Some(usage) };
    assert_eq!(events.last(), Some(&Event::Finished(finished)));
    let Some(Event::Tokens(tokens)) = events.get(1) else { panic!("{events:?}") };
    let top = vec![wire::TopLogprob { id: 97, logprob: -1.0 }];
    assert_eq!(tokens.tokens[0], wire::Token { id: 97, text: "a".into(), logprob: -1.0, top });
}

#[tokio::test]
async fn an_end_token_ends_the_answer_unless_it_is_ignored() {
    let front = Front::new(Script { tokens: vec![256, 258], ..Script::default() }).await;
    assert_eq!(told(&front.ask(ids(&[1])).await.unwrap()), ("hi".into(), vec![256, 258], "eos".into()));
    let deaf = wire::GenerateRequest { ignore_eos: true, ..ids(&[1]) };
    let (text, _, end) = told(&front.ask(deaf).await.unwrap());
    assert_eq!((text.as_str(), end.as_str()), ("hihihi", "length"));
}

#[tokio::test]
async fn a_stop_string_across_tokens_ends_the_answer_before_it_and_cancels_the_request() {
    let front = Front::new(Script { pace: Duration::from_millis(2), ..says(b"so END and on") }).await;
    let request = wire::GenerateRequest { stop: vec!["END".into()], max_tokens: Some(90), ..ids(&[1]) };
    let (text, tokens, end) = told(&front.ask(request).await.unwrap());
    assert_eq!((text.as_str(), tokens.len(), end.as_str()), ("so ", 6, "stop"));
    while front.engine.cancelled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn text_that_was_held_back_comes_with_the_last_token() {
    let front = Front::new(says(b"so EN")).await;
    let request = wire::GenerateRequest { stop: vec!["END".into()], ..ids(&[1]) };
    assert_eq!(
        told(&front.ask(request).await.unwrap()),
        ("so EN".into(), b"so EN".map(u32::from).to_vec(), "length".into())
    );
    let front = Front::new(says("a€"[..].as_bytes())).await;
    let cut = wire::GenerateRequest { max_tokens: Some(3), ..ids(&[1]) };
    assert_eq!(told(&front.ask(cut).await.unwrap()), ("a\u{fffd}".into(), vec![97, 0xe2, 0x82], "length".into()));
}

#[tokio::test]
async fn a_bad_request_gets_a_status_and_no_stream() {
    let front = Front::new(Script::default()).await;
    let sampling = Some(wire::Sampling { temperature: f32::NAN, ..Default::default() });
    let cases = [
        (wire::GenerateRequest { model: "gpt".into(), ..ids(&[1]) }, Code::NotFound),
        (wire::GenerateRequest { max_tokens: Some(0), ..ids(&[1]) }, Code::InvalidArgument),
        (ids(&[1, 261]), Code::InvalidArgument),
        (ids(&[]), Code::InvalidArgument),
        (ids(&[1; 100]), Code::InvalidArgument),
        (wire::GenerateRequest { stop: vec!["x".repeat(1 << 20)], ..ids(&[1]) }, Code::InvalidArgument),
        (wire::GenerateRequest { sampling, ..ids(&[1]) }, Code::InvalidArgument),
        (wire::GenerateRequest { prompt: None, ..ids(&[1]) }, Code::InvalidArgument),
        (wire::GenerateRequest { tenant: "x".repeat(9 << 20), ..ids(&[1]) }, Code::OutOfRange),
    ];
    for (request, expected) in cases {
        let status = front.ask(request).await.unwrap_err();
        assert_eq!(status.code(), expected, "{}", status.message());
    }
    assert!(front.http("/metrics").await.contains("shoal_refusals_total{code=\"InvalidArgument\"} 7"));
}

#[tokio::test]
async fn without_a_tokenizer_only_ids_are_answered() {
    let front = Front::in_directory(Script::default(), tempfile::tempdir().unwrap()).await;
    assert_eq!(told(&front.ask(ids(&[1])).await.unwrap()), (String::new(), vec![97, 98, 99, 97, 98], "length".into()));
    let prompt = Some(wire::generate_request::Prompt::Text("hi".into()));
    let status = front.ask(wire::GenerateRequest { prompt, ..ids(&[]) }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("tokenizer.json"), "{}", status.message());
}

#[tokio::test]
async fn a_conversation_is_counted_as_it_is_asked() {
    let front = Front::new(Script::default()).await;
    let chat = wire::Chat { messages: vec![wire::Message { role: "user".into(), content: "hi".into() }] };
    let asked = wire::GenerateRequest {
        prompt: Some(wire::generate_request::Prompt::Chat(chat.clone())),
        ..Default::default()
    };
    let events = front.ask(asked).await.unwrap();
    let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
    // <bos>[user]hi<think>
    assert_eq!(started.prompt_tokens, 9);
    assert_eq!(told(&events).1.len(), 91, "absent max_tokens is the rest of the context");
    let prompt = Some(wire::count_tokens_request::Prompt::Chat(chat));
    let count = front.client().await.count_tokens(wire::CountTokensRequest { model: "tiny".into(), prompt }).await;
    assert_eq!(count.unwrap().into_inner(), wire::CountTokensResponse { tokens: 9 });
}

#[tokio::test]
async fn the_served_model_describes_itself() {
    let front = Front::new(Script::default()).await;
    let described = front.client().await.describe_model(wire::DescribeModelRequest::default()).await.unwrap();
    let expected = wire::DescribeModelResponse {
        model: "tiny".into(),
        architecture: "Scripted".into(),
        context_tokens: 100,
        vocabulary_size: 261,
        model_digest: "00".into(),
        numerics_id: "scripted".into(),
        shards: 1,
        rank: 0,
        epoch: 1,
        max_concurrent_sequences: 16,
        weight_bytes: 7,
        has_chat_template: true,
    };
    assert_eq!(described.into_inner(), expected);
    let other = front.client().await.describe_model(wire::DescribeModelRequest { model: "gpt".into() }).await;
    assert_eq!(other.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_deadline_is_a_typed_end_for_who_still_listens() {
    let front = Front::new(slow()).await;
    let mut request = Request::new(wire::GenerateRequest { max_tokens: None, ..ids(&[1]) });
    request.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
    let stream = front.client().await.generate(request).await.unwrap().into_inner();
    let (_, tokens, end) = told(&collect(stream).await.unwrap());
    assert_eq!(end, "DEADLINE_EXCEEDED retryable=false");
    assert!(tokens.len() < 20, "{} tokens", tokens.len());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let front = Front::new(slow()).await;
    let mut stream = front.client().await.generate(ids(&[1])).await.unwrap().into_inner();
    stream.message().await.unwrap();
    drop(stream);
    while front.engine.cancelled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(front.http("/metrics").await.contains("shoal_answers_total{outcome=\"client_left\"} 1"));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let front = Front::new(Script { stalled: true, ..Script::default() }).await;
    let mut client = front.client().await;
    let _waiting = [client.generate(ids(&[1])).await.unwrap(), client.generate(ids(&[1])).await.unwrap()];
    let status = client.generate(ids(&[1])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(status.get_details_error_info().unwrap().reason, "QUEUE_FULL");
}

#[tokio::test]
async fn an_engine_that_dies_ends_its_streams_with_a_typed_error() {
    let front = Front::new(Script { dies_after: Some(2), ..Script::default() }).await;
    let (_, tokens, end) = told(&front.ask(ids(&[1])).await.unwrap());
    assert_eq!((tokens.len(), end.as_str()), (2, "UNAVAILABLE retryable=true"));
}

#[tokio::test]
async fn health_is_the_process_and_its_group_and_nothing_else_on_its_port() {
    let front = Front::new(Script::default()).await;
    for address in [front.at.health, front.at.grpc] {
        assert_eq!(health(address, "").await, SERVING);
        assert_eq!(health(address, INFERENCE_SERVICE).await, SERVING);
        assert_eq!(health(address, "other").await, Err(Code::NotFound));
    }
    front.engine.readiness.send_replace(Readiness::Lost { reason: "rank 1 is dead".into() });
    while health(front.at.health, INFERENCE_SERVICE).await != NOT_SERVING {}
    assert_eq!(health(front.at.health, "").await, SERVING);
    let status = front.ask(ids(&[1])).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not ready: rank 1 is dead"));
    let mut wrong = InferenceClient::new(channel(front.at.health).await);
    let status = wrong.describe_model(wire::DescribeModelRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_drain_refuses_the_new_and_finishes_the_old() {
    let front = Front::new(slow()).await;
    let old = front.client().await.generate(wire::GenerateRequest { max_tokens: Some(10), ..ids(&[1]) }).await.unwrap();
    let address = front.at.grpc;
    let ask_anew = async || InferenceClient::new(channel(address).await).generate(ids(&[1])).await;
    front.stop.send(()).unwrap();
    front.engine.leave.cancelled().await;
    front.engine.drain.send_replace(DrainPhase::Leaving);
    while health(front.at.health, INFERENCE_SERVICE).await != NOT_SERVING {}
    assert!(ask_anew().await.is_ok(), "what is on its way is still accepted");
    front.engine.drain.send_replace(DrainPhase::Refusing);
    let status = ask_anew().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(told(&collect(old.into_inner()).await.unwrap()).2, "length");
    front.engine.drain.send_replace(DrainPhase::Done);
    front.running.await.unwrap().unwrap();
}

/// A channel of one connection at a time, and how often it had to make it.
fn counted(address: SocketAddr) -> (Channel, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let connect = tower::service_fn(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { tokio::net::TcpStream::connect(address).await.map(TokioIo::new) }
    });
    (Endpoint::from_static("http://worker").connect_with_connector_lazy(connect), made)
}

/// Asks until the channel has made this many connections; every request that leaves is answered.
async fn until_connected_anew(client: &mut InferenceClient<Channel>, made: &AtomicUsize, wanted: usize) {
    while made.load(Ordering::Relaxed) < wanted {
        match client.generate(wire::GenerateRequest { max_tokens: Some(1), ..ids(&[1]) }).await {
            Ok(answer) => drop(collect(answer.into_inner()).await.unwrap()),
            // Never sent: hyper gives back what waited for a connection that was sent away.
            Err(status) => assert_eq!(status.code(), Code::Cancelled, "{status:?}"),
        }
    }
}

#[tokio::test]
async fn a_group_that_leaves_sends_its_clients_away_and_fails_none_of_their_requests() {
    let front = Front::new(slow()).await;
    let (channel, connections) = counted(front.at.grpc);
    let mut client = InferenceClient::new(channel);
    // Longer than a late comer may stay.
    let long = || wire::GenerateRequest { max_tokens: Some(90), ..ids(&[1]) };
    let mut started = vec![client.generate(long()).await.unwrap()];
    front.engine.drain.send_replace(DrainPhase::Leaving);
    // Away from where it was, and away again since it came back here.
    for wanted in [2, 3] {
        let sent_away = until_connected_anew(&mut client, &connections, wanted);
        tokio::time::timeout(Duration::from_secs(10), sent_away).await.expect("a connection outlives the leaving");
        started.push(client.generate(long()).await.unwrap());
    }
    for stream in started {
        assert_eq!(told(&collect(stream.into_inner()).await.unwrap()).1.len(), 90);
    }
    front.engine.drain.send_replace(DrainPhase::Done);
    front.running.await.unwrap().unwrap();
}

/// Makes one connection, lets the group leave, and asks over it.
async fn asked_after_leaving() -> Result<(), tonic::Status> {
    let front = Front::new(says(b"a")).await;
    let mut only = Some(tokio::net::TcpStream::connect(front.at.grpc).await.unwrap());
    let connect = tower::service_fn(move |_| {
        let connection = only.take().map(TokioIo::new);
        async move { connection.ok_or_else(|| std::io::Error::other("the connection was sent away")) }
    });
    let channel = Endpoint::from_static("http://worker").connect_with_connector(connect).await.unwrap();
    front.engine.drain.send_replace(DrainPhase::Leaving);
    while health(front.at.health, INFERENCE_SERVICE).await != NOT_SERVING {}
    collect(InferenceClient::new(channel).generate(ids(&[1])).await?.into_inner()).await.map(drop)
}

#[tokio::test]
async fn a_connection_made_just_before_the_group_leaves_has_time_for_its_request() {
    // A busy machine may take longer than that time.
    for _ in 0..4 {
        if asked_after_leaving().await.is_ok() {
            return;
        }
    }
    asked_after_leaving().await.unwrap();
}

#[tokio::test]
async fn a_connection_of_age_is_told_to_go_finishes_what_it_began_and_is_cut_after_the_grace() {
    let stay = Stay { age: Duration::from_millis(200), grace: Duration::from_secs(4) };
    let front = Front::staying(stay, slow()).await;
    let (channel, connections) = counted(front.at.grpc);
    let watched = HealthCheckRequest { service: INFERENCE_SERVICE.into() };
    let mut endless = HealthClient::new(channel.clone()).watch(watched).await.unwrap().into_inner();
    assert_eq!(endless.message().await.unwrap().map(|state| state.status), Some(1));
    let mut client = InferenceClient::new(channel);
    // Begun before the age, and nine times as long.
    let begun = client.generate(wire::GenerateRequest { max_tokens: Some(90), ..ids(&[1]) }).await.unwrap();
    until_connected_anew(&mut client, &connections, 2).await;
    assert!(endless.message().now_or_never().is_none(), "cut before it was told to go");
    assert_eq!(told(&collect(begun.into_inner()).await.unwrap()).1.len(), 90);
    let cut = tokio::time::timeout(Duration::from_secs(30), endless.message()).await;
    assert!(cut.expect("a stream outlives the grace").is_err());
}

#[tokio::test]
async fn a_lost_group_ends_its_process_after_its_clients_could_learn_of_it() {
    let front = Front::new(says(b"a")).await;
    let begun = Instant::now();
    front.engine.readiness.send_replace(Readiness::Lost { reason: "peer rank 1 is lost: silent".into() });
    while front.http("/readyz").await.starts_with("HTTP/1.1 200") {}
    let refused = front.ask(ids(&[1])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let error = front.running.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the group is lost: peer rank 1 is lost: silent");
    assert!(begun.elapsed() >= LOST);
}

#[tokio::test]
async fn a_stream_that_is_still_being_written_outlives_the_drain() {
    let front = Front::new(Script::default()).await;
    let mut client = front.client().await;
    let old = client.generate(wire::GenerateRequest { max_tokens: Some(90), ..ids(&[1]) }).await.unwrap();
    front.engine.drain.send_replace(DrainPhase::Done);
    assert_eq!(told(&collect(old.into_inner()).await.unwrap()).1.len(), 90);
    front.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn plain_http_tells_life_readiness_and_figures() {
    let front = Front::new(Script::default()).await;
    assert!(front.http("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(front.http("/metrics").await.contains("shoal_steps_total 0"));
    assert!(front.http("/other").await.starts_with("HTTP/1.1 404"));
    front.engine.readiness.send_replace(Readiness::Starting);
    while !front.http("/readyz").await.starts_with("HTTP/1.1 503") {}
}

#[tokio::test]
async fn a_taken_port_is_refused_by_flag_and_address() {
    let front = Front::new(Script::default()).await;
    let listeners = crate::config::Listeners { http: None, ..front.at.clone() };
    let error = Bound::bind(&listeners).await.unwrap_err();
    assert_eq!(error.to_string(), format!("--listen {} cannot be listened on", front.at.grpc));
}

#[tokio::test]
async fn reflection_names_every_service() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let front = Front::new(Script::default()).await;
    let mut client = ServerReflectionClient::new(channel(front.at.grpc).await);
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(names, ["grpc.health.v1.Health", INFERENCE_SERVICE]);
}

#[tokio::test]
async fn what_is_said_never_reaches_the_log() {
    let front = Front::new(says(b"canary")).await;
    let prompt = Some(wire::generate_request::Prompt::Text("a prompt with a canary".into()));
    let asked = wire::GenerateRequest { prompt, max_tokens: Some(12), stop: vec!["canaryc".into()], ..ids(&[]) };
    let events = front.ask(asked.clone()).await.unwrap();
    assert_eq!(told(&events).2, "stop");
    front.ask(wire::GenerateRequest { max_tokens: Some(0), ..asked.clone() }).await.unwrap_err();
    front.ask(wire::GenerateRequest { tenant: "canary".repeat(20), ..asked }).await.unwrap_err();
    let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
    let log = LOG.text();
    let answered = format!("\"message\":\"answered\",\"request_id\":\"{}\"", started.request_id);
    assert!(log.contains(&answered), "{answered} is not in\n{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn a_slow_start_can_be_stopped_and_a_failed_one_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("--listen 127.0.0.1:0 --health-listen 127.0.0.1:0 --model {}", directory.path().display());
    let config = Arc::new(Config::from_args(line.split(' ').map(str::to_owned), &|_| None).unwrap());
    let begun = Instant::now();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let never = move || {
        let _ = wait.recv_timeout(Duration::from_secs(20));
        Err("too late".into())
    };
    let bound = Bound::bind(&config.listen).await.unwrap();
    let stop = tokio::time::sleep(Duration::from_millis(50));
    run(Arc::clone(&config), bound, never, stop).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(release);
    let bound = Bound::bind(&config.listen).await.unwrap();
    let error = run(config, bound, || Err("no weights".into()), std::future::pending()).await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no weights");
}
