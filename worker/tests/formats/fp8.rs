//! FP8 checkpoints against the F32 model of the same numbers: e4m3 · scale, one F32 product.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, TensorView, serialize_to_file};
use serde_json::json;
use shoal_worker::formats::{e4m3, e8m0};
use shoal_worker::program::Dtype;

use super::model::{open, teacher_forced};
use super::noise::Random;

type Tensors = BTreeMap<String, (FileDtype, Vec<usize>, Vec<u8>)>;

/// What the scales of a checkpoint are stored as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScaleKind {
    F32,
    Bf16,
    E8m0,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn stored(name: &str) -> Tensors {
    let bytes = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let all =
        file.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
    all.collect()
}

/// As published: routers, embeddings, head and norms stay as they are.
fn is_fp8(name: &str) -> bool {
    name.ends_with("_proj.weight") || name.ends_with("kv_a_proj_with_mqa.weight")
}

fn floats(kind: FileDtype, bytes: &[u8]) -> Vec<f32> {
    let dtype = match kind {
        FileDtype::F32 => Dtype::F32,
        FileDtype::BF16 => Dtype::Bf16,
        _ => Dtype::F16,
    };
    let mut numbers = vec![0.0; bytes.len() / dtype.block().1];
    dtype.widen(bytes, &mut numbers);
    numbers
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The code nearest to `x`.
fn nearest(x: f32) -> u8 {
    let codes = (0..=255_u8).filter(|&code| !e4m3::is_nan(code));
    codes.min_by(|&a, &b| (e4m3::widen(a) - x).abs().total_cmp(&(e4m3::widen(b) - x).abs())).unwrap()
}

/// The fixture in FP8, and the F32 numbers that this stands for.
fn quantised(name: &str, kind: ScaleKind) -> (Tensors, Tensors) {
    let (mut fp8, mut plain) = (stored(name), stored(name));
    for (name, (dtype, shape, bytes)) in stored(name).into_iter().filter(|(name, _)| is_fp8(name)) {
        let (rows, cols) = (shape[0], shape[1]);
        let tiles = [rows.div_ceil(128), cols.div_ceil(128)];
        let mut random = Random::of(&name, 3);
        let scales: Vec<f32> = (0..tiles[0] * tiles[1])
            .map(|_| match kind {
                ScaleKind::E8m0 => e8m0::widen(118 + random.below(3) as u8),
                ScaleKind::Bf16 => half::bf16::from_f32(0.002 * (2.0 + random.unit())).to_f32(),
                ScaleKind::F32 => 0.002 * (2.0 + random.unit()),
            })
            .collect();
        let scale = |at: usize| scales[at / cols / 128 * tiles[1] + at % cols / 128];
        let numbers = floats(dtype, &bytes);
        let codes: Vec<u8> = numbers.iter().enumerate().map(|(at, x)| nearest(x / scale(at))).collect();
        let meant: Vec<f32> = codes.iter().enumerate().map(|(at, &code)| e4m3::widen(code) * scale(at)).collect();
        let (scale_dtype, scale_bytes) = match kind {
            ScaleKind::F32 => (FileDtype::F32, bytes_of(&scales)),
            ScaleKind::Bf16 => {
                (FileDtype::BF16, scales.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect())
            }
            ScaleKind::E8m0 => (FileDtype::F8_E8M0, scales.iter().map(|x| (x.to_bits() >> 23) as u8).collect()),
        };
        plain.insert(name.clone(), (FileDtype::F32, shape.clone(), bytes_of(&meant)));
        fp8.insert(format!("{name}_scale_inv"), (scale_dtype, tiles.to_vec(), scale_bytes));
        fp8.insert(name, (FileDtype::F8_E4M3, shape, codes));
    }
    (fp8, plain)
}

fn write(name: &str, tensors: &Tensors, quantization: Option<serde_json::Value>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, &directory.path().join("model.safetensors")).unwrap();
    let bytes = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    if let Some(quantization) = quantization {
        config["quantization_config"] = quantization;
    }
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

fn says(directory: &Path) -> Vec<Vec<(u32, f32)>> {
    let prompt: Vec<u32> = (0..50).map(|i| i * 29 % 200).collect();
    teacher_forced(&open(directory, 64).unwrap(), &prompt, &[3, 9])
}

/// What a model in FP8 says, and the F32 model of its numbers.
pub(crate) fn twins(name: &str, kind: ScaleKind) -> [Vec<Vec<(u32, f32)>>; 2] {
    let (fp8, plain) = quantised(name, kind);
    let says_so = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "scale_fmt": if kind == ScaleKind::E8m0 { json!("ue8m0") } else { json!(null) }});
    let (ours, meant) = (write(name, &fp8, Some(says_so)), write(name, &plain, None));
    [says(ours.path()), says(meant.path())]
}

#[test]
fn a_matrix_without_its_scales_is_refused_by_name() {
    let (mut fp8, _) = quantised("v2-lite", ScaleKind::F32);
    fp8.remove("model.layers.1.self_attn.o_proj.weight_scale_inv").unwrap();
    let directory = write("v2-lite", &fp8, None);
    let refused = open(directory.path(), 64).err().unwrap().to_string();
    assert_eq!(refused, "tensor model.layers.1.self_attn.o_proj.weight_scale_inv is missing from the model's files");
}

#[test]
fn scales_for_other_tiles_are_refused_by_name() {
    let (mut fp8, _) = quantised("v2-lite", ScaleKind::F32);
    let name = "model.layers.1.self_attn.o_proj.weight_scale_inv";
    fp8.insert(name.into(), (FileDtype::F32, vec![2, 1], vec![0; 8]));
    let directory = write("v2-lite", &fp8, None);
    let refused = open(directory.path(), 64).err().unwrap().to_string();
    assert_eq!(refused, format!("tensor {name} has shape [2, 1]; the config asks for [1, 1]"));
}
