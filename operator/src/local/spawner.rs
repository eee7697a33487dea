//! One thread that starts all children.
//!
//! The kernel's parent-death signal fires when the *thread* that started a child ends, so no thread of a pool may
//! start one. Never waits for a child.

use std::io;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts children; lives as long as any of them should.
#[derive(Debug)]
pub struct Spawner {
    jobs: mpsc::SyncSender<Job>,
}

impl Spawner {
    /// Starts the thread. Must be called inside a tokio runtime, which will reap the children.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> io::Result<Self> {
        // As many as one group has pods: more would only wait here instead of there.
        let (jobs, waiting) = mpsc::sync_channel::<Job>(64);
        let runtime = Handle::current();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            for job in waiting {
                let child = tokio::process::Command::from(job.command).kill_on_drop(true).spawn();
                // Unwanted by now: dropping the child kills it.
                let _ = job.reply.send(child);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts one child.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the spawner thread is gone");
        let (reply, child) = oneshot::channel();
        self.jobs.try_send(Job { command, reply }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}
