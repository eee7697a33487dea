//! One answer, from the engine's events to the client's stream: `started`, any number of `tokens`, and exactly one
//! `finished` or `failed`.
//!
//! Never waits for a client longer than its patience, and never logs what was said.

use std::time::{Duration, Instant};

use shoal_proto::inference as wire;
use shoal_proto::inference::generate_response::Event as WireEvent;
use tokio::sync::mpsc;
use tonic::Status;

use super::assemble::{Assembled, Assembler};
use crate::engine::request::{Event, Failure, FailureCode, FinishReason};
use crate::metrics::{Metrics, Outcome};

/// A client that takes nothing for so long has left, whatever its connection says.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Events that are looked at together, and so the most tokens of one message.
const BATCH: usize = 64;

/// What the client reads.
pub(super) type Messages = mpsc::Sender<Result<wire::GenerateResponse, Status>>;

/// One running answer.
pub(super) struct Answer {
    pub(super) request_id: String,
    pub(super) prompt_tokens: u32,
    /// Of them, found in the cache.
    pub(super) cached_tokens: u32,
    pub(super) deadline: Option<Instant>,
    /// How long one message may wait to be taken.
    pub(super) patience: Duration,
    pub(super) begun: Instant,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) assembler: Assembler,
    pub(super) messages: Messages,
}

/// How an answer ended, as seen from here.
enum End {
    Finished(&'static str, u32),
    Failed(Failure),
    /// Nobody listens; nothing can be said.
    ClientLeft,
}

impl Answer {
    /// Runs to the end. Dropping the events on the way out is what cancels the request.
    pub(super) async fn run(mut self, metrics: &Metrics) {
        let started = wire::Started { request_id: self.request_id.clone(), prompt_tokens: self.prompt_tokens };
        let mut completion_tokens = 0;
        let end = if self.send(WireEvent::Started(started)).await {
            self.stream(&mut completion_tokens, metrics).await
        } else {
            End::ClientLeft
        };
        let outcome = self.say_farewell(end).await;
        metrics.answered(outcome, self.prompt_tokens, completion_tokens, self.begun.elapsed());
        tracing::info!(
            request_id = self.request_id,
            prompt_tokens = self.prompt_tokens,
            completion_tokens,
            outcome = outcome.name(),
            milliseconds = self.begun.elapsed().as_millis() as u64,
            "answered"
        );
    }

    async fn stream(&mut self, completion_tokens: &mut u32, metrics: &Metrics) -> End {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let closed = self.messages.clone();
            let received = tokio::select! {
                biased;
                () = closed.closed() => return End::ClientLeft,
                () = sleep_until(self.deadline) => return End::Failed(deadline_passed()),
                received = self.events.recv_many(&mut batch, BATCH) => received,
            };
            if received == 0 {
                return End::Failed(engine_gone());
            }
            let first = *completion_tokens == 0;
            let (tokens, end) = self.take(batch.drain(..), completion_tokens);
            if first && *completion_tokens > 0 {
                metrics.first_token(self.begun.elapsed());
            }
            if !tokens.is_empty() && !self.send(WireEvent::Tokens(wire::Tokens { tokens })).await {
                return End::ClientLeft;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The tokens of some events and, if it is among them, the end.
    fn take(&mut self, events: impl Iterator<Item = Event>, count: &mut u32) -> (Vec<wire::Token>, Option<End>) {
        let mut tokens = Vec::new();
        for event in events {
            match event {
                Event::Began { cached_tokens } => self.cached_tokens = cached_tokens,
                Event::Token(token) => {
                    *count += 1;
                    let Assembled { tokens: more, stopped } = self.assembler.push(token);
                    tokens.extend(more);
                    if stopped {
                        return (tokens, Some(End::Finished("stop", *count)));
                    }
                }
                Event::Finished(reason) => {
                    let Assembled { tokens: more, stopped } = self.assembler.finish();
                    tokens.extend(more);
                    let reason = if stopped { "stop" } else { reason_name(reason) };
                    return (tokens, Some(End::Finished(reason, *count)));
                }
                Event::Failed(failure) => return (tokens, Some(End::Failed(failure))),
            }
        }
        (tokens, None)
    }

    async fn say_farewell(&mut self, end: End) -> Outcome {
        match end {
            End::ClientLeft => Outcome::ClientLeft,
            End::Finished(reason, completion_tokens) => {
                let Self { prompt_tokens, cached_tokens, .. } = *self;
                let usage = wire::Usage { prompt_tokens, completion_tokens, cached_tokens };
                let finished = wire::Finished { reason: reason.to_owned(), usage: Some(usage) };
                if self.send(WireEvent::Finished(finished)).await { Outcome::Finished } else { Outcome::ClientLeft }
            }
            End::Failed(Failure { code, message, retryable }) => {
                tracing::warn!(request_id = self.request_id, code = code.name(), reason = message, "failed");
                let failed = wire::Failed { code: code.name().to_owned(), message, retryable };
                if self.send(WireEvent::Failed(failed)).await { Outcome::Failed } else { Outcome::ClientLeft }
            }
        }
    }

    /// Whether the client took the message.
    async fn send(&self, event: WireEvent) -> bool {
        let message = wire::GenerateResponse { event: Some(event) };
        self.messages.send_timeout(Ok(message), self.patience).await.is_ok()
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Eos => "eos",
    }
}

fn deadline_passed() -> Failure {
    Failure { code: FailureCode::DeadlineExceeded, message: "the deadline passed".into(), retryable: false }
}

fn engine_gone() -> Failure {
    Failure { code: FailureCode::Unavailable, message: "the engine stopped".into(), retryable: true }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::engine::request::SampledToken;
    use crate::text::ModelText;

    #[tokio::test]
    async fn a_client_that_never_reads_loses_its_answer_and_holds_up_nobody() {
        let (sender, events) = mpsc::channel(100);
        let (messages, stream) = mpsc::channel(1);
        let answer = Answer {
            request_id: "x".into(),
            prompt_tokens: 1,
            cached_tokens: 0,
            deadline: None,
            patience: Duration::from_millis(20),
            begun: Instant::now(),
            events,
            assembler: Assembler::new(ModelText::none().detokenizer(), vec![]),
            messages,
        };
        let token = || Event::Token(SampledToken { id: 1, logprob: 0.0, top: vec![] });
        sender.try_send(token()).unwrap();
        answer.run(&Metrics::new()).await;
        assert!(sender.is_closed(), "the request should be cancelled");
        assert_eq!(stream.len(), 1, "only the start was ever queued");
    }
}
