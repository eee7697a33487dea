//! Shoal's distance to F32 on the dequantised weights, beside llama.cpp's own, as `tests/gen/llama.py` measured it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compared::{COMPARED, compared};
use super::model::{open, teacher_forced};
use super::page;

#[derive(Deserialize)]
struct Measured {
    architecture: String,
    blake3: String,
    formats: Vec<String>,
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

/// Mean and largest difference of what Shoal says from the reference.
fn distance(name: &str, measured: &Measured) -> (f32, f32) {
    let file = compared(name).unwrap().bytes();
    let digest = blake3::hash(&file);
    let hint = "is another file than the one measured: run tests/gen/llama.py";
    assert_eq!(digest.to_hex().as_str(), measured.blake3, "{name} {hint}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, file).unwrap();
    let loaded = open(&path, 64).unwrap();
    let (prompt, answer) = measured.ids.split_at(measured.prompt);
    let ours = teacher_forced(&loaded, prompt, answer);
    assert_eq!(ours.len(), measured.reference.len());
    let mut differences = Vec::new();
    for (ours, meant) in ours.iter().zip(&measured.reference) {
        // The last two may trade places with what is beyond our twenty, and is at most as likely as the last of these.
        let end = |rank: usize| ours.last().filter(|_| rank >= 18);
        let found = |rank, id: u32| ours.iter().find(|(other, _)| *other == id).or(end(rank));
        let of = |rank, id| found(rank, id).map_or(f32::MAX, |(_, value)| *value);
        differences.extend(meant.iter().enumerate().map(|(rank, &(id, value))| (of(rank, id) - value).abs()));
    }
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    (mean, differences.iter().copied().fold(0.0, f32::max))
}

const HEAD: &str = "# Distances

How far log-probabilities are from transformers in F32 on the dequantised weights of a GGUF file: the 20 likeliest
tokens at 17 positions of random models, natural logarithm; of 27 layers for deepseek2, of which llama.cpp takes no
other number without q_lora, and of 4 for the rest. llama.cpp rounds activations to the format that goes with the
weights (8 bits for all but F32, F16 and BF16) and its cache to F16; Shoal's exact numerics keep both in F32. On gpt-oss
llama.cpp also rounds the ends of yarn's ramp to whole dims, which the published config (`truncate: false`) does not and
GGUF has no key for. Shoal's are rounded up to 1, 2 or 5 · 10^k. Generated (`SHOAL_BLESS=1 cargo test -p shoal-worker
--test formats llama`) from what `tests/gen/llama.py` measured.

| file | architecture | formats | Shoal, mean | largest | llama.cpp, mean | largest |
|---|---|---|---|---|---|---|
";

#[test]
fn shoal_is_within_5e_5_of_f32_and_nearer_than_llama_cpp_as_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/llama.json");
    let all: BTreeMap<String, Measured> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut distances = HEAD.to_owned();
    let mut section = "| file | architecture | formats | mean | largest |\n|---|---|---|---|---|\n".to_owned();
    for name in COMPARED {
        let measured = &all[name];
        let (mean, most) = distance(name, measured);
        let Distance { mean: theirs, max } = measured.llama;
        let formats = measured.formats.join(", ");
        let architecture = &measured.architecture;
        let ours = format!("{} | {}", page::up(mean), page::up(most));
        section.push_str(&format!("| {name} | {architecture} | {formats} | {ours} |\n"));
        distances.push_str(&format!("| {name} | {architecture} | {formats} | {ours} | {theirs:.1e} | {max:.1e} |\n"));
        assert!(mean <= 5e-5 && most <= 1e-3, "{name}: mean {mean:.2e}, max {most:.2e}");
        assert!(mean <= 1.2 * theirs && most <= 1.2 * max, "{name}: mean {mean:.2e}, max {most:.2e}");
    }
    page::check("gguf", &section);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/distances.md");
    if std::env::var_os("SHOAL_BLESS").is_some() {
        std::fs::write(path, &distances).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), distances);
}
