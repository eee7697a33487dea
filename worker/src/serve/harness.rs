//! A front on loopback before a scripted engine, and a real client. For tests.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use shoal_proto::inference as wire;
use shoal_proto::inference::generate_response::Event;
use shoal_proto::inference::inference_client::InferenceClient;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::scripted::{self, Controls, Script};
use super::{Bound, ServeError, Stay, run};
use crate::config::{Config, Listeners};
use crate::text::fixture::write_tokenizer;

pub(super) struct Front {
    pub(super) at: Listeners,
    pub(super) engine: Controls,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) running: JoinHandle<Result<(), ServeError>>,
    _directory: tempfile::TempDir,
}

impl Front {
    pub(super) async fn new(script: Script) -> Self {
        Self::staying(Stay::USUAL, script).await
    }

    /// Its clients' connections may be used for so long.
    pub(super) async fn staying(stay: Stay, script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_tokenizer(directory.path());
        Self::start(stay, script, directory).await
    }

    pub(super) async fn in_directory(script: Script, directory: tempfile::TempDir) -> Self {
        Self::start(Stay::USUAL, script, directory).await
    }

    async fn start(stay: Stay, script: Script, directory: tempfile::TempDir) -> Self {
        LazyLock::force(&LOG);
        let line = "--model-name tiny --listen 127.0.0.1:0 --http 127.0.0.1:0 --health-listen 127.0.0.1:0 --model";
        let args = line.split(' ').map(str::to_owned).chain([directory.path().to_str().unwrap().to_owned()]);
        let config = Config::from_args(args, &|_| None).unwrap();
        let bound = Bound { stay, ..Bound::bind(&config.listen).await.unwrap() };
        let at = bound.addresses().unwrap();
        let (handle, engine) = scripted::engine(script);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let running = tokio::spawn(run(Arc::new(config), bound, move || Ok(handle), stopped));
        let front = Self { at, engine, stop, running, _directory: directory };
        front.until_serving().await;
        front
    }

    async fn until_serving(&self) {
        while !self.http("/readyz").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn client(&self) -> InferenceClient<Channel> {
        InferenceClient::new(channel(self.at.grpc).await)
    }

    /// All events of one answer.
    pub(super) async fn ask(&self, request: wire::GenerateRequest) -> Result<Vec<Event>, Status> {
        collect(self.client().await.generate(request).await?.into_inner()).await
    }

    /// Status line, headers and body of a GET.
    pub(super) async fn http(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.at.http.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

pub(super) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

pub(super) async fn collect(mut stream: tonic::Streaming<wire::GenerateResponse>) -> Result<Vec<Event>, Status> {
    let mut events = Vec::new();
    while let Some(message) = stream.message().await? {
        events.push(message.event.unwrap());
    }
    Ok(events)
}

pub(super) fn ids(ids: &[u32]) -> wire::GenerateRequest {
    let prompt = wire::generate_request::Prompt::TokenIds(wire::TokenIds { ids: ids.to_vec() });
    wire::GenerateRequest { prompt: Some(prompt), max_tokens: Some(5), ..Default::default() }
}

/// An answer in short: text, ids, and how it ended; panics unless there is one `started` first and one end last.
pub(super) fn told(events: &[Event]) -> (String, Vec<u32>, String) {
    let [Event::Started(_), middle @ .., last] = events else { panic!("no start or no end: {events:?}") };
    let tokens: Vec<&wire::Token> = middle
        .iter()
        .flat_map(|event| match event {
            Event::Tokens(tokens) => &tokens.tokens,
            other => panic!("{other:?} in the middle"),
        })
        .collect();
    let end = match last {
        Event::Finished(finished) => finished.reason.clone(),
        Event::Failed(failed) => format!("{} retryable={}", failed.code, failed.retryable),
        other => panic!("{other:?} at the end"),
    };
    (tokens.iter().map(|token| token.text.as_str()).collect(), tokens.iter().map(|token| token.id).collect(), end)
}

/// Everything that all tests of this process log: one subscriber, because each place in the code remembers whether
/// anybody wants its lines.
pub(super) static LOG: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let writer = lines.clone();
    let filter = "info,shoal_worker=trace";
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(move || writer.clone()).init();
    lines
});

#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
