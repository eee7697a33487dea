//! Quantised models against the F32 model of the same numbers.

use std::path::Path;

use shoal_worker::program::Dtype;

use super::gguf::Writer;
use super::model::{open, teacher_forced};
use super::tiny::{Deepseek, VOCABULARY, decoded, deepseek, only};

const DIMS: Deepseek = Deepseek { layers: 3, formats: |_| Dtype::F32, third: false, split: false, seed: 7 };

/// Longer than the original context, so that yarn counts.
fn prompt() -> Vec<u32> {
    (0..70).map(|i| i * 37 % VOCABULARY as u32).collect()
}

fn answers(writer: &Writer, directory: &Path) -> Vec<Vec<(u32, f32)>> {
    let path = directory.join("model.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    let model = open(&path, 128).unwrap();
    teacher_forced(&model, &prompt(), &[5, 300, 17])
}

fn bits(all: &[Vec<(u32, f32)>]) -> Vec<Vec<(u32, u32)>> {
    all.iter().map(|top| top.iter().map(|(id, value)| (*id, value.to_bits())).collect()).collect()
}

/// What a deepseek2 file in a format says, and the F32 model of its numbers: V2-Lite's kind or, with kv_b in halves, V3's.
pub(crate) fn twins(dtype: Dtype, third: bool) -> [Vec<Vec<(u32, f32)>>; 2] {
    let directory = tempfile::tempdir().unwrap();
    let writer = deepseek(Deepseek { formats: only(dtype), third, split: third, ..DIMS });
    [answers(&writer, directory.path()), answers(&decoded(&writer), directory.path())]
}

/// The halves of kv_b apart are the same matrix as together, the first transposed.
#[test]
fn the_halves_of_kv_b_mean_what_the_whole_means() {
    let directory = tempfile::tempdir().unwrap();
    let whole = deepseek(DIMS);
    let mut split = deepseek(Deepseek { split: true, ..DIMS });
    let (heads, latent, nope, value) = (4, 256, 64, 64);
    for tensor in &whole.tensors {
        let Some(layer) = tensor.name.strip_suffix("attn_kv_b.weight") else { continue };
        let number = |row: usize, col: usize| &tensor.data[(row * latent + col) * 4..][..4];
        let (mut key, mut values) = (Vec::new(), Vec::new());
        for head in 0..heads {
            let first = head * (nope + value);
            for col in 0..latent {
                (0..nope).for_each(|row| key.extend(number(first + row, col)));
            }
            for row in nope..nope + value {
                (0..latent).for_each(|col| values.extend(number(first + row, col)));
            }
        }
        let mut put = |part: &str, data| {
            let name = format!("{layer}{part}");
            split.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap().data = data;
        };
        put("attn_k_b.weight", key);
        put("attn_v_b.weight", values);
    }
    let (one, other) = (answers(&whole, directory.path()), answers(&split, directory.path()));
    for (one, other) in one.iter().zip(&other) {
        for ((id, a), (same, b)) in one.iter().zip(other).take(18) {
            assert!(id == same && (a - b).abs() < 2e-5, "{id} {a}, {same} {b}");
        }
    }
}

#[test]
fn a_model_in_two_files_is_the_model_in_one() {
    let directory = tempfile::tempdir().unwrap();
    let whole = deepseek(Deepseek { formats: only(Dtype::Q4K), ..DIMS });
    let expected = answers(&whole, directory.path());
    std::fs::remove_file(directory.path().join("model.gguf")).unwrap();
    let (mut first, mut second) = (whole.clone(), Writer::new("deepseek2"));
    second.tensors = first.tensors.split_off(20);
    second.keys.clear();
    for (number, part) in [&mut first, &mut second].into_iter().enumerate() {
        part.raw("split.no", 2, &(number as u16).to_le_bytes());
        part.raw("split.count", 2, &2_u16.to_le_bytes());
        part.raw("split.tensors.count", 5, &(whole.tensors.len() as i32).to_le_bytes());
        let path = directory.path().join(format!("m-{:05}-of-00002.gguf", number + 1));
        std::fs::write(path, part.bytes()).unwrap();
    }
    // By the directory, which holds only this one model.
    let model = open(directory.path(), 128).unwrap();
    assert_eq!(bits(&teacher_forced(&model, &prompt(), &[5, 300, 17])), bits(&expected));
    let refused = open(&directory.path().join("m-00002-of-00002.gguf"), 128).err().unwrap().to_string();
    assert!(refused.ends_with("this is file 2 of 2; name the first, which describes the model"), "{refused}");
}
