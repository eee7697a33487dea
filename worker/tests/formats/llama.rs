//! Shoal's distance to F32 on the dequantised weights, beside llama.cpp's own, as `tests/gen/llama.py` measured it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::model::{open, teacher_forced};
use super::tiny::{COMPARED, compared};

#[derive(Deserialize)]
struct Measured {
    blake3: String,
    ids: Vec<u32>,
    prompt: usize,
    llama: Distance,
    reference: Vec<Vec<(u32, f32)>>,
}

#[derive(Deserialize)]
struct Distance {
    mean: f32,
    max: f32,
}

#[rstest::rstest]
fn shoal_is_within_5e_5_of_f32_and_nearer_than_llama_cpp(#[values(0, 1, 2)] model: usize) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/llama.json");
    let all: BTreeMap<String, Measured> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let name = COMPARED[model];
    let measured = &all[name];
    let file = compared(name).unwrap().bytes();
    assert_eq!(
        blake3::hash(&file).to_hex().as_str(),
        measured.blake3,
        "{name} is another file than the one measured: run tests/gen/llama.py"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, file).unwrap();
    let loaded = open(&path, 64).unwrap();
    let (prompt, answer) = measured.ids.split_at(measured.prompt);
    let ours = teacher_forced(&loaded, prompt, answer);
    assert_eq!(ours.len(), measured.reference.len());
    let mut differences = Vec::new();
    for (ours, meant) in ours.iter().zip(&measured.reference) {
        let of = |id: u32| ours.iter().find(|(other, _)| *other == id).map_or(f32::MAX, |(_, value)| *value);
        // The last two of twenty may trade places with the twenty-first.
        differences.extend(meant.iter().take(18).map(|&(id, value)| (of(id) - value).abs()));
    }
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    let most = differences.iter().copied().fold(0.0, f32::max);
    let Distance { mean: theirs, max } = measured.llama;
    println!("{name}: mean {mean:.2e}, max {most:.2e}; llama.cpp: mean {theirs:.2e}, max {max:.2e}");
    assert!(mean <= 5e-5 && most <= 1e-3, "mean {mean:.2e}, max {most:.2e}");
    assert!(mean <= 1.2 * theirs && most <= 1.2 * max, "mean {mean:.2e}, max {most:.2e}");
}
