use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::*;
use crate::model::rope::Yarn;
use crate::ops::{GroupScore, Pairing, Scoring};

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

/// Qwen3-30B-A3B's published config.
fn qwen3() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
        "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1000000.0,
        "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936
    })
}

/// Mixtral-8x7B's.
fn mixtral() -> Value {
    json!({
        "architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
        "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32000
    })
}

/// OLMoE-1B-7B's.
fn olmoe() -> Value {
    json!({
        "architectures": ["OlmoeForCausalLM"], "attention_bias": false, "clip_qkv": null, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096, "norm_topk_prob": false,
        "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
        "num_key_value_heads": 16, "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "vocab_size": 50304
    })
}

/// gpt-oss-20b's, without its quantization.
fn gpt_oss() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"], "attention_bias": true, "experts_per_token": 4, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 4,
        "num_key_value_heads": 8, "num_local_experts": 32, "rms_norm_eps": 1e-5, "rope_scaling": {"beta_fast": 32.0,
        "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn",
        "truncate": false}, "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0,
        "tie_word_embeddings": false, "vocab_size": 201088
    })
}

fn with(mut config: Value, field: &str, value: Value) -> Value {
    config[field] = value;
    config
}

/// The refusal of V3's config with one field replaced.
fn refusal(field: &str, value: Value) -> String {
    check(with(v3(), field, value)).unwrap_err()
}

#[test]
fn deepseek_v3_is_read_as_published() {
    let decoder = check(v3()).unwrap().decoder;
    assert_eq!((decoder.layers.len(), decoder.mixture.experts, decoder.mixture.shared_width), (61, 256, 2048));
    assert_eq!([2, 3].map(|layer| decoder.layers[layer].mixture), [false, true]);
    let yarn = Yarn {
        factor: 40.0,
        original_context: 4096,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 1.0,
        mscale_all: 0.1 * 40_f64.ln() + 1.0,
        truncate: true,
    };
    assert_eq!(decoder.rope.yarn, Some(yarn));
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
            "architecture LlamaForCausalLM is not supported; supported: DeepseekV2ForCausalLM, DeepseekV3ForCausalLM, \
             Qwen3MoeForCausalLM, MixtralForCausalLM, OlmoeForCausalLM, GptOssForCausalLM",
        ),
        (
            refusal("quantization_config", json!({"quant_method": "gptq"})),
            "quantization \"gptq\" is not supported; supported: \"fp8\" in blocks of [128, 128], and \"mxfp4\" of \
             GptOssForCausalLM",
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
    assert_eq!(check(config).unwrap().decoder.mixture.router.group_score, GroupScore::Max);
}

fn gqa(decoder: &Decoder) -> GqaDims {
    let Attention::Gqa(dims) = decoder.attention else { panic!("{:?} is not grouped-query", decoder.attention) };
    dims
}

#[test]
fn qwen3_moe_is_read_as_published() {
    let decoder = check(qwen3()).unwrap().decoder;
    let (bias, qk_norm, clip, sinks) = (false, QkNorm::PerHead, None, false);
    assert_eq!(gqa(&decoder), GqaDims { heads: 32, kv_heads: 4, head_dim: 128, bias, qk_norm, clip, sinks });
    assert_eq!(decoder.layers, vec![LayerRule { mixture: true, window: None }; 48]);
    assert_eq!((decoder.rope.theta, decoder.rope.pairing, decoder.norm_eps), (1e6, Pairing::HalfSplit, 1e-6));
    let MixtureRule { experts, width, shared_width, router, .. } = decoder.mixture;
    assert_eq!((experts, width, shared_width, router.top_k, router.normalise), (128, 768, 0, 8, true));
}

#[test]
fn qwen3_moe_has_dense_layers_by_list_and_by_step_and_does_not_normalise_by_default() {
    let mut config = with(with(qwen3(), "num_hidden_layers", json!(6)), "decoder_sparse_step", json!(2));
    config["mlp_only_layers"] = json!([3]);
    config.as_object_mut().unwrap().remove("norm_topk_prob");
    let decoder = check(config).unwrap().decoder;
    let mixtures: Vec<bool> = decoder.layers.iter().map(|layer| layer.mixture).collect();
    assert_eq!(mixtures, [false, true, false, false, false, true]);
    assert!(!decoder.mixture.router.normalise);
}

#[test]
fn mixtral_is_read_as_published_and_keeps_its_window() {
    let decoder = check(mixtral()).unwrap().decoder;
    assert_eq!((gqa(&decoder).head_dim, gqa(&decoder).qk_norm, decoder.layers[0].window), (128, QkNorm::None, None));
    assert_eq!((decoder.mixture.width, decoder.mixture.router.normalise), (14336, true));
    let windowed = check(with(mixtral(), "sliding_window", json!(4096))).unwrap().decoder;
    assert!(windowed.layers.iter().all(|layer| layer.window == Some(4096)));
}

#[test]
fn olmoe_is_read_as_published_and_clips_if_asked() {
    let decoder = check(olmoe()).unwrap().decoder;
    assert_eq!((gqa(&decoder).qk_norm, gqa(&decoder).clip, decoder.norm_eps), (QkNorm::Whole, None, 1e-5));
    let clipped = check(with(olmoe(), "clip_qkv", json!(8.0))).unwrap().decoder;
    assert_eq!(gqa(&clipped).clip, Some(8.0));
}

#[test]
fn gpt_oss_is_read_as_published() {
    let decoder = check(gpt_oss()).unwrap().decoder;
    let (bias, qk_norm, clip, sinks) = (true, QkNorm::None, None, true);
    assert_eq!(gqa(&decoder), GqaDims { heads: 64, kv_heads: 8, head_dim: 64, bias, qk_norm, clip, sinks });
    let windows: Vec<_> = decoder.layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [Some(128), None, Some(128), None]);
    let yarn = decoder.rope.yarn.clone().unwrap();
    assert_eq!((yarn.factor, yarn.truncate, (yarn.attention_factor * 1e4).round()), (32.0, false, 13466.0));
    assert_eq!(decoder.mixture.activation, Activation::Clamped { alpha: 1.702, limit: 7.0 });
    assert_eq!(decoder.mixture.router.scoring, Scoring::SoftmaxOfChosen);
    assert_eq!(check(with(gpt_oss(), "layer_types", Value::Null)).unwrap(), check(gpt_oss()).unwrap());
}

#[test]
fn what_a_family_does_not_have_is_refused_by_name_with_what_is_allowed() {
    let table = [
        (with(qwen3(), "mlp_only_layers", json!([48])), "mlp_only_layers holds 48; 0 to 47 are allowed"),
        (
            with(qwen3(), "decoder_sparse_step", json!(49)),
            "mlp_only_layers and decoder_sparse_step 49 leave no layer with experts; at least one is needed",
        ),
        (with(qwen3(), "decoder_sparse_step", json!(0)), "decoder_sparse_step is 0; 1 to 1024 are allowed"),
        (with(qwen3(), "use_sliding_window", json!(true)), "sliding_window is missing"),
        (
            with(qwen3(), "num_key_value_heads", json!(5)),
            "num_key_value_heads is 5; a divisor of the 32 heads is allowed",
        ),
        (with(qwen3(), "head_dim", json!(127)), "head_dim is 127; an even number is allowed"),
        (
            with(qwen3(), "num_local_experts", json!(64)),
            "num_experts is 128, num_local_experts is 64; equal values are allowed",
        ),
        (
            with(qwen3(), "partial_rotary_factor", json!(0.5)),
            "partial_rotary_factor 0.5 is not supported; supported: 1",
        ),
        (with(mixtral(), "num_experts_per_tok", json!(9)), "num_experts_per_tok is 9; 8 experts can be chosen"),
        (with(mixtral(), "sliding_window", json!(0)), "sliding_window is 0; 1 to 16777216 are allowed"),
        (with(mixtral(), "num_local_experts", Value::Null), "num_experts is missing"),
        (
            with(mixtral(), "attention_bias", json!(true)),
            "attention_bias true is not supported for this architecture; supported: false",
        ),
        (
            with(mixtral(), "hidden_size", json!(4097)),
            "head_dim is missing, and 32 heads do not divide hidden_size 4097",
        ),
        (with(olmoe(), "clip_qkv", json!(-1.0)), "clip_qkv is -1; above 0 and below 1e6 is allowed"),
        (
            with(olmoe(), "head_dim", json!(64)),
            "head_dim is 64; hidden_size / num_attention_heads = 2048 / 16 is allowed",
        ),
        (
            with(olmoe(), "sliding_window", json!(64)),
            "sliding_window 64 is not supported for this architecture; supported: null",
        ),
        (
            with(gpt_oss(), "layer_types", json!(["full_attention"])),
            "layer_types has 1 entries; num_hidden_layers = 4 are allowed",
        ),
        (
            with(gpt_oss(), "layer_types", json!(["chunked_attention", "", "", ""])),
            "layer type \"chunked_attention\" is not supported; supported: \"full_attention\", \"sliding_attention\"",
        ),
        (with(gpt_oss(), "swiglu_limit", json!(0.0)), "swiglu_limit is 0; above 0 and below 1e6 is allowed"),
        (
            with(gpt_oss(), "quantization_config", json!({"quant_method": "awq"})),
            "quantization \"awq\" is not supported; supported: \"fp8\" in blocks of [128, 128], and \"mxfp4\" of \
             GptOssForCausalLM",
        ),
    ];
    for (config, expected) in table {
        assert_eq!(check(config).unwrap_err(), expected);
    }
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
