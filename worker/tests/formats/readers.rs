//! Shoal's reader of GGUF files beside PyPI's gguf, which `tests/gen/readers.py` asked; most files its own writer wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_worker::weights::Entry;
use shoal_worker::weights::gguf::{Header, Metadata, open, parse};

use super::compared::{COMPARED, compared};

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, Vec<String>>,
    vocabularies: BTreeMap<String, String>,
    models: BTreeMap<String, String>,
}

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixtures("gguf/expected.json")).unwrap()).unwrap()
}

fn bits(number: f64) -> String {
    format!("{:016x}", number.to_bits())
}

fn value(metadata: &Metadata, key: &str) -> String {
    if let Ok(Some(text)) = metadata.text(key) {
        return format!("text {}", serde_json::to_string(text).unwrap());
    }
    if let Ok(Some(whole)) = metadata.whole(key) {
        return format!("whole {whole}");
    }
    if let Ok(Some(truth)) = metadata.truth(key) {
        return format!("truth {truth}");
    }
    if let Ok(Some(float)) = metadata.float(key) {
        return format!("float {}", bits(float));
    }
    if let Ok(Some(texts)) = metadata.texts(key) {
        let texts: Vec<&str> = texts.map(Result::unwrap).collect();
        return format!("texts {}", serde_json::to_string(&texts).unwrap());
    }
    let numbers = metadata.numbers(key).unwrap().unwrap();
    format!("numbers {}", numbers.into_iter().map(bits).collect::<Vec<_>>().join(","))
}

fn line(tensor: &Entry) -> String {
    let Entry { name, dtype, shape, offset, len } = tensor;
    let kind = dtype.as_ref().map_or_else(Clone::clone, |dtype| format!("{dtype:?}"));
    format!("{name}: {} {shape:?} at {offset}, {len} bytes", kind.replace('_', "").to_uppercase())
}

fn lines(bytes: Vec<u8>) -> Vec<String> {
    let len = bytes.len() as u64;
    let Header { metadata, tensors } = parse(bytes, len).map_err(|(problem, _)| problem).unwrap();
    let keys = metadata.keys().map(|key| format!("{key} = {}", value(&metadata, key)));
    keys.chain(tensors.iter().map(line)).collect()
}

fn digest(bytes: Vec<u8>) -> String {
    blake3::hash(lines(bytes).join("\n").as_bytes()).to_hex().to_string()
}

#[test]
fn keys_tensors_types_shapes_and_places_are_those_that_pypi_gguf_reads() {
    let expected = expected();
    assert_eq!(expected.files.len(), 6);
    for (name, meant) in &expected.files {
        assert_eq!(&lines(std::fs::read(fixtures("gguf").join(name)).unwrap()), meant, "{name}");
    }
    assert_eq!(expected.vocabularies.len(), 6);
    for (name, meant) in &expected.vocabularies {
        assert_eq!(&digest(std::fs::read(fixtures("vocabularies").join(name)).unwrap()), meant, "{name}");
    }
}

#[test]
fn of_whole_models_too_pypi_gguf_reads_the_same() {
    let models = expected().models;
    for name in COMPARED {
        assert_eq!(digest(compared(name).unwrap().bytes()), models[name], "{name}");
    }
}

#[test]
fn a_split_model_has_the_tensors_that_pypi_gguf_reads_in_its_files() {
    let expected = expected();
    let whole = open(&fixtures("gguf/parts-00001-of-00003.gguf")).unwrap();
    let keys: Vec<_> = whole.metadata.keys().map(|key| format!("{key} = {}", value(&whole.metadata, key))).collect();
    assert_eq!(expected.files["parts-00001-of-00003.gguf"][..keys.len()], keys);
    let found = whole.parts.iter().map(|part| {
        let name = part.path.file_name().unwrap().to_string_lossy().into_owned();
        (name, part.tensors.iter().map(line).collect::<Vec<_>>())
    });
    let meant = expected.files.iter().filter(|(name, _)| name.starts_with("parts-"));
    let tensors = |lines: &[String]| lines.iter().filter(|line| line.ends_with(" bytes")).cloned().collect::<Vec<_>>();
    let meant: Vec<_> = meant.map(|(name, lines)| (name.clone(), tensors(lines))).collect();
    assert_eq!(found.collect::<Vec<_>>(), meant);
    assert_eq!(meant.iter().map(|(_, tensors)| tensors.len()).sum::<usize>(), 7);
}
