//! The recorded programs against transformers, in this process: the quickest sign that a recipe or a kernel broke.
//! The same fixtures go through the worker binary over gRPC in `tests/tests/fleet.rs`.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::load::{LoadOptions, load};
use super::loaded::{KV_BLOCK, LoadedModel, Programs};
use crate::backend::cpu::{CpuBackend, CpuOptions};
use crate::backend::{Backend, Control, Lane, SampleRow, TokenSource};
use crate::engine::request::{SampledToken, SamplingParams};
use crate::program::Dtype;
use crate::sampling::TokenCounts;

#[path = "../../tests/common/page.rs"]
mod page;
#[path = "sabotage_tests.rs"]
mod sabotage;

const FIXTURES: [&str; 15] = include!("../../../tests/fixtures/names.rs");

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    top: Vec<Vec<(u32, f32)>>,
    margin: Vec<f32>,
}

fn cpu() -> CpuBackend {
    CpuBackend::new(CpuOptions { threads: NonZeroUsize::MIN, level: None }).unwrap()
}

fn fixture(name: &str, step_rows: usize, backend: Arc<dyn Backend>) -> (LoadedModel, Expected) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    let expected = std::fs::read(directory.join("expected.json")).unwrap();
    let options = LoadOptions {
        directory,
        rank: 0,
        placement: None,
        context_tokens: Some(384),
        sequences: 1,
        kv_tokens: None,
        step_rows,
        kv_dtype: Dtype::F32,
    };
    (load(&options, backend).unwrap(), serde_json::from_slice(&expected).unwrap())
}

/// One sequence in blocks 0, 1, 2, …: runs `ids` from `position` on and samples after the last.
fn run(model: &LoadedModel, ids: &[u32], position: u32) -> SampledToken {
    let Programs::Whole(whole) = model.programs else { panic!("a single shard should have one program") };
    let rows = u32::try_from(ids.len()).unwrap();
    let blocks = (position + rows).div_ceil(KV_BLOCK as u32);
    let control = Control {
        rows: ids.len(),
        tokens: ids.iter().map(|&id| TokenSource::Host(id)).collect(),
        positions: (position..position + rows).collect(),
        kv_slots: (i64::from(position)..i64::from(position + rows)).collect(),
        sequence_starts: vec![0, rows],
        block_tables: vec![(0..blocks).collect()],
        samples: vec![SampleRow {
            row: rows - 1,
            params: SamplingParams::default(),
            history: Arc::new(TokenCounts::default()),
            output_index: 0,
            top_logprobs: 20,
        }],
    };
    let ticket = model.backend.submit(whole, &control, Lane::Step).unwrap();
    model.backend.wait(ticket).unwrap().samples[0].clone().expect("logits should be finite")
}

/// All differences of the top 20, prompt in chunks of `step_rows`, answer teacher-forced through the cache.
fn differences(name: &str, step_rows: usize, backend: Arc<dyn Backend>) -> Vec<f32> {
    let (model, expected) = fixture(name, step_rows, backend);
    let mut differences = Vec::new();
    for case in &expected.cases {
        let mut position = 0;
        let mut sampled = None;
        for chunk in case.prompt.chunks(step_rows) {
            sampled = Some(run(&model, chunk, position));
            position += chunk.len() as u32;
        }
        for (index, top) in case.top.iter().enumerate() {
            let found = sampled.take().unwrap();
            if case.margin[index] >= 1e-5 {
                let of =
                    |id: u32| found.top.iter().find(|(other, _)| *other == id).map_or(f32::MAX, |(_, value)| *value);
                // The generator left 1e-4 between the twentieth and the next.
                differences.extend(top.iter().map(|&(id, value)| (of(id) - value).abs()));
            }
            sampled = Some(run(&model, &[case.tokens[index]], position));
            position += 1;
        }
    }
    differences
}

/// Mean and largest difference.
fn distance(name: &str, step_rows: usize, backend: Arc<dyn Backend>) -> (f32, f32) {
    let differences = differences(name, step_rows, backend);
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    let most = differences.iter().copied().fold(0.0, f32::max);
    println!("{name} in steps of {step_rows}: mean {mean:.2e}, max {most:.2e} over {}", differences.len());
    (mean, most)
}

/// The bounds of exact numerics.
fn is_within_bounds((mean, most): (f32, f32)) -> bool {
    mean <= 5e-5 && most <= 1e-3
}

/// Architecture and the type of the embeddings.
fn description(name: &str) -> (String, String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    let config: Value = serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
    let weights = std::fs::read(directory.join("model.safetensors")).unwrap();
    let (len, rest) = weights.split_first_chunk().unwrap();
    let header: Value = serde_json::from_slice(&rest[..u64::from_le_bytes(*len) as usize]).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&config["architectures"][0]), text(&header["model.embed_tokens.weight"]["dtype"]))
}

/// Its row of the page.
fn row(name: &str) -> String {
    let [whole, chunks] = [512, 7].map(|step_rows| distance(name, step_rows, Arc::new(cpu())));
    assert!(is_within_bounds(whole), "{name}: {whole:?}");
    assert_eq!(whole, chunks, "{name}: chunks change the answers");
    let (architecture, stored) = description(name);
    format!("| {name} | {architecture} | {stored} | {} | {} |\n", page::up(whole.0), page::up(whole.1))
}

#[test]
fn every_fixture_agrees_with_transformers_as_the_page_says() {
    let rows: Vec<String> = std::thread::scope(|scope| {
        let halves: Vec<_> = FIXTURES.chunks(FIXTURES.len().div_ceil(2)).collect();
        let threads = halves.into_iter().map(|names| scope.spawn(|| names.iter().map(|name| row(name)).collect()));
        let threads: Vec<std::thread::ScopedJoinHandle<'_, Vec<String>>> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let head = "| fixture | architecture | stored as | mean | largest |\n|---|---|---|---|---|\n";
    page::check("fixtures", &[head, &rows.concat()].concat());
}

#[test]
fn the_list_of_fixtures_is_what_lies_in_their_directory() {
    let all = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")).unwrap();
    let models = all.map(|entry| entry.unwrap()).filter(|entry| entry.path().join("config.json").exists());
    let mut found: Vec<_> = models.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let mut listed = FIXTURES.to_vec();
    found.sort();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
