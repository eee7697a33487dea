//! A model loaded from a file, and what it says.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use shoal_worker::backend::cpu::{CpuBackend, CpuOptions};
use shoal_worker::backend::{Control, KV_BLOCK, Lane, SampleRow, TokenSource};
use shoal_worker::engine::request::{SampledToken, SamplingParams};
use shoal_worker::model::ModelError;
use shoal_worker::model::load::{LoadOptions, load};
use shoal_worker::model::loaded::{LoadedModel, Programs};
use shoal_worker::program::Dtype;
use shoal_worker::sampling::TokenCounts;

pub(crate) const CONTEXT: u32 = 128;

pub(crate) fn open(path: &Path, step_rows: usize) -> Result<LoadedModel, ModelError> {
    let threads = NonZeroUsize::new(2).unwrap();
    let backend = Arc::new(CpuBackend::new(CpuOptions { threads, level: None }).unwrap());
    let options = LoadOptions {
        directory: path.to_owned(),
        rank: 0,
        placement: None,
        context_tokens: Some(CONTEXT),
        sequences: 1,
        kv_tokens: None,
        step_rows,
        kv_dtype: Dtype::F32,
    };
    load(&options, backend)
}

/// Runs `ids` from `position` on and says what comes after each.
pub(crate) fn run(model: &LoadedModel, ids: &[u32], position: u32) -> Vec<SampledToken> {
    let Programs::Whole(whole) = model.programs else { panic!("a single shard should have one program") };
    let rows = u32::try_from(ids.len()).unwrap();
    let blocks = (position + rows).div_ceil(KV_BLOCK as u32);
    let sample = |row| SampleRow {
        row,
        params: SamplingParams::default(),
        history: Arc::new(TokenCounts::default()),
        output_index: 0,
        top_logprobs: 20,
    };
    // One sequence has one sample a step: its last row.
    let control = Control {
        rows: ids.len(),
        tokens: ids.iter().map(|&id| TokenSource::Host(id)).collect(),
        positions: (position..position + rows).collect(),
        kv_slots: (i64::from(position)..i64::from(position + rows)).collect(),
        sequence_starts: vec![0, rows],
        block_tables: vec![(0..blocks).collect()],
        samples: vec![sample(rows - 1)],
    };
    let ticket = model.backend.submit(whole, &control, Lane::Step).unwrap();
    let report = model.backend.wait(ticket).unwrap();
    report.samples.into_iter().map(|sample| sample.expect("logits should be finite")).collect()
}

/// The top 20 after a prompt, read at once, and after each token that follows.
pub(crate) fn teacher_forced(model: &LoadedModel, prompt: &[u32], answer: &[u32]) -> Vec<Vec<(u32, f32)>> {
    let mut said = run(model, prompt, 0);
    for (index, &id) in answer.iter().enumerate() {
        said.extend(run(model, &[id], (prompt.len() + index) as u32));
    }
    said.into_iter().map(|token| token.top).collect()
}
