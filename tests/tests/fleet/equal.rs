//! What the comparisons of splits share: sixteen requests at once, then some of them alone, and the bits of every answer.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use shoal_proto::inference::{DescribeModelRequest, GenerateRequest};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::{greedy, seeded};
use shoal_tests::fleet::bits::{TokenBits, of_answer};
use shoal_tests::fleet::fixture::{Case, expected, layers, path};
use shoal_tests::fleet::{Fleet, Spec};

/// Requests of a batch.
const BATCH: usize = 16;
/// Asked alone after the batch: one of 300 tokens among them, whose beginning even the smallest cache still has when it is
/// asked again.
const ALONE: [usize; 6] = [0, 1, 2, 3, 4, 4];

/// Sixteen requests over prompts of 5 and 40 tokens and, twice, of 300; every other one seeded at temperature 1.
fn batch(cases: &[Case], tokens: u32) -> Vec<GenerateRequest> {
    let request = |index: usize| {
        let case = if index % 7 == 4 { 2 } else { index / 2 % 2 };
        let prompt = &cases[case].prompt;
        if index.is_multiple_of(2) { greedy(prompt, tokens) } else { seeded(prompt, tokens, index as u64) }
    };
    (0..BATCH).map(request).collect()
}

/// The bits of a batch spread over the ranks that take requests, then of those alone, on the last of these ranks.
async fn bits(fleet: &Fleet, cases: &[Case], tokens: u32) -> Result<Vec<Vec<TokenBits>>> {
    let (requests, doors) = (batch(cases, tokens), fleet.doors());
    let asked = requests.iter().enumerate().map(|(index, request)| doors[index % doors.len()].ask(request.clone()));
    let mut answers = try_join_all(asked).await?;
    for index in ALONE {
        answers.push(doors[doors.len() - 1].ask(requests[index].clone()).await?);
    }
    answers.iter().map(of_answer).collect::<Option<_>>().context("an answer failed")
}

/// Bytes of weights that each worker holds.
pub(crate) async fn held(fleet: &Fleet) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for worker in &fleet.workers {
        let described = worker.client().await?.describe_model(DescribeModelRequest::default()).await?;
        all.push(described.into_inner().weight_bytes);
    }
    Ok(all)
}

/// What one worker says, and what it holds.
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    /// Of weights.
    pub(crate) bytes: u64,
    tokens: u32,
    bits: Vec<Vec<TokenBits>>,
}

impl Reference {
    /// Asks one worker; alone and batched must agree already here.
    pub(crate) async fn of(name: &'static str, flags: &[&str], tokens: u32) -> Result<Self> {
        let alone = Placement::even_pipeline(layers(name)?, 1)?;
        let fleet = Fleet::start(&Spec::new(path(name), alone).with(flags)).await?;
        let bits = bits(&fleet, &expected(name)?.cases, tokens).await?;
        let batched = ALONE.iter().map(|&index| &bits[index]);
        ensure!(batched.eq(&bits[BATCH..]), "{name} {flags:?}: a batch changes bits");
        Ok(Self { name, bytes: held(&fleet).await?[0], tokens, bits })
    }

    /// Asks a group the same; the group, once every bit of it was the same.
    pub(crate) async fn compare(&self, placement: Placement, flags: &[&str]) -> Result<Fleet> {
        let fleet = Fleet::start(&Spec::new(path(self.name), placement).with(flags)).await?;
        let found = bits(&fleet, &expected(self.name)?.cases, self.tokens).await?;
        let off = worst(&found, &self.bits);
        ensure!(off == 0.0, "other bits, off by {off:.1e}");
        Ok(fleet)
    }
}

/// 0 when every bit is the same; infinite when other tokens were drawn or are among the likeliest.
fn worst(found: &[Vec<TokenBits>], reference: &[Vec<TokenBits>]) -> f32 {
    if found == reference {
        return 0.0;
    }
    let tops = |all: &[Vec<TokenBits>]| all.concat().into_iter().flat_map(|(.., top)| top).collect::<Vec<_>>();
    let (found, reference) = (tops(found), tops(reference));
    let off = found.iter().zip(&reference).map(|((id, a), (same, b))| {
        if id == same { (f32::from_bits(*a) - f32::from_bits(*b)).abs() } else { f32::INFINITY }
    });
    off.fold(f32::MIN_POSITIVE, f32::max)
}

/// The row of the page for a fixture, which is written once each of its splits has given the bits of one worker.
pub(crate) fn row(name: &str, strategy: &str, splits: &[Placement]) -> String {
    let mut sizes: Vec<_> = splits.iter().map(|placement| placement.size().to_string()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    format!("| {name} | {strategy} | {} | {} | 0 |\n", sizes.join(", "), splits.len())
}
