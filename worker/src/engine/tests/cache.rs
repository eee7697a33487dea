//! What is found in the cache and who is put back changes no bit of any answer.

use std::collections::BTreeSet;

use pretty_assertions::assert_eq;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::backend::scripted::Script;
use crate::engine::request::FinishReason;
use crate::program::Bucket;

/// Conversations that share a system prompt, two of them word for word; half are sampled.
pub(super) fn conversations() -> Vec<Request> {
    let system: Vec<u32> = (0..130).map(|i| (i * 11 + 3) % 250).collect();
    let one = |index: u32| {
        let own = (0..3 + 5 * (index / 2)).map(|i| (i * 7 + index / 2) % 250);
        let prompt = system.iter().copied().chain(own).collect();
        let sampling =
            SamplingParams { temperature: (index % 2) as f32, seed: u64::from(index), ..SamplingParams::default() };
        request(prompt, 150, sampling)
    };
    (0..6).map(one).collect()
}

/// Ids and the bits of all log-probabilities.
pub(super) fn bits(tokens: Vec<SampledToken>) -> Vec<(u32, Vec<(u32, u32)>)> {
    let of =
        |token: SampledToken| (token.id, token.top.into_iter().map(|(id, logprob)| (id, logprob.to_bits())).collect());
    tokens.into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_beginning_and_a_sequence_put_back_change_no_bit() {
    let roomy = Engines { handles: vec![engine("v2-lite", None, None)] }.ready().await;
    let mut cold = Vec::new();
    for (index, asked) in conversations().into_iter().enumerate() {
        let alone = Request { tenant: index.to_string(), ..asked };
        let (tokens, end) = collect(submit(&roomy.handles[0], alone)).await;
        assert_eq!(end, Event::Finished(FinishReason::Length));
        cold.push(bits(tokens));
    }
    let stats = &roomy.handles[0].stats;
    assert_eq!((EngineStats::get(&stats.prompt_tokens_cached), EngineStats::get(&stats.preemptions)), (0, 0));

    let tight = Engines { handles: vec![engine_with("v2-lite", None, None, Some(512))] }.ready().await;
    for round in 0..2 {
        let open: Vec<_> = conversations().into_iter().map(|asked| submit(&tight.handles[0], asked)).collect();
        for (index, answer) in open.into_iter().enumerate() {
            let (tokens, end) = collect(answer).await;
            assert_eq!(end, Event::Finished(FinishReason::Length));
            assert_eq!(bits(tokens), cold[index], "request {index} of round {round}");
        }
    }
    let stats = &tight.handles[0].stats;
    let (cached, preempted) = (EngineStats::get(&stats.prompt_tokens_cached), EngineStats::get(&stats.preemptions));
    assert!(cached > 0 && cached.is_multiple_of(64), "{cached} prompt tokens were found");
    assert!(preempted > 0, "nobody was put back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_scripts_whatever_is_shared_put_back_or_abandoned() {
    let script = Script { vocabulary: 50, context: 512, kv_blocks: 12, bucket: Bucket { rows: 48, samples: 12 } };
    let capacity = Capacity { context_tokens: 512, sequences: 12, queue: 512 };
    let (model, timing) = (script.load(), Timing::default());
    let config = EngineConfig { model, capacity, group: None, tls: None, probe_token: 0, timing, fault: None };
    let engines = Engines { handles: vec![start(config).unwrap()] }.ready().await;
    let handle = &engines.handles[0];
    let mut random = StdRng::seed_from_u64(5);
    let mut open = Vec::new();
    for index in 0..300 {
        let shared = 64 * random.random_range(0..4_u32);
        let own = random.random_range(1..60);
        let prompt: Vec<u32> = (0..shared).map(|i| i % 50).chain((0..own).map(|i| (i + index) % 50)).collect();
        let mut asked = request(prompt, random.random_range(1..140), SamplingParams::default());
        asked.tenant = random.random_range(0..3_u32).to_string();
        asked.priority = random.random_range(-1..2);
        let answer = submit(handle, asked.clone());
        if random.random_bool(0.9) {
            open.push((asked, answer));
        }
    }
    let mut lengths = BTreeSet::new();
    for (asked, answer) in open {
        let (found, end) = collect(answer).await;
        assert_eq!(end, Event::Finished(FinishReason::Length));
        let mut said = asked.prompt.clone();
        for token in found {
            assert_eq!(token.id, script.next(&said), "after {} tokens", said.len());
            said.push(token.id);
        }
        lengths.insert(said.len());
    }
    let stats = &handle.stats;
    assert!(lengths.len() > 50);
    let (cached, preempted) = (EngineStats::get(&stats.prompt_tokens_cached), EngineStats::get(&stats.preemptions));
    assert!(cached > 640 && preempted > 0, "{cached} tokens found, {preempted} put back");
}
