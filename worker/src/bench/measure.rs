//! Two measurements of a batch: all prompts until their first tokens, then all answers while every sequence writes one.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::{BoxStream, select_all};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::draw::Drawn;
use super::group::{Group, Reading};
use super::{Bench, BenchError};
use crate::engine::request::{Event, Request, SampledToken, SamplingParams, Submission};

/// How fast prompts were read.
pub(super) struct Prefill {
    pub(super) tokens: u64,
    pub(super) elapsed: Duration,
}

/// How fast answers were written, while every sequence was writing.
pub(super) struct Decode {
    pub(super) tokens: u64,
    pub(super) elapsed: Duration,
    pub(super) reading: Reading,
    pub(super) answers: Vec<Vec<SampledToken>>,
}

/// Reads every prompt, from the first to the last first token.
pub(super) async fn prefill(group: &Group, bench: &Bench, drawn: &Drawn) -> Result<Prefill, BenchError> {
    let begun = Instant::now();
    let mut events = submit(group, bench, drawn, 1)?;
    while let Some((_, event)) = events.next().await {
        match event {
            Event::Began { cached_tokens: 0 } | Event::Token(_) | Event::Finished(_) => {}
            Event::Began { cached_tokens } => {
                return Err(BenchError::Failed(format!(
                    "{cached_tokens} tokens of a prompt were in the cache already"
                )));
            }
            Event::Failed(failure) => return Err(BenchError::Failed(failure.message)),
        }
    }
    let tokens = drawn.prompts.iter().map(|prompt| prompt.len() as u64).sum();
    Ok(Prefill { tokens, elapsed: begun.elapsed() })
}

/// Writes every answer. The prompts are in the cache by now; what counts lies between the moment in which the last
/// sequence has its first token and that in which the first sequence has its last.
pub(super) async fn decode(group: &Group, bench: &Bench, drawn: &Drawn) -> Result<Decode, BenchError> {
    let mut answers: Vec<Vec<SampledToken>> = vec![Vec::new(); drawn.prompts.len()];
    let at_first = group.counters();
    let mut events = submit(group, bench, drawn, bench.decode + 1)?;
    let mut begun = None;
    let mut measured = None;
    while let Some((index, event)) = events.next().await {
        match event {
            Event::Began { .. } => {}
            Event::Token(token) => answers[index].push(token),
            Event::Finished(_) if measured.is_none() => {
                measured = Some((Instant::now(), count(&answers), group.counters()));
            }
            Event::Finished(_) => {}
            Event::Failed(failure) => return Err(BenchError::Failed(failure.message)),
        }
        if begun.is_none() && answers.iter().all(|answer| !answer.is_empty()) {
            begun = Some((Instant::now(), count(&answers), group.counters()));
        }
    }
    let (Some((from, before, from_counters)), Some((to, after, to_counters))) = (begun, measured) else {
        return Err(BenchError::Failed("an answer has no token".to_owned()));
    };
    if to <= from || after <= before {
        let text = "the first answer was over before the last had begun; a longer --decode is needed";
        return Err(BenchError::Failed(text.to_owned()));
    }
    let mut reading = group.between(&from_counters, &to_counters);
    if reading.steps == 0 {
        // So small a model was done before its events were looked at: the steps of the prompts count as well then.
        reading = group.between(&at_first, &to_counters);
    }
    Ok(Decode { tokens: after - before, elapsed: to - from, reading, answers })
}

fn count(answers: &[Vec<SampledToken>]) -> u64 {
    answers.iter().map(|answer| answer.len() as u64).sum()
}

type Events = futures::stream::SelectAll<BoxStream<'static, (usize, Event)>>;

/// Asks for `max_tokens` after every prompt; what happens, by sequence.
fn submit(group: &Group, bench: &Bench, drawn: &Drawn, max_tokens: u32) -> Result<Events, BenchError> {
    let one = |index: usize| {
        let request = Request {
            id: format!("bench-{index}"),
            prompt: drawn.prompts[index].clone(),
            max_tokens,
            sampling: SamplingParams::default(),
            top_logprobs: bench.top_logprobs,
            eos: vec![],
            deadline: None,
            priority: 0,
            tenant: String::new(),
            script: Some(drawn.answers[index].clone()),
        };
        let (events, answer) = mpsc::channel(max_tokens as usize + 3);
        let sent = group.server(index).submissions.try_send(Submission { request, events });
        sent.map_err(|_| BenchError::Failed("the engine takes no request".to_owned()))?;
        Ok(ReceiverStream::new(answer).map(move |event| (index, event)).boxed())
    };
    Ok(select_all((0..drawn.prompts.len()).map(one).collect::<Result<Vec<_>, BenchError>>()?))
}
