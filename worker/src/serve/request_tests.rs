//! Every limit of the table that a request can break, broken through the request itself.

use pretty_assertions::assert_eq;
use rstest::rstest;

use super::*;
use crate::limits::Limit;

fn served() -> Served {
    Served { model: "tiny".into(), context_tokens: 100, vocabulary_size: 50 }
}

fn ids(ids: Vec<u32>) -> Option<wire::generate_request::Prompt> {
    Some(wire::generate_request::Prompt::TokenIds(wire::TokenIds { ids }))
}

fn request() -> wire::GenerateRequest {
    wire::GenerateRequest { prompt: ids(vec![1, 2]), ..Default::default() }
}

fn refusal(request: wire::GenerateRequest) -> String {
    check(request, &served(), 0).unwrap_err().to_string()
}

/// A good request in which the field of `limit` has `value`; `None` where the field's type cannot hold it.
fn with_value(limit: Limit, value: f64) -> Option<wire::GenerateRequest> {
    let count = || (value.fract() == 0.0 && (0.0..=4e9).contains(&value)).then_some(value as u32);
    let few = || count().filter(|&count| count <= 4_000_000).map(|count| count as usize);
    let mut request = request();
    let mut sampling = wire::Sampling::default();
    match limit.name {
        "prompt" => request.prompt = ids(vec![1; few()?]),
        "max_tokens" => request.max_tokens = Some(count()?),
        "stop" => request.stop = vec!["x".into(); few()?],
        "stop[]" => request.stop = vec!["x".repeat(few()?)],
        "top_logprobs" => request.top_logprobs = count()?,
        "chat.messages" => {
            let message = wire::Message { role: "user".into(), content: "x".into() };
            let chat = wire::Chat { messages: vec![message; few()?] };
            request.prompt = Some(wire::generate_request::Prompt::Chat(chat));
        }
        "tenant" => request.tenant = "x".repeat(few()?),
        "priority" if value.fract() == 0.0 && value.abs() < 2e9 => request.priority = value as i32,
        "sampling.temperature" => sampling.temperature = value as f32,
        "sampling.top_k" => sampling.top_k = count()?,
        "sampling.top_p" => sampling.top_p = Some(value as f32),
        "sampling.min_p" => sampling.min_p = value as f32,
        "sampling.repetition_penalty" => sampling.repetition_penalty = Some(value as f32),
        "sampling.presence_penalty" => sampling.presence_penalty = value as f32,
        "sampling.frequency_penalty" => sampling.frequency_penalty = value as f32,
        _ => return None,
    }
    request.sampling = Some(sampling);
    Some(request)
}

#[test]
fn a_request_is_refused_exactly_where_the_table_says() {
    let mut asked = 0;
    for &limit in limits::ALL.iter().filter(|limit| !limit.name.starts_with("--")) {
        for value in [limit.min - 1.0, limit.min, limit.max, limit.max + 1.0, f64::NAN, 1e30, f64::INFINITY] {
            let Some(request) = with_value(limit, value) else { continue };
            asked += 1;
            let verdict = check(request, &served(), 0);
            match limit.check(value) {
                Ok(()) => assert!(verdict.is_ok(), "{} = {value}: {verdict:?}", limit.name),
                Err(expected) => {
                    let error = verdict.expect_err(limit.name).to_string();
                    assert!(error.starts_with(limit.name), "{} = {value}: {error} for {expected}", limit.name);
                }
            }
        }
    }
    assert!(asked > 60, "only {asked} values could be tried");
}

#[rstest]
#[case(wire::GenerateRequest { model: "other".into(), ..request() }, "model \"other\" is not served here; served: \"tiny\"")]
#[case(wire::GenerateRequest { prompt: None, ..request() }, "prompt is missing; allowed: text, chat or token_ids")]
#[case(wire::GenerateRequest { prompt: ids(vec![1, 50]), ..request() }, "token_ids.ids[1] is 50; allowed: 0 to 49")]
#[case(wire::GenerateRequest { prompt: ids(vec![]), ..request() }, "prompt is 0 tokens; allowed: 1 to 1048575")]
#[case(wire::GenerateRequest { max_tokens: Some(0), ..request() }, "max_tokens is 0 tokens; allowed: 1 to 1048575")]
#[case(
    wire::GenerateRequest { stop: vec!["x".repeat(1_000_000)], ..request() },
    "stop[] is 1000000 bytes; allowed: 1 to 256"
)]
fn a_bad_request_is_refused_by_the_field_at_fault(#[case] request: wire::GenerateRequest, #[case] expected: &str) {
    assert_eq!(refusal(request), expected);
}

#[test]
fn a_role_that_no_template_knows_is_refused_by_its_place() {
    let message = |role: &str| wire::Message { role: role.into(), content: String::new() };
    let chat = wire::Chat { messages: vec![message("user"), message("tool")] };
    let asked = wire::GenerateRequest { prompt: Some(wire::generate_request::Prompt::Chat(chat)), ..request() };
    assert_eq!(refusal(asked), "the role of chat.messages[1] is unknown; allowed: system, user, assistant");
}

#[test]
fn what_is_absent_means_what_the_protocol_says() {
    let asked = check(request(), &served(), 42).unwrap();
    assert_eq!(asked.sampling, SamplingParams { seed: 42, ..SamplingParams::default() });
    assert_eq!(asked.max_tokens, None);
    let seeded = wire::Sampling { seed: Some(0), ..Default::default() };
    let asked = check(wire::GenerateRequest { sampling: Some(seeded), ..request() }, &served(), 42).unwrap();
    assert_eq!(asked.sampling.seed, 0);
}

#[test]
fn the_answer_gets_what_the_prompt_leaves_of_the_context() {
    let text = |tokens, max| room(tokens, max, &served()).map_err(|error| error.to_string());
    assert_eq!(text(99, None), Ok(1));
    assert_eq!(text(40, Some(60)), Ok(60));
    let too_many = "max_tokens is 61, and the prompt leaves room for 60; allowed: 1 to 60";
    assert_eq!(text(40, Some(61)), Err(too_many.into()));
    let too_long = "the prompt has 100 tokens, and the context 100; allowed: 1 to 99";
    assert_eq!(text(100, None), Err(too_long.into()));
}
