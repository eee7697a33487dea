use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::model::rope::Yarn;

/// DeepSeek-V3's published config, without its quantization.
fn v3() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "n_shared_experts": 1,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "routed_scaling_factor": 2.5, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_group": 8,
        "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
        "first_k_dense_replace": 3, "moe_layer_freq": 1, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "rope_theta": 10000, "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32,
        "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}
    })
}

fn check(config: Value) -> Result<ModelConfig, String> {
    ModelConfig::check(&serde_json::from_value(config).unwrap())
}

/// The refusal of V3's config with one field replaced.
fn refusal(field: &str, value: Value) -> String {
    let mut config = v3();
    config[field] = value;
    check(config).unwrap_err()
}

#[test]
fn deepseek_v3_is_read_as_published() {
    let config = check(v3()).unwrap();
    assert_eq!((config.layers, config.first_dense, config.experts, config.shared_width), (61, 3, 256, 2048));
    assert_eq!([2, 3].map(|layer| config.is_mixture(layer)), [false, true]);
    let yarn = Yarn {
        factor: 40.0,
        original_context: 4096,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.0,
        mscale_all: 0.1 * 40_f64.ln() + 1.0,
        truncate: true,
    };
    assert_eq!(config.rope.yarn, Some(yarn));
}

#[test]
fn both_spellings_of_rope_mean_the_same() {
    let mut newer = v3();
    let mut rope = newer["rope_scaling"].take();
    rope["rope_type"] = rope["type"].take();
    rope["rope_theta"] = json!(10000);
    newer.as_object_mut().unwrap().retain(|key, _| key != "rope_scaling" && key != "rope_theta");
    newer["rope_parameters"] = rope;
    assert_eq!(check(newer).unwrap(), check(v3()).unwrap());
}

#[test]
fn what_is_not_understood_is_refused_by_name_with_what_is_allowed() {
    let table = [
        (
            refusal("architectures", json!(["LlamaForCausalLM"])),
            "architecture \"LlamaForCausalLM\" is not supported; supported: DeepseekV2ForCausalLM, DeepseekV3ForCausalLM",
        ),
        (
            refusal("quantization_config", json!({"quant_method": "gptq"})),
            "quantization \"gptq\" is not supported; supported: \"fp8\" in blocks of [128, 128]",
        ),
        (
            refusal("quantization_config", json!({"quant_method": "fp8"})),
            "fp8 without weight_block_size is not supported; supported: [128, 128]",
        ),
        (
            refusal("quantization_config", json!({"quant_method": "fp8", "weight_block_size": [1, 128]})),
            "weight_block_size [1,128] is not supported; supported: [128, 128]",
        ),
        (
            refusal(
                "quantization_config",
                json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e5m2"}),
            ),
            "quantization's fmt \"e5m2\" is not supported; supported: \"e4m3\"",
        ),
        (refusal("num_hidden_layers", json!(1_000_000)), "num_hidden_layers is 1000000; 1 to 1024 are allowed"),
        (refusal("hidden_size", Value::Null), "hidden_size is missing"),
        (
            refusal("scoring_func", json!("softmax")),
            "scoring_func \"softmax\" is not supported for this architecture; supported: sigmoid",
        ),
        (refusal("topk_group", json!(9)), "topk_group is 9; at most n_group = 8 is allowed"),
        (refusal("num_experts_per_tok", json!(65)), "num_experts_per_tok is 65; 1 to 64 are allowed"),
        (refusal("n_group", json!(7)), "n_group 7 does not divide 256 experts into groups of at least 2"),
        (refusal("hidden_act", json!("gelu")), "hidden_act \"gelu\" is not supported; supported: \"silu\""),
        (refusal("rope_theta", json!(0)), "rope_theta is 0; a finite number above 1 is allowed"),
        (
            refusal("rope_scaling", json!({"type": "llama3"})),
            "rope type \"llama3\" is not supported; supported: default, yarn",
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}

#[test]
fn v2_never_normalises() {
    let mut config = v3();
    config["architectures"] = json!(["DeepseekV2ForCausalLM"]);
    config["scoring_func"] = json!("softmax");
    config["topk_method"] = json!("group_limited_greedy");
    let refused = check(config.clone()).unwrap_err();
    assert_eq!(refused, "norm_topk_prob true is not supported for DeepseekV2ForCausalLM; supported: false");
    config["norm_topk_prob"] = json!(false);
    assert_eq!(check(config).unwrap().router.group_score, GroupScore::Max);
}

#[test]
fn fp8_in_tiles_of_128_is_read_as_published() {
    for scale_fmt in [Value::Null, json!("ue8m0")] {
        let mut config = v3();
        config["quantization_config"] = json!({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128], "scale_fmt": scale_fmt});
        assert_eq!(check(config), check(v3()));
    }
}
