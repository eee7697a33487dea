//! Asking a worker over gRPC, as a client would.

use anyhow::{Context as _, Result, bail};
use shoal_proto::inference::generate_request::Prompt;
use shoal_proto::inference::generate_response::Event;
use shoal_proto::inference::inference_client::InferenceClient;
use shoal_proto::inference::{Failed, Finished, GenerateRequest, GenerateResponse, Sampling, Token, TokenIds};
use tonic::Streaming;
use tonic::transport::Channel;

use super::Worker;

/// How an answer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// As asked.
    Finished(Finished),
    /// Typed.
    Failed(Failed),
}

/// An answer from its first token to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In order.
    pub tokens: Vec<Token>,
    /// Exactly one.
    pub end: End,
}

/// A request for `max_tokens` tokens with the 20 most likely ones of each position, greedy, past any EOS.
#[must_use]
pub fn greedy(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Prompt::TokenIds(TokenIds { ids: prompt.to_vec() })),
        max_tokens: Some(max_tokens),
        sampling: Some(Sampling::default()),
        ignore_eos: true,
        top_logprobs: 20,
        ..GenerateRequest::default()
    }
}

/// The same at temperature 1.
#[must_use]
pub fn seeded(prompt: &[u32], max_tokens: u32, seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() };
    GenerateRequest { sampling: Some(sampling), ..greedy(prompt, max_tokens) }
}

/// A stream that has begun.
pub struct Open {
    stream: Streaming<GenerateResponse>,
    tokens: Vec<Token>,
    end: Option<End>,
}

impl Worker {
    /// A client of this worker.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn client(&self) -> Result<InferenceClient<Channel>> {
        InferenceClient::connect(format!("http://{}", self.grpc)).await.context("the gRPC port")
    }

    /// Begins an answer.
    ///
    /// # Errors
    /// When the request is refused.
    pub async fn open(&self, request: GenerateRequest) -> Result<Open> {
        Open::begin(self.client().await?, request).await
    }

    /// Asks for a whole answer.
    ///
    /// # Errors
    /// When the request is refused or the stream breaks its contract.
    pub async fn ask(&self, request: GenerateRequest) -> Result<Answer> {
        self.open(request).await?.finish().await
    }
}

impl Open {
    /// Begins an answer over this client's connection.
    ///
    /// # Errors
    /// When the request is refused.
    pub async fn begin(mut client: InferenceClient<Channel>, request: GenerateRequest) -> Result<Self> {
        let stream = client.generate(request).await.context("a request was refused")?.into_inner();
        Ok(Self { stream, tokens: vec![], end: None })
    }

    /// Reads until `count` tokens are there or the answer has ended.
    ///
    /// # Errors
    /// When the stream breaks its contract.
    pub async fn read(&mut self, count: usize) -> Result<()> {
        while self.tokens.len() < count && self.end.is_none() {
            self.next().await?;
        }
        Ok(())
    }

    /// Reads to the end, which must be exactly one terminal event followed by status OK.
    ///
    /// # Errors
    /// When the stream breaks this contract.
    pub async fn finish(mut self) -> Result<Answer> {
        while self.end.is_none() {
            self.next().await?;
        }
        if let Some(more) = self.stream.message().await.context("a status other than OK after the end")? {
            bail!("an event after the end: {more:?}");
        }
        Ok(Answer { tokens: self.tokens, end: self.end.context("should have ended")? })
    }

    async fn next(&mut self) -> Result<()> {
        let message = self.stream.message().await.context("a stream without a terminal event")?;
        match message.context("a stream closed without a terminal event")?.event {
            Some(Event::Started(_)) => {}
            Some(Event::Tokens(tokens)) => self.tokens.extend(tokens.tokens),
            Some(Event::Finished(finished)) => self.end = Some(End::Finished(finished)),
            Some(Event::Failed(failed)) => self.end = Some(End::Failed(failed)),
            None => bail!("an empty event"),
        }
        Ok(())
    }
}
