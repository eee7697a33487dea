//! A wire that can be cut: a TCP forwarder between two ranks, to break streams while both ends live.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections; stops when dropped.
pub struct Proxy {
    /// Where to connect.
    pub address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    cuts: watch::Sender<u64>,
    carried: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on loopback; connections are dropped until there is a target.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
        let address = listener.local_addr()?;
        let (target, cuts) = (Arc::new(OnceLock::new()), watch::Sender::new(0));
        let carried = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, Arc::clone(&target), cuts.clone(), Arc::clone(&carried)));
        Ok(Self { address, target, cuts, carried, task })
    }

    /// Says where connections lead.
    pub fn lead_to(&self, target: SocketAddr) {
        // A second call changes nothing: a fleet's addresses never change.
        let _ = self.target.set(target);
    }

    /// Breaks every connection there is; new ones are carried again.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// How many connections were carried so far.
    #[must_use]
    pub fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    target: Arc<OnceLock<SocketAddr>>,
    cuts: watch::Sender<u64>,
    carried: Arc<AtomicUsize>,
) {
    while let Ok((mut near, _)) = listener.accept().await {
        let Some(&target) = target.get() else { continue };
        let mut cut = cuts.subscribe();
        carried.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.changed() => {}
            }
        });
    }
}
