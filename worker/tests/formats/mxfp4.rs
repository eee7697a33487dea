//! gpt-oss's own MXFP4 files against the F32 model of the same numbers, stored as its unquantised files are.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype as FileDtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

use super::model::{open, teacher_forced};
use super::noise::Random;

const HIDDEN: usize = 64;
const WIDTH: usize = 32;
const EXPERTS: usize = 7;
const VOCABULARY: usize = 151;
const LAYERS: usize = 2;
const Q: usize = 6 * 14;
const KV: usize = 2 * 14;
/// What the codes of E2M1 stand for. OCP Microscaling Formats 1.0, section 5.3.3.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

type Tensors = BTreeMap<String, (FileDtype, Vec<usize>, Vec<u8>)>;

fn float(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    let mut random = Random::of(name, 1);
    let centre = if name.contains("norm") { 1.0 } else { 0.0 };
    let count: usize = shape.iter().product();
    let bytes = (0..count).flat_map(|_| (centre + 0.3 * random.unit()).to_le_bytes()).collect();
    tensors.insert(name.to_owned(), (FileDtype::F32, shape.to_vec(), bytes));
}

/// \[EXPERTS, rows, cols\] as blocks and scales in `packed`, and transposed as numbers in `plain`.
fn experts(packed: &mut Tensors, plain: &mut Tensors, name: &str, [rows, cols]: [usize; 2]) {
    let mut random = Random::of(name, 2);
    let blocks = EXPERTS * rows * cols / 32;
    let scales: Vec<u8> = (0..blocks).map(|_| 122 + random.below(4) as u8).collect();
    let pairs: Vec<u8> = (0..blocks * 16).map(|_| random.below(256) as u8).collect();
    let mut numbers = vec![0.0_f32; EXPERTS * rows * cols];
    for (at, number) in (0..EXPERTS * rows * cols).map(|at| (at, pairs[at / 2] >> (at % 2 * 4) & 15)) {
        let (expert, row, col) = (at / cols / rows, at / cols % rows, at % cols);
        let scale = f32::from_bits(u32::from(scales[at / 32]) << 23);
        numbers[(expert * cols + col) * rows + row] = E2M1[usize::from(number)] * scale;
    }
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    plain.insert(name.to_owned(), (FileDtype::F32, vec![EXPERTS, cols, rows], bytes));
    packed.insert(format!("{name}_blocks"), (FileDtype::U8, vec![EXPERTS, rows, cols / 32, 16], pairs));
    packed.insert(format!("{name}_scales"), (FileDtype::U8, vec![EXPERTS, rows, cols / 32], scales));
}

/// The same model twice.
fn models() -> [Tensors; 2] {
    let mut both = Tensors::new();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        float(&mut both, name, &[VOCABULARY, HIDDEN]);
    }
    float(&mut both, "model.norm.weight", &[HIDDEN]);
    let [mut packed, mut plain] = [Tensors::new(), Tensors::new()];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for norm in ["input_layernorm.weight", "post_attention_layernorm.weight"] {
            float(&mut both, &name(norm), &[HIDDEN]);
        }
        for (part, rows, cols) in [("q", Q, HIDDEN), ("k", KV, HIDDEN), ("v", KV, HIDDEN), ("o", HIDDEN, Q)] {
            float(&mut both, &name(&format!("self_attn.{part}_proj.weight")), &[rows, cols]);
            float(&mut both, &name(&format!("self_attn.{part}_proj.bias")), &[rows]);
        }
        float(&mut both, &name("self_attn.sinks"), &[6]);
        float(&mut both, &name("mlp.router.weight"), &[EXPERTS, HIDDEN]);
        float(&mut both, &name("mlp.router.bias"), &[EXPERTS]);
        float(&mut both, &name("mlp.experts.gate_up_proj_bias"), &[EXPERTS, 2 * WIDTH]);
        float(&mut both, &name("mlp.experts.down_proj_bias"), &[EXPERTS, HIDDEN]);
        experts(&mut packed, &mut plain, &name("mlp.experts.gate_up_proj"), [2 * WIDTH, HIDDEN]);
        experts(&mut packed, &mut plain, &name("mlp.experts.down_proj"), [HIDDEN, WIDTH]);
    }
    packed.extend(both.clone());
    plain.extend(both);
    [packed, plain]
}

fn says(tensors: &Tensors, quantization: Option<Value>) -> Vec<Vec<(u32, f32)>> {
    let directory = tempfile::tempdir().unwrap();
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, &directory.path().join("model.safetensors")).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gpt-oss-128/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let changed = json!({"hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS,
        "layer_types": ["sliding_attention", "full_attention"]});
    config.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    if let Some(quantization) = quantization {
        config["quantization_config"] = quantization;
    }
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let prompt: Vec<u32> = (0..50).map(|i| i * 29 % 150).collect();
    teacher_forced(&open(directory.path(), 64).unwrap(), &prompt, &[3, 9])
}

/// What gpt-oss in MXFP4 says, and the F32 model of its numbers.
pub(crate) fn twins() -> [Vec<Vec<(u32, f32)>>; 2] {
    let [packed, plain] = models();
    let published = json!({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]});
    let meant = says(&plain, None);
    assert_ne!(meant[0], meant[1]);
    [says(&packed, Some(published)), meant]
}
