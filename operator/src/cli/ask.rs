//! `shoal ask`: one question over gRPC, the answer printed as it comes.
//!
//! Never keeps a conversation.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use shoal_proto::inference::generate_request::Prompt;
use shoal_proto::inference::generate_response::Event;
use shoal_proto::inference::inference_client::InferenceClient;
use shoal_proto::inference::{Chat, Failed, GenerateRequest, Message, Sampling};
use tonic::transport::{Channel, Endpoint};

use crate::local::address::{self, AddressError};

/// Asks a model one question and prints its answer as it is generated.
#[derive(Debug, clap::Args)]
pub struct AskArgs {
    /// NAME of a model that `shoal up` serves on this machine, or HOST:PORT of any worker or Service
    #[arg(value_name = "NAME|ADDR")]
    target: String,
    /// The question
    prompt: String,
    /// Most tokens of the answer [default: the rest of the context]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Makes a temperature above 0 repeatable [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Send the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
}

/// Why there is no answer, or not a whole one.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody serves that name here.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Not an address.
    #[error("{0:?} is neither a name that `shoal up` serves nor HOST:PORT")]
    Target(String),
    /// Nobody answers there.
    #[error("cannot reach {target}")]
    Connect {
        /// What was dialled.
        target: String,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The request never started.
    #[error("refused with {:?}: {}", .0.code(), .0.message())]
    Refused(tonic::Status),
    /// It started and did not finish.
    #[error("failed with {code}{retry}: {message}", code = .0.code, message = .0.message,
        retry = if .0.retryable { " (may be asked again)" } else { "" })]
    Failed(Failed),
    /// The connection ended before the answer did.
    #[error("the stream broke off with {:?}: {}", .0.code(), .0.message())]
    Broken(tonic::Status),
    /// The answer ended with neither `finished` nor `failed`.
    #[error("the stream ended without saying how")]
    Unfinished,
    /// Standard output is closed.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

/// Runs `shoal ask`.
///
/// # Errors
/// [`AskError`]; whatever had arrived by then has been printed.
pub async fn run(args: AskArgs) -> Result<(), AskError> {
    let address = resolve(&args.target)?;
    let mut client = InferenceClient::new(connect(&args.target, &address).await?);
    let request = request(args);
    let mut events = client.generate(request).await.map_err(AskError::Refused)?.into_inner();
    let mut out = io::stdout().lock();
    while let Some(response) = events.message().await.map_err(AskError::Broken)? {
        match response.event {
            Some(Event::Tokens(tokens)) => {
                tokens.tokens.iter().try_for_each(|token| out.write_all(token.text.as_bytes()))?;
                out.flush()?;
            }
            Some(Event::Finished(_)) => return Ok(writeln!(out)?),
            Some(Event::Failed(failed)) => {
                writeln!(out)?;
                return Err(AskError::Failed(failed));
            }
            Some(Event::Started(_)) | None => {}
        }
    }
    Err(AskError::Unfinished)
}

/// HOST:PORT as it is, anything else as a name that `up` wrote down.
fn resolve(target: &str) -> Result<String, AskError> {
    let is_address = |text: &str| text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some();
    let bare = target.strip_prefix("http://").unwrap_or(target);
    if is_address(bare) {
        return Ok(bare.to_owned());
    }
    Ok(address::lookup(&address::folder(), target)?.grpc.to_string())
}

async fn connect(target: &str, address: &str) -> Result<Channel, AskError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|_| AskError::Target(target.to_owned()))?;
    endpoint.connect().await.map_err(|source| AskError::Connect { target: address.to_owned(), source })
}

fn request(args: AskArgs) -> GenerateRequest {
    let prompt = if args.raw {
        Prompt::Text(args.prompt)
    } else {
        Prompt::Chat(Chat { messages: vec![Message { role: "user".to_owned(), content: args.prompt }] })
    };
    let sampling = Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() };
    GenerateRequest {
        prompt: Some(prompt),
        max_tokens: args.max_tokens,
        sampling: Some(sampling),
        ..GenerateRequest::default()
    }
}
