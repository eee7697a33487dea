//! `shoal.inference.v1alpha1.Inference`: each call reads as check, tokenise, hand over, stream.
//!
//! Never computes: the engine does, behind one channel.

use std::sync::Arc;
use std::time::Instant;

use shoal_proto::inference as wire;
use shoal_proto::inference::inference_server::Inference;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status};

use super::answer::{Answer, PATIENCE};
use super::assemble::Assembler;
use super::request::{self, Asked, RequestError, Served};
use super::tokenise::Tokenisers;
use super::{deadline, status};
use crate::config::Config;
use crate::engine::handle::{DrainPhase, EngineHandle, Readiness};
use crate::engine::request::{Event, Request, Submission};
use crate::metrics::Metrics;
use crate::text::ModelText;

/// Messages between an answer and its connection: a slow reader holds back the answer, not the engine.
const MESSAGES: usize = 4;

/// The service; one for all connections.
#[derive(Debug)]
pub(super) struct InferenceService {
    engine: EngineHandle,
    tokenisers: Tokenisers,
    served: Served,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
}

impl InferenceService {
    pub(super) fn new(config: Arc<Config>, engine: EngineHandle, text: Arc<ModelText>, metrics: Arc<Metrics>) -> Self {
        let served = Served {
            model: config.model_name.clone(),
            context_tokens: engine.info.context_tokens,
            vocabulary_size: engine.info.vocabulary_size,
        };
        Self { engine, tokenisers: Tokenisers::new(text), served, config, metrics }
    }

    async fn start(&self, call: Call<wire::GenerateRequest>) -> Result<ReceiverStream<Message>, RequestError> {
        let begun = Instant::now();
        let timeout = deadline::timeout(call.metadata());
        self.accepting()?;
        let asked = request::check(call.into_inner(), &self.served, rand::random())?;
        let (request, stop) = self.request(asked, timeout.map(|timeout| begun + timeout)).await?;
        let (request_id, deadline) = (request.id.clone(), request.deadline);
        let prompt_tokens = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        let events = self.submit(request)?;
        let (messages, stream) = mpsc::channel(MESSAGES);
        let assembler = Assembler::new(self.tokenisers.text().detokenizer(), stop);
        let patience = PATIENCE;
        let cached_tokens = 0;
        let answer =
            Answer { request_id, prompt_tokens, cached_tokens, deadline, patience, begun, events, assembler, messages };
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move { answer.run(&metrics).await });
        Ok(ReceiverStream::new(stream))
    }

    /// The request as the engine wants it, and its stop strings, which the engine never sees.
    async fn request(&self, asked: Asked, deadline: Option<Instant>) -> Result<(Request, Vec<String>), RequestError> {
        let prompt = self.tokenisers.encode(asked.prompt).await?;
        let max_tokens = request::room(prompt.len(), asked.max_tokens, &self.served)?;
        if let Some(position) = prompt.iter().position(|&id| id >= self.served.vocabulary_size) {
            let vocabulary = self.served.vocabulary_size;
            return Err(RequestError::UnknownToken { position, id: prompt[position], vocabulary });
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(RequestError::Deadline);
        }
        let eos = if asked.ignore_eos { vec![] } else { self.tokenisers.text().eos().to_vec() };
        let request = Request {
            id: format!("{:032x}", rand::random::<u128>()),
            prompt,
            max_tokens,
            sampling: asked.sampling,
            top_logprobs: asked.top_logprobs,
            eos,
            deadline,
            priority: asked.priority,
            tenant: asked.tenant,
            script: None,
        };
        Ok((request, asked.stop))
    }

    fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, RequestError> {
        // The engine must never wait for a client, so every event has its place from the beginning.
        let (sender, events) = mpsc::channel(request.max_tokens as usize + 2);
        let submission = Submission { request, events: sender };
        match self.engine.submissions.try_send(submission) {
            Ok(()) => Ok(events),
            Err(mpsc::error::TrySendError::Full(_)) => Err(RequestError::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(RequestError::NotReady("the engine stopped".into())),
        }
    }

    /// Whether requests may start now. A group that is about to leave still takes what is on its way.
    fn accepting(&self) -> Result<(), RequestError> {
        if !self.engine.info.takes_requests {
            return Err(RequestError::NotFirst { rank: self.config.group.rank, size: self.config.group.size });
        }
        if *self.engine.drain.borrow() >= DrainPhase::Refusing {
            return Err(RequestError::Draining);
        }
        match &*self.engine.readiness.borrow() {
            Readiness::Ready => Ok(()),
            Readiness::Starting => Err(RequestError::NotReady("the group is still starting".into())),
            Readiness::Lost { reason } => Err(RequestError::NotReady(reason.clone())),
        }
    }

    fn describe(&self) -> wire::DescribeModelResponse {
        let info = &self.engine.info;
        wire::DescribeModelResponse {
            model: self.served.model.clone(),
            architecture: info.architecture.clone(),
            context_tokens: info.context_tokens,
            vocabulary_size: info.vocabulary_size,
            model_digest: info.model_digest.clone(),
            numerics_id: info.numerics_id.clone(),
            shards: self.config.group.size,
            rank: self.config.group.rank,
            epoch: self.config.group.epoch,
            max_concurrent_sequences: self.config.capacity.max_concurrent_sequences,
            weight_bytes: info.weight_bytes,
            has_chat_template: self.tokenisers.text().has_chat_template(),
        }
    }

    fn refuse(&self, error: &RequestError) -> Status {
        let status = status::of(error);
        self.metrics.refused(status.code());
        tracing::info!(code = ?status.code(), "refused");
        status
    }
}

type Message = Result<wire::GenerateResponse, Status>;

#[tonic::async_trait]
impl Inference for InferenceService {
    type GenerateStream = ReceiverStream<Message>;

    async fn generate(&self, call: Call<wire::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        self.start(call).await.map(Response::new).map_err(|error| self.refuse(&error))
    }

    async fn describe_model(
        &self,
        call: Call<wire::DescribeModelRequest>,
    ) -> Result<Response<wire::DescribeModelResponse>, Status> {
        request::check_model(&call.get_ref().model, &self.served).map_err(|error| self.refuse(&error))?;
        Ok(Response::new(self.describe()))
    }

    async fn count_tokens(
        &self,
        call: Call<wire::CountTokensRequest>,
    ) -> Result<Response<wire::CountTokensResponse>, Status> {
        let wire::CountTokensRequest { model, prompt } = call.into_inner();
        let count = async {
            request::check_model(&model, &self.served)?;
            let prompt = request::prompt_of_count(prompt, &self.served)?;
            Ok(self.tokenisers.encode(prompt).await?.len())
        };
        let tokens = count.await.map_err(|error| self.refuse(&error))?;
        Ok(Response::new(wire::CountTokensResponse { tokens: u32::try_from(tokens).unwrap_or(u32::MAX) }))
    }
}
