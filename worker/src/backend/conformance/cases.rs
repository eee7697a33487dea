//! Cases of the dense ops and of the head.

use std::sync::Arc;

use crate::backend::{SampleRow, TokenSource};
use crate::engine::request::SamplingParams;
use crate::ops::{Op, Pairing, RopeTable};
use crate::program::{BufferId, BufferKind, Dtype, View};
use crate::sampling::TokenCounts;

use super::session::{Case, control};

/// Every format that a weight may have.
pub(super) fn formats() -> Vec<Dtype> {
    Dtype::ALL.into_iter().filter(|dtype| ![Dtype::U32, Dtype::E8m0].contains(dtype)).collect()
}

/// Of vectors.
const PLAIN: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

/// The format of a bias beside a matrix.
pub(super) fn plain(dtype: Dtype) -> Dtype {
    if PLAIN.contains(&dtype) { dtype } else { Dtype::F32 }
}

/// (rows, K, N): tails in every direction, and one large enough to be shared by threads.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (2, 16, 4), (3, 15, 5), (4, 17, 3), (5, 64, 19), (9, 130, 7), (9, 272, 300)];

/// Whole blocks only; rows of E4M3 reach into a second, ragged tile.
fn shapes(dtype: Dtype) -> Vec<(usize, usize, usize)> {
    let block = dtype.block().0;
    let fitting = SHAPES.into_iter().map(|(rows, k, n)| (rows, k.next_multiple_of(block), n));
    fitting.skip(if block == 256 { 4 } else { 0 }).collect()
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in formats() {
        for shape in shapes(dtype) {
            cases.push(embed(dtype, shape));
            cases.push(rms_norm(dtype, shape));
            cases.extend([false, true].map(|biased| linear(dtype, shape, biased)));
            cases.push(per_head(dtype, shape, true));
            cases.push(per_head(dtype, shape, false));
            cases.push(logits(dtype, shape));
        }
    }
    for pairing in [Pairing::Interleaved, Pairing::HalfSplit] {
        cases.extend([1, 3, 32].map(|half| rope(pairing, half)));
    }
    for dtype in [Dtype::F32, Dtype::Bf16] {
        cases.extend([(1, 16, 8, 5), (3, 20, 6, 133), (2, 64, 16, 70)].map(|shape| attend(dtype, shape)));
        let shapes = [((1, 1), 16, 5), ((6, 2), 20, 133), ((5, 1), 9, 140), ((3, 3), 64, 70)];
        for window in [None, Some(1), Some(19), Some(64), Some(97)] {
            cases.extend(shapes.map(|shape| attend_gqa(dtype, shape, window, None)));
            cases.extend(PLAIN.map(|sinks| attend_gqa(dtype, shapes[1], window, Some(sinks))));
        }
    }
    cases.extend(SHAPES.map(|(rows, cols, _)| swiglu(rows, cols)));
    cases.extend(SHAPES.map(|(rows, cols, _)| add(rows, cols)));
    cases.extend(SHAPES.map(|(rows, cols, _)| clamp(rows, cols)));
    cases.extend(PLAIN.map(rms_norm_of_heads));
    cases.extend([gather(), finite_check(), finite_check_samples()]);
    cases
}

/// A run of columns inside a wider buffer.
fn inner(buffer: BufferId, width: usize) -> View {
    View { buffer, offset: 2, groups: 1, stride: width, width }
}

fn embed(dtype: Dtype, (rows, hidden, _): (usize, usize, usize)) -> Case {
    let mut case = Case::new("embed", format!("{dtype:?} {rows}×{hidden}"), control(rows));
    case.control.tokens[rows / 2] = TokenSource::Sampled(0);
    let table = case.weight(dtype, 5, hidden);
    let samples = case.declare(BufferKind::State, Dtype::U32, (2, 1), Vec::new());
    let out = case.output(Dtype::F32, rows, hidden);
    case.steps.push(Op::Embed { table, samples, out });
    case
}

fn rms_norm(dtype: Dtype, (rows, width, _): (usize, usize, usize)) -> Case {
    let mut case = Case::new("rms_norm", format!("{dtype:?} {rows}×{width}"), control(rows));
    let (input, weight) = (case.input(rows, width + 3), case.weight(dtype, 1, width));
    let (out, again) = (case.output(Dtype::F32, rows, width + 3), case.output(Dtype::F32, rows, width + 3));
    let zeros = case.declare(BufferKind::PortIn, Dtype::F32, (rows, width + 3), vec![0; rows * (width + 3) * 4]);
    let (from, to) = (inner(input, width), inner(out, width));
    case.steps.push(Op::RmsNorm { input: from, weight, eps: 1e-6, out: to });
    case.steps.push(Op::Add { a: input, b: zeros, out: again });
    case.steps.push(Op::RmsNorm { input: inner(again, width), weight, eps: 1e-6, out: inner(again, width) });
    case
}

/// Three heads apart from each other, into another buffer and in place.
fn rms_norm_of_heads(dtype: Dtype) -> Case {
    let (rows, width) = (9, 14);
    let mut case = Case::new("rms_norm", format!("{dtype:?} {rows}×3×{width}"), control(rows));
    let heads = |buffer| View { buffer, offset: 1, groups: 3, stride: width + 2, width };
    let (input, weight) = (case.input(rows, 3 * (width + 2)), case.weight(dtype, 1, width));
    let out = case.output(Dtype::F32, rows, 3 * (width + 2));
    case.steps.push(Op::RmsNorm { input: heads(input), weight, eps: 1e-5, out: heads(out) });
    case.steps.push(Op::RmsNorm { input: heads(out), weight, eps: 0.1, out: heads(out) });
    case
}

fn linear(dtype: Dtype, (rows, k, n): (usize, usize, usize), biased: bool) -> Case {
    let mut case = Case::new("linear", format!("{dtype:?} {rows}×{k}×{n} bias {biased}"), control(rows));
    let (input, weight) = (case.input(rows, k + 3), case.weight(dtype, n, k));
    let bias = biased.then(|| case.weight(plain(dtype), 1, n));
    let out = case.output(Dtype::F32, rows, n + 5);
    case.steps.push(Op::Linear { input: inner(input, k), weight, bias, out: inner(out, n) });
    case
}

fn per_head(dtype: Dtype, (rows, k, n): (usize, usize, usize), transposed: bool) -> Case {
    const HEADS: usize = 3;
    let shape = format!("{dtype:?} {rows}×{HEADS}×{k}×{n} transposed {transposed}");
    let mut case = Case::new("per_head_matmul", shape, control(rows));
    let (from, to) = if transposed { (n, k) } else { (k, n) };
    let heads = |buffer, width| View { buffer, offset: 1, groups: HEADS, stride: width + 2, width };
    let input = case.input(rows, 1 + HEADS * (from + 2));
    let weight = case.weight(dtype, HEADS * (n + 4), k);
    let out = case.output(Dtype::F32, rows, 1 + HEADS * (to + 2));
    let (input, out) = (heads(input, from), heads(out, to));
    let (rows_per_head, first_row) = (n + 4, 3);
    case.steps.push(Op::PerHeadMatmul { input, weight, rows_per_head, first_row, rows: n, transposed, out });
    case
}

fn rope(pairing: Pairing, half: usize) -> Case {
    let (rows, heads) = (9, 2);
    let mut case = Case::new("rope", format!("{pairing:?} {half}"), control(rows));
    let cols = heads * (2 * half + 3);
    case.control.positions[4] = 100_000;
    case.control.block_tables[0] = vec![0; 1600];
    case.control.kv_slots[4] = 100_000 % 64;
    let (input, out) = (case.input(rows, cols), case.output(Dtype::F32, rows, cols));
    let zeros = case.declare(BufferKind::PortIn, Dtype::F32, (rows, cols), vec![0; rows * cols * 4]);
    let inv_freq = (0..half).map(|i| 10_000_f32.powf(-(i as f32) / half as f32)).collect();
    let target = View { buffer: out, offset: 3, groups: heads, stride: 2 * half + 3, width: 2 * half };
    let target = View { offset: 1, ..target };
    case.steps.push(Op::Add { a: input, b: zeros, out });
    case.steps.push(Op::Rope { target, table: RopeTable { inv_freq, factor: 1.25, pairing } });
    case
}

fn attend(dtype: Dtype, (heads, latent, rope, rows): (usize, usize, usize, usize)) -> Case {
    let shape = format!("{dtype:?} {heads} heads of {latent} + {rope}, {rows} rows");
    let mut case = Case::new("attend_mla", shape, control(rows));
    let width = latent + rope;
    let (key, query) = (case.input(rows, width), case.input(rows, heads * (width + 1)));
    let cache = case.declare(BufferKind::Kv, dtype, (192, width), Vec::new());
    let out = case.output(Dtype::F32, rows, heads * latent);
    let part = |offset, width| View { buffer: query, offset, groups: heads, stride: latent + rope + 1, width };
    let (q_latent, q_rope) = (part(0, latent), part(latent, rope));
    let rope_key = View::columns(key, latent, rope);
    case.steps.push(Op::AppendKv { first: View::columns(key, 0, latent), second: rope_key, cache });
    let out = View { buffer: out, offset: 0, groups: heads, stride: latent, width: latent };
    case.steps.push(Op::AttendMla { q_latent, q_rope, cache, scale: 0.7, out });
    case
}

fn attend_gqa(
    dtype: Dtype,
    ((heads, kv_heads), width, rows): ((usize, usize), usize, usize),
    window: Option<usize>,
    sinks: Option<Dtype>,
) -> Case {
    let shape = format!("{dtype:?} {heads} heads on {kv_heads} of {width}, {rows} rows, {window:?}, sinks {sinks:?}");
    let mut case = Case::new("attend_gqa", shape, control(rows));
    let keys = kv_heads * width;
    let (entry, query) = (case.input(rows, 2 * keys), case.input(rows, heads * (width + 1)));
    let cache = case.declare(BufferKind::Kv, dtype, (192, 2 * keys), Vec::new());
    let out = case.output(Dtype::F32, rows, heads * (width + 3));
    let sinks = sinks.map(|dtype| case.weight(dtype, 1, heads));
    let (first, second) = (View::columns(entry, 0, keys), View::columns(entry, keys, keys));
    case.steps.push(Op::AppendKv { first, second, cache });
    let query = View { buffer: query, offset: 0, groups: heads, stride: width + 1, width };
    let out = View { buffer: out, offset: 2, groups: heads, stride: width + 3, width };
    case.steps.push(Op::AttendGqa { query, cache, kv_heads, window, sinks, scale: 0.7, out });
    case
}

fn clamp(rows: usize, cols: usize) -> Case {
    let mut case = Case::new("clamp", format!("{rows}×{cols}"), control(rows));
    let (input, out) = (case.input(rows, cols + 3), case.output(Dtype::F32, rows, cols + 3));
    let zeros = case.declare(BufferKind::PortIn, Dtype::F32, (rows, cols + 3), vec![0; rows * (cols + 3) * 4]);
    case.steps.push(Op::Add { a: input, b: zeros, out });
    case.steps.push(Op::Clamp { target: inner(out, cols), limit: 0.3 });
    case
}

fn swiglu(rows: usize, cols: usize) -> Case {
    let mut case = Case::new("swiglu", format!("{rows}×{cols}"), control(rows));
    let (both, out) = (case.input(rows, 2 * cols), case.output(Dtype::F32, rows, 2 * cols));
    let zeros = case.declare(BufferKind::PortIn, Dtype::F32, (rows, 2 * cols), vec![0; rows * cols * 8]);
    let view = |buffer, offset| View::columns(buffer, offset, cols);
    case.steps.push(Op::Add { a: both, b: zeros, out });
    case.steps.push(Op::SwiGlu { gate: view(out, 0), up: view(out, cols), out: view(out, 0) });
    case.steps.push(Op::SwiGlu { gate: view(both, cols), up: view(both, 0), out: view(out, cols) });
    case
}

fn add(rows: usize, cols: usize) -> Case {
    let mut case = Case::new("add", format!("{rows}×{cols}"), control(rows));
    let (a, b, out) = (case.input(rows, cols), case.input(rows, cols), case.output(Dtype::F32, rows, cols));
    case.steps.extend([Op::Add { a, b, out }, Op::Add { a: out, b, out }]);
    case
}

/// Every second row is sampled.
fn sampled(case: &mut Case) -> usize {
    let sample = |row| SampleRow {
        row,
        params: SamplingParams { temperature: 0.8, seed: 11, ..SamplingParams::default() },
        history: Arc::new(TokenCounts::default()),
        output_index: u64::from(row),
        top_logprobs: 3,
    };
    case.control.samples = (0..case.control.rows as u32).step_by(2).map(sample).collect();
    case.row_wise = false;
    case.control.samples.len()
}

fn gather() -> Case {
    let mut case = Case::new("gather_samples", "9×5".into(), control(9));
    let samples = sampled(&mut case);
    let (input, out) = (case.input(9, 5), case.output(Dtype::F32, samples, 5));
    case.steps.push(Op::GatherSamples { input, out });
    case
}

fn logits(dtype: Dtype, (rows, hidden, vocabulary): (usize, usize, usize)) -> Case {
    let mut case = Case::new("logits", format!("{dtype:?} {rows}×{hidden}×{vocabulary}"), control(rows));
    let samples = sampled(&mut case);
    let (input, norm) = (case.input(samples, hidden), case.weight(dtype, 1, hidden));
    let head = case.weight(dtype, vocabulary, hidden);
    let normed = case.declare(BufferKind::Scratch, Dtype::F32, (samples, hidden), Vec::new());
    let (out, chosen) = (case.output(Dtype::F32, samples, vocabulary), case.output(Dtype::U32, samples, 1));
    case.steps.push(Op::Logits { input, norm, eps: 1e-6, head, normed, out });
    case.steps.push(Op::Sample { logits: out, samples: chosen });
    case
}

fn broken(case: &mut Case, rows: usize) -> BufferId {
    let input = case.input(rows, 3);
    let bytes = &mut case.buffers[input.0 as usize].bytes;
    bytes[12..16].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes[32..36].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    input
}

fn finite_check() -> Case {
    let mut case = Case::new("finite_check", "NaN in row 1, −∞ in row 2".into(), control(4));
    let input = broken(&mut case, 4);
    case.steps.extend([Op::FiniteCheck { input }, Op::FiniteCheck { input }]);
    case
}

fn finite_check_samples() -> Case {
    let mut case = Case::new("finite_check_samples", "NaN in sample 1, −∞ in sample 2".into(), control(7));
    let samples = sampled(&mut case);
    let input = broken(&mut case, samples);
    let chosen = case.output(Dtype::U32, samples, 1);
    case.steps.extend([Op::FiniteCheckSamples { input }, Op::Sample { logits: input, samples: chosen }]);
    case
}
