//! The committed model through Generate: 1,000 sums that its training never saw, over two sharded workers.

use std::path::Path;

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use shoal_proto::inference::generate_request::Prompt;
use shoal_proto::inference::{Chat, GenerateRequest, Message};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::{Fleet, Spec, Worker};
use shoal_tests::sums::Sum;

const SUMS: usize = 1000;
const LEAST_RIGHT: usize = 990;
const EXPERTS: u32 = 16;
const AT_ONCE: usize = 16;

async fn is_right(worker: &Worker, sum: Sum) -> Result<bool> {
    let message = Message { role: "user".into(), content: sum.question() };
    let prompt = Some(Prompt::Chat(Chat { messages: vec![message] }));
    let answer = worker.ask(GenerateRequest { prompt, ..GenerateRequest::default() }).await?;
    let text: String = answer.tokens.iter().map(|token| token.text.as_str()).collect();
    let right = sum.is_answered_by(&text);
    if !right {
        println!("wrong: {} -> {text:?}", sum.question());
    }
    Ok(right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tiny_model_adds_numbers_it_never_saw() -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    let spec = Spec::new(model, Placement::even(EXPERTS, 2)?).with(&["--context-tokens=512"]);
    let fleet = Fleet::start(&spec).await?;
    let mut random = StdRng::seed_from_u64(3);
    let sums: Vec<Sum> = (0..SUMS).map(|_| Sum::unseen(&mut random)).collect();
    let answers = sums.iter().enumerate().map(|(index, &sum)| is_right(&fleet.workers[index % 2], sum));
    let answers: Vec<bool> = futures::stream::iter(answers).buffer_unordered(AT_ONCE).try_collect().await?;
    let right = answers.iter().filter(|right| **right).count();
    println!("{right} of {SUMS} unseen sums right");
    ensure!(right >= LEAST_RIGHT, "{right} of {SUMS} unseen sums right; at least {LEAST_RIGHT} are wanted");
    Ok(())
}
