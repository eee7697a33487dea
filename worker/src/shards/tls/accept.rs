//! The shard port: TCP connections in, proven peers out. Never hands out a connection whose handshake is not done.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::Tls;
use super::refusals::Refusals;
use crate::shards::group::Group;

/// Handshakes under way at once; strangers who only connect hold a place until the handshake's time is over.
const HANDSHAKES: usize = 128;
/// Before another try after the system had no socket to give.
const BREATH: Duration = Duration::from_millis(100);

type Proven = mpsc::Sender<io::Result<TlsStream<TcpStream>>>;

/// Connections of peers that have proven who they are; ends when nobody reads it any more.
pub(in crate::shards) fn incoming(
    listener: TcpListener,
    tls: &Tls,
    group: &Group,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (proven, stream) = mpsc::channel(1);
    let handshake = Handshake { acceptor: tls.acceptor.clone(), limit: group.timing().handshake, proven };
    tokio::spawn(accept(listener, handshake, Arc::new(Refusals::new(group.stats_handle()))));
    ReceiverStream::new(stream)
}

async fn accept(listener: TcpListener, handshake: Handshake, refusals: Arc<Refusals>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = handshake.proven.closed() => return,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let (handshake, refusals) = (handshake.clone(), Arc::clone(&refusals));
        tokio::spawn(async move {
            if let Err(error) = handshake.run(stream).await {
                refusals.note(&error, peer, Instant::now());
            }
            drop(place);
        });
    }
}

#[derive(Clone)]
struct Handshake {
    acceptor: TlsAcceptor,
    limit: Duration,
    proven: Proven,
}

impl Handshake {
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
        let proven = tokio::time::timeout(self.limit, self.acceptor.accept(stream)).await.map_err(late)??;
        // Nobody reads any more: the server is going away, and so does the connection.
        drop(self.proven.send(Ok(proven)).await);
        Ok(())
    }
}
