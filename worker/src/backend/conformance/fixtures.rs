//! Whole models: every fixture has the same bits on `strict`, and on `cpu` what the oracle says within F32's noise.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::backend::cpu::{CpuBackend, CpuOptions, Level};
use crate::backend::strict::{StrictBackend, StrictOptions};
use crate::backend::{Backend, Control, KV_BLOCK, Lane, Report, SampleRow, TokenSource};
use crate::engine::request::{SampledToken, SamplingParams};
use crate::model::load::{LoadOptions, load};
use crate::model::loaded::{LoadedModel, Programs};
use crate::program::Dtype;
use crate::sampling::TokenCounts;

use super::referee::Referee;

const STEP_ROWS: usize = 48;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    margin: Vec<f32>,
}

fn fixture(name: &str, kv_dtype: Dtype, backend: Arc<dyn Backend>) -> LoadedModel {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    let (rank, placement, context_tokens, sequences, step_rows) = (0, None, Some(384), 1, STEP_ROWS);
    let kv_tokens = None;
    let options = LoadOptions { directory, rank, placement, context_tokens, sequences, kv_tokens, step_rows, kv_dtype };
    load(&options, backend).unwrap()
}

fn name_of(config: &Path) -> &str {
    config.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap()
}

fn prompts(name: &str) -> Vec<Prompt> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).join("expected.json");
    let expected: Expected = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    expected.cases
}

/// Blocks are used from the last downwards, so that a table is more than its indices.
fn step(model: &LoadedModel, ids: &[u32], position: u32) -> Report {
    let Programs::Whole(whole) = model.programs else { panic!("a single shard should have one program") };
    let rows = u32::try_from(ids.len()).unwrap();
    let blocks: Vec<u32> = (0..model.info.kv_blocks).rev().collect();
    let slot = |at: u32| i64::from(blocks[at as usize / KV_BLOCK]) * KV_BLOCK as i64 + i64::from(at) % KV_BLOCK as i64;
    let control = Control {
        rows: ids.len(),
        tokens: ids.iter().map(|&id| TokenSource::Host(id)).collect(),
        positions: (position..position + rows).collect(),
        kv_slots: (position..position + rows).map(slot).collect(),
        sequence_starts: vec![0, rows],
        block_tables: vec![blocks.clone()],
        samples: vec![SampleRow {
            row: rows - 1,
            params: SamplingParams::default(),
            history: Arc::new(TokenCounts::default()),
            output_index: 0,
            top_logprobs: 20,
        }],
    };
    let ticket = model.backend.submit(whole, &control, Lane::Step).unwrap();
    model.backend.wait(ticket).unwrap()
}

/// The report of every step: the prompt in chunks, then the given answer token by token.
fn steps(model: &LoadedModel, prompt: &Prompt) -> Vec<Report> {
    let mut position = 0;
    let answer = prompt.tokens.iter().map(std::slice::from_ref);
    let all = prompt.prompt.chunks(STEP_ROWS).chain(answer);
    let run = |ids: &[u32]| {
        position += ids.len() as u32;
        step(model, ids, position - ids.len() as u32)
    };
    all.map(run).collect()
}

#[rstest::rstest]
fn every_fixture_has_the_same_bits_on_strict_and_at_every_level(
    #[files("../tests/fixtures/*/config.json")] config: PathBuf,
    #[values(Dtype::F32, Dtype::Bf16)] kv_dtype: Dtype,
) {
    let name = name_of(&config);
    let options = |threads, level| CpuOptions { threads: NonZeroUsize::new(threads).unwrap(), level };
    let cpu = fixture(name, kv_dtype, Arc::new(CpuBackend::new(options(2, None)).unwrap()));
    let scalar = fixture(name, kv_dtype, Arc::new(CpuBackend::new(options(1, Some(Level::Scalar))).unwrap()));
    let inside = StrictOptions { cpu: options(1, None), seed: 5 };
    let strict = fixture(name, kv_dtype, Arc::new(StrictBackend::new(inside).unwrap()));
    for prompt in prompts(name) {
        let reference = steps(&cpu, &prompt);
        assert!(reference.iter().all(|report| report.non_finite.is_empty() && report.samples[0].is_some()));
        assert_eq!(steps(&strict, &prompt), reference, "strict, prompt of {}", prompt.prompt.len());
        assert_eq!(steps(&scalar, &prompt), reference, "scalar, prompt of {}", prompt.prompt.len());
    }
}

fn distance(ours: &SampledToken, meant: &SampledToken) -> f32 {
    // The last two of twenty may trade places with the twenty-first.
    let of = |id: u32| ours.top.iter().find(|(other, _)| *other == id).map_or(f32::MAX, |(_, value)| *value);
    meant.top.iter().take(18).map(|&(id, value)| (of(id) - value).abs()).fold(0.0, f32::max)
}

#[rstest::rstest]
fn every_fixture_agrees_with_the_oracle(#[files("../tests/fixtures/*/config.json")] config: PathBuf) {
    let name = name_of(&config);
    let options = CpuOptions { threads: NonZeroUsize::MIN, level: None };
    let cpu = fixture(name, Dtype::F32, Arc::new(CpuBackend::new(options).unwrap()));
    let referee = fixture(name, Dtype::F32, Arc::new(Referee::default()));
    for prompt in prompts(name).iter().filter(|prompt| prompt.prompt.len() <= STEP_ROWS) {
        let (ours, meant) = (steps(&cpu, prompt), steps(&referee, prompt));
        for ((ours, meant), margin) in ours.iter().zip(&meant).zip(&prompt.margin) {
            assert_eq!((ours.expert_pairs, ours.experts_read), (meant.expert_pairs, meant.experts_read));
            let (Some(Some(ours)), Some(Some(meant))) = (ours.samples.first(), meant.samples.first()) else {
                panic!("every step should sample");
            };
            let off = distance(ours, meant);
            assert!(off <= 1e-4 || *margin < 1e-5, "{name}: {off:.2e} from the oracle, margin {margin:.1e}");
        }
    }
}
