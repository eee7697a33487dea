//! A client that asks on a fixed schedule, however slow the answers are, and never asks anything twice.
//!
//! Every other request goes over one connection that is kept, the rest over a new one each. A request that never left
//! because its connection had just been sent away (GOAWAY) is sent over the next one, as every gRPC library does without
//! being told to; tonic hands it back instead. Those are counted apart, and nothing else is sent again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use shoal_proto::inference::GenerateRequest;
use shoal_proto::inference::inference_client::InferenceClient;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::{Channel, Endpoint};

use crate::fleet::ask::{End, Open, greedy};

/// Between two requests.
const EVERY: Duration = Duration::from_millis(20);
/// Requests without an answer at which the next one fails unsent: nothing here grows without bound.
const UNANSWERED: usize = 512;
/// An answer that takes longer is none.
const LATE: Duration = Duration::from_secs(30);
const PROMPT: [u32; 2] = [3, 8];
const TOKENS: u32 = 8;

/// What came of the requests so far.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Whole answers over the connection that is kept.
    pub over_kept: usize,
    /// Whole answers over a new connection each.
    pub over_new: usize,
    /// Requests that were given back unsent and then sent, of those over the connection that is kept.
    pub unsent: usize,
    /// One line each: when, over which connection, and why.
    pub failures: Vec<String>,
    /// How long answers took, in whole hundreds of milliseconds.
    pub took: BTreeMap<u128, usize>,
    /// Of the first answer; greedy ones are all equal.
    ids: Vec<u32>,
}

impl Account {
    /// Requests that were due.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.over_kept + self.over_new + self.failures.len()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (over_kept, over_new, failed) = (self.over_kept, self.over_new, self.failures.len());
        write!(
            f,
            "{} requests: {over_kept} answered over the kept connection, {over_new} over new ones, ",
            self.asked()
        )?;
        write!(f, "{failed} failed, {} left over the next connection; ", self.unsent)?;
        write!(f, "answers by tenths of a second: {:?}", self.took)
    }
}

/// The running client; dropped, it stops without an account.
pub struct Steady {
    account: watch::Receiver<Account>,
    stop: Arc<AtomicBool>,
    asking: JoinHandle<()>,
}

impl Steady {
    /// Begins to ask `address` (`HOST:PORT`).
    ///
    /// # Errors
    /// When it is not an address.
    pub fn start(address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let (sender, account) = watch::channel(Account::default());
        let stop = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(ask_until(Arc::clone(&stop), endpoint, sender));
        Ok(Self { account, stop, asking })
    }

    /// Waits until `more` requests have come to their end from now on.
    ///
    /// # Errors
    /// When the client ended by itself.
    pub async fn go_on(&mut self, more: usize) -> Result<()> {
        let goal = self.account.borrow().asked() + more;
        self.account.wait_for(|account| account.asked() >= goal).await.context("the client ended by itself")?;
        Ok(())
    }

    /// Asks nothing more and waits for the answers that are due.
    ///
    /// # Errors
    /// When the client panicked.
    pub async fn stop(mut self) -> Result<Account> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.asking).await?;
        Ok(self.account.borrow().clone())
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

async fn ask_until(stop: Arc<AtomicBool>, endpoint: Endpoint, account: watch::Sender<Account>) {
    let kept = endpoint.connect_lazy();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    // A tick that came late is made up for: the schedule holds whatever the answers do.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut unanswered = JoinSet::new();
    for number in 0_usize.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        while unanswered.try_join_next().is_some() {}
        let sent = began.elapsed();
        if unanswered.len() >= UNANSWERED {
            let why = format!("{sent:.2?}: not sent: {UNANSWERED} are unanswered");
            account.send_modify(|account| account.failures.push(why));
            continue;
        }
        let kept = (number % 2 == 0).then(|| kept.clone());
        let (endpoint, account) = (endpoint.clone(), account.clone());
        unanswered.spawn(async move {
            let over_kept = kept.is_some();
            let outcome = tokio::time::timeout(LATE, ask(kept, &endpoint, &account)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {LATE:?}")));
            let took = began.elapsed() - sent;
            account.send_modify(|account| account.enter(over_kept, outcome, (sent, took)));
        });
    }
    unanswered.join_all().await;
}

impl Account {
    fn enter(&mut self, over_kept: bool, outcome: Result<Vec<u32>>, (sent, took): (Duration, Duration)) {
        let outcome = outcome.and_then(|ids| {
            if self.ids.is_empty() {
                self.ids.clone_from(&ids);
            }
            if ids == self.ids { Ok(()) } else { bail!("another answer: {ids:?}, at first {:?}", self.ids) }
        });
        match outcome {
            Ok(()) if over_kept => self.over_kept += 1,
            Ok(()) => self.over_new += 1,
            Err(error) => {
                let over = if over_kept { "the kept connection" } else { "a new connection" };
                return self.failures.push(format!("{sent:.2?} after {took:.2?} over {over}: {error:#}"));
            }
        }
        *self.took.entry(took.as_millis() / 100).or_default() += 1;
    }
}

/// The ids of one whole answer.
async fn ask(kept: Option<Channel>, endpoint: &Endpoint, account: &watch::Sender<Account>) -> Result<Vec<u32>> {
    let over_kept = kept.is_some();
    let channel = match kept {
        Some(channel) => channel,
        None => endpoint.connect().await.context("connecting")?,
    };
    let request = GenerateRequest { top_logprobs: 0, ..greedy(&PROMPT, TOKENS) };
    let mut open = Open::begin(InferenceClient::new(channel.clone()), request.clone()).await;
    if over_kept && open.as_ref().is_err_and(never_left) {
        account.send_modify(|account| account.unsent += 1);
        open = Open::begin(InferenceClient::new(channel), request).await;
    }
    let answer = open?.finish().await?;
    match answer.end {
        End::Finished(_) => Ok(answer.tokens.iter().map(|token| token.id).collect()),
        End::Failed(failed) => bail!("failed: {failed:?}"),
    }
}

/// Whether hyper gave the request back as it was: it says so of nothing that it has begun to send.
fn never_left(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_canceled)
}
