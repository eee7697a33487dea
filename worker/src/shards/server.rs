//! The owner's end of every ordered pair: takes rows from peers and hands them to the expert lane, or steps to the stage.
//!
//! Never waits for the lane: the stream of a peer that sends more than its window is closed, so what is buffered is
//! bounded by twice [`OUTSTANDING`](super::OUTSTANDING) frames a peer (rows sent again may meet themselves).

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use shoal_proto::shard::shard_server::{Shard, ShardServer};
use shoal_proto::shard::{ExchangeRequest, ExchangeResponse, HelloRequest, HelloResponse, Identity, Leaving, Rows};
use shoal_proto::shard::{exchange_request, exchange_response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::expert_lane::Job;
use super::frames::FrameError;
use super::group::Group;
use super::identity::{Mismatch, compare};
use super::parcel::Parcel;
use super::pipeline::intake::Intake;
use super::tls::{self, Tls};
use super::{FRAME_BYTES, MESSAGE_BYTES, STREAM_BUFFER, WINDOW_BYTES};
use crate::engine::handle::DrainPhase;

/// Metadata key of a refusal: the field of the identity that differs.
pub const MISMATCH: &str = "shoal-mismatch";

/// What a stream sends down.
type Down = mpsc::Sender<Result<ExchangeResponse, Status>>;

/// What peers may send here.
#[derive(Clone)]
pub enum Served {
    /// Rows for the expert lane, which has room for the windows of all peers.
    Experts(SyncSender<Job>),
    /// Steps, or what became of them.
    Pipeline(Arc<Intake>),
}

/// The service behind `--shard-listen`.
#[derive(Clone)]
pub struct ShardService {
    /// What this shard knows of its group.
    pub group: Arc<Group>,
    /// Who works.
    pub served: Served,
}

/// Serves `shoal.shard.v1alpha1.Shard` and nothing else.
///
/// With `tls`, only peers that hold this shard's own certificate and its key get as far as a request.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    service: ShardService,
    listener: TcpListener,
    tls: Option<Tls>,
) -> Result<(), tonic::transport::Error> {
    let group = Arc::clone(&service.group);
    let shard =
        ShardServer::new(service).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES);
    let router = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(u32::try_from(FRAME_BYTES).expect("should fit: 1 MiB"))
        .max_concurrent_streams(8)
        .add_service(shard);
    match tls {
        Some(tls) => router.serve_with_incoming(tls::incoming(listener, &tls, &group)).await,
        None => router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await,
    }
}

#[tonic::async_trait]
impl Shard for ShardService {
    type ExchangeStream = ReceiverStream<Result<ExchangeResponse, Status>>;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        self.admit(&request.into_inner().identity.unwrap_or_default())?;
        Ok(Response::new(HelloResponse { identity: Some(self.group.identity().clone()) }))
    }

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut up = request.into_inner();
        let first = tokio::time::timeout(self.group.timing().suspect, up.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no identity arrived"))??;
        let Some(exchange_request::Frame::Identity(identity)) = first.and_then(|request| request.frame) else {
            return Err(Status::invalid_argument("the first frame of an exchange is an identity"));
        };
        self.admit(&identity)?;
        let (down, responses) = mpsc::channel(STREAM_BUFFER);
        let conversation = Conversation { service: self.clone(), rank: identity.rank, down };
        tokio::spawn(conversation.run(up));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl ShardService {
    fn admit(&self, theirs: &Identity) -> Result<(), Status> {
        compare(self.group.identity(), theirs).map_err(|mismatch| refuse(&mismatch))
    }
}

fn refuse(mismatch: &Mismatch) -> Status {
    tracing::warn!(%mismatch, "refused a peer");
    let mut status = Status::failed_precondition(mismatch.to_string());
    let field = mismatch.field.parse().expect("should parse: a field name is plain ASCII");
    status.metadata_mut().insert(MISMATCH, field);
    status
}

/// One stream of one requester.
struct Conversation {
    service: ShardService,
    rank: u32,
    down: Down,
}

impl Conversation {
    async fn run(self, mut up: Streaming<ExchangeRequest>) {
        let group = Arc::clone(&self.service.group);
        let mut ticks = tokio::time::interval(group.timing().heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pulses = group.pulses();
        let mut has_left = false;
        for count in 1.. {
            tokio::select! {
                message = up.message() => match message {
                    Ok(Some(request)) => if let Err(status) = self.receive(request) {
                        drop(self.down.try_send(Err(status)));
                        return;
                    },
                    Ok(None) | Err(_) => return,
                },
                _ = ticks.tick() => self.send(exchange_response::Frame::Heartbeat(group.heartbeat(count))),
                _ = pulses.changed() => ticks.reset_immediately(),
            }
            if !has_left && group.phase() >= DrainPhase::Leaving {
                has_left = true;
                self.send(exchange_response::Frame::Leaving(Leaving { reason: String::new() }));
            }
        }
    }

    fn receive(&self, request: ExchangeRequest) -> Result<(), Status> {
        let group = &self.service.group;
        let epoch = group.identity().epoch;
        if request.epoch != epoch {
            let text = format!("a frame of epoch {} from rank {}; this is epoch {epoch}", request.epoch, self.rank);
            return Err(Status::failed_precondition(text));
        }
        let now = Instant::now();
        group.hear(self.rank, now);
        match request.frame {
            Some(exchange_request::Frame::Rows(rows)) => return self.ask(rows),
            Some(exchange_request::Frame::Stage(stage)) => return self.take(Parcel::Stage(stage)),
            Some(exchange_request::Frame::Outcome(outcome)) => return self.take(Parcel::Outcome(outcome)),
            Some(exchange_request::Frame::Heartbeat(beat)) => group.hear_heartbeat(self.rank, &beat, now),
            Some(exchange_request::Frame::Leaving(_)) => group.leave().cancel(),
            Some(exchange_request::Frame::Identity(_)) | None => {
                return Err(Status::invalid_argument("neither rows, nor a step, nor a heartbeat, nor a farewell"));
            }
        }
        Ok(())
    }

    /// A full lane breaks the stream instead of losing the peer: the rows come again on the next one.
    fn ask(&self, rows: Rows) -> Result<(), Status> {
        let Served::Experts(jobs) = &self.service.served else {
            return Err(Status::invalid_argument("rows for experts; this is a pipeline"));
        };
        let epoch = self.service.group.identity().epoch;
        let job = Job { epoch, rows, reply: self.down.clone() };
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Status::resource_exhausted("more rows than the window allows"),
            TrySendError::Disconnected(_) => Status::unavailable("the expert lane is gone"),
        })
    }

    /// A peer that breaks the protocol is lost, and told so. An acknowledgement that finds no room breaks the stream: on the
    /// next one the frame comes again.
    fn take(&self, parcel: Parcel) -> Result<(), Status> {
        let Served::Pipeline(intake) = &self.service.served else {
            return Err(Status::invalid_argument("a step of a pipeline; this shard serves experts"));
        };
        let group = &self.service.group;
        let taken = intake.take(self.rank, parcel).map_err(|FrameError(why)| {
            group.accuse(self.rank, &why);
            Status::failed_precondition(format!("refused: {why}"))
        })?;
        let frame = Some(exchange_response::Frame::Taken(taken));
        let response = ExchangeResponse { epoch: group.identity().epoch, frame };
        self.down.try_send(Ok(response)).map_err(|_| Status::unavailable("no room to acknowledge"))
    }

    /// A frame that finds no room is dropped: heartbeats can be missed, and rows unanswered meet their deadline.
    fn send(&self, frame: exchange_response::Frame) {
        let response = ExchangeResponse { epoch: self.service.group.identity().epoch, frame: Some(frame) };
        drop(self.down.try_send(Ok(response)));
    }
}
