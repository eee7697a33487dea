//! Dialling a peer: connect, Hello both ways, open the stream. Never retries.

use hyper_util::rt::TokioIo;
use shoal_proto::shard::shard_client::ShardClient;
use shoal_proto::shard::{ExchangeRequest, HelloRequest, Identity, exchange_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{Down, Link};
use crate::shards::identity::compare;
use crate::shards::server::MISMATCH;
use crate::shards::{FRAME_BYTES, MESSAGE_BYTES, STREAM_BUFFER, WINDOW_BYTES};

/// Both halves of an open stream.
pub(super) struct Stream {
    pub(super) up: mpsc::Sender<ExchangeRequest>,
    pub(super) down: Down,
}

/// Why there is no stream.
pub(super) enum DialError {
    /// It may be there later: not up yet, or of another epoch.
    Failed(String),
    /// It is what was dialled and may not compute with us.
    Mismatch(String),
}

/// Connects to the peer's address, compares identities with whoever answers, and opens the stream.
pub(super) async fn connect(link: &Link) -> Result<Stream, DialError> {
    let mut client = client(link).await.map_err(DialError::Failed)?;
    let group = &link.group;
    let ours = group.identity();
    let limit = group.timing().suspect;
    let hello = client.hello(HelloRequest { identity: Some(ours.clone()) });
    let hello = tokio::time::timeout(limit, hello).await.map_err(|_| DialError::Failed("no answer to Hello".into()))?;
    let theirs = hello.map_err(|status| judge(&status))?.into_inner().identity.unwrap_or_default();
    accept(ours, &theirs, link.rank)?;
    let (up, frames) = mpsc::channel(STREAM_BUFFER);
    let first = exchange_request::Frame::Identity(ours.clone());
    drop(up.try_send(ExchangeRequest { epoch: ours.epoch, frame: Some(first) }));
    let open = tokio::time::timeout(limit, client.exchange(ReceiverStream::new(frames)));
    let open = open.await.map_err(|_| DialError::Failed("no answer to Exchange".into()))?;
    Ok(Stream { up, down: open.map_err(|status| judge(&status))?.into_inner() })
}

async fn client(link: &Link) -> Result<ShardClient<Channel>, String> {
    let Link { group, address, .. } = link;
    // With TLS too: the connector brings it, and tonic must not want a second layer.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(u32::try_from(FRAME_BYTES).expect("should fit: 1 MiB"));
    let channel = match link.tls.clone() {
        Some(tls) => {
            let (address, timing) = (address.clone(), *group.timing());
            let connector = tower::service_fn(move |_| {
                let (tls, address) = (tls.clone(), address.clone());
                async move { tls.connect(&address, &timing).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        None => endpoint.connect_timeout(group.timing().connect).tcp_nodelay(true).connect().await,
    };
    let channel = channel.map_err(|error| causes(&error))?;
    Ok(ShardClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
}

/// An error with what lies under it: a transport error alone says only "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An alien of another epoch may stand where our peer will be: that alone is worth another try.
fn judge(status: &tonic::Status) -> DialError {
    // A peer that refuses our certificate is heard only here: under "transport error" lies its alert.
    let source = std::error::Error::source(status).map(|cause| format!(": {}", causes(cause))).unwrap_or_default();
    let text = format!("{}{source}", status.message());
    match status.metadata().get(MISMATCH).and_then(|field| field.to_str().ok()) {
        Some("epoch") | None => DialError::Failed(text),
        Some(_) => DialError::Mismatch(text),
    }
}

fn accept(ours: &Identity, theirs: &Identity, rank: u32) -> Result<(), DialError> {
    if let Err(mismatch) = compare(ours, theirs) {
        let text = mismatch.to_string();
        return Err(if mismatch.field == "epoch" { DialError::Failed(text) } else { DialError::Mismatch(text) });
    }
    if theirs.rank != rank {
        return Err(DialError::Failed(format!("rank {} answers where rank {rank} was dialled", theirs.rank)));
    }
    Ok(())
}
