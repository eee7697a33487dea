//! A Service on this machine: one listening address that stays, and the ready pods behind it that change.
//!
//! Never retries a request: a connection belongs to one pod, and ends with it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Connections of one address at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Rest after an accept that failed (out of file descriptors), so that the loop does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// One port of a Service. Dropping it closes the address; connections that exist go on.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    targets: watch::Sender<Vec<SocketAddr>>,
    accepting: AbortHandle,
}

impl Forwarder {
    /// Listens on `address` (port 0: a free one) and forwards to nobody yet.
    ///
    /// # Errors
    /// Whatever binding says, such as an address in use.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (targets, ready) = watch::channel(Vec::new());
        let accepting = tokio::spawn(accept(listener, ready)).abort_handle();
        Ok(Self { address, targets, accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pods that new connections go to, in turn. None: connections are closed at once.
    pub fn set_targets(&self, targets: Vec<SocketAddr>) {
        self.targets.send_if_modified(|current| {
            let changed = *current != targets;
            *current = targets;
            changed
        });
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, targets: watch::Receiver<Vec<SocketAddr>>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut turn = 0usize;
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let mut order = targets.borrow().clone();
                if !order.is_empty() {
                    let first = turn % order.len();
                    order.rotate_left(first);
                }
                turn = turn.wrapping_add(1);
                tokio::spawn(async move {
                    forward(client, order).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_REST).await,
        }
    }
}

/// Joins `client` to the first target that accepts; with none, closing it is the answer.
async fn forward(mut client: TcpStream, targets: Vec<SocketAddr>) {
    for target in targets {
        let Ok(mut pod) = TcpStream::connect(target).await else { continue };
        // Tokens are small messages: waiting to fill a segment would show as latency.
        let _ = client.set_nodelay(true).and_then(|()| pod.set_nodelay(true));
        // Either end may vanish; both learn it by the close.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
        return;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A pod that answers every connection with its name.
    async fn pod(name: &'static str) -> (SocketAddr, AbortHandle) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(name.as_bytes()).await.unwrap();
            }
        });
        (address, serving.abort_handle())
    }

    async fn ask(address: SocketAddr) -> String {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A reset is also "closed at once".
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_address_stays_while_the_pods_behind_it_change() {
        let forwarder = Forwarder::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_eq!(ask(forwarder.address()).await, "", "no pod is ready");

        let ((a, stop_a), (b, _)) = (pod("a").await, pod("b").await);
        forwarder.set_targets(vec![a, b]);
        let answers = [ask(forwarder.address()).await, ask(forwarder.address()).await];
        assert!(answers.contains(&"a".to_owned()) && answers.contains(&"b".to_owned()), "in turn: {answers:?}");

        stop_a.abort();
        tokio::task::yield_now().await;
        for _ in 0..4 {
            assert_eq!(ask(forwarder.address()).await, "b", "a pod that refuses is passed over");
        }
        let (c, _) = pod("c").await;
        forwarder.set_targets(vec![c]);
        assert_eq!(ask(forwarder.address()).await, "c");
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let first = Forwarder::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Forwarder::bind(first.address()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
