//! GGUF metadata as the `config.json` that the model had before it was converted, so that one check reads both.
//!
//! Never guesses: what a converter left out has the meaning that llama.cpp gives to its absence, or is refused.

use serde_json::{Map, Value, json};

use crate::weights::gguf::{Gguf, Metadata};

/// The config of a GGUF model.
///
/// # Errors
/// The key at fault.
pub(super) fn config(model: &Gguf) -> Result<Value, String> {
    let architecture = model.metadata.text("general.architecture")?.unwrap_or_default();
    let keys = Keys { model, metadata: &model.metadata, architecture };
    let mut fields = keys.common()?;
    fields.extend(match architecture {
        "deepseek2" => keys.deepseek()?,
        "qwen3moe" => keys.qwen3()?,
        "olmoe" => keys.olmoe()?,
        "llama" => keys.mixtral()?,
        "gpt-oss" => keys.gpt_oss()?,
        other => return Err(format!("architecture {other:?} is not supported")),
    });
    fields.retain(|_, value| !value.is_null());
    Ok(Value::Object(fields))
}

struct Keys<'a> {
    model: &'a Gguf,
    metadata: &'a Metadata,
    architecture: &'a str,
}

type Fields = Map<String, Value>;

impl Keys<'_> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.architecture)
    }

    fn whole(&self, part: &str) -> Result<Option<u64>, String> {
        self.metadata.whole(&self.key(part))
    }

    /// The shortest decimal that is the F32 in the file: what the config said before it was rounded to F32.
    fn float(&self, part: &str) -> Result<Option<f64>, String> {
        let float = self.metadata.float(&self.key(part))?;
        Ok(float.map(|float| (float as f32).to_string().parse().unwrap_or(float)))
    }

    fn required(&self, part: &str) -> Result<u64, String> {
        self.whole(part)?.ok_or_else(|| format!("key {} is missing", self.key(part)))
    }

    fn common(&self) -> Result<Fields, String> {
        let layers = self.required("block_count")?;
        let extra = self.whole("nextn_predict_layers")?.unwrap_or(0);
        let fields = json!({
            "vocab_size": self.model.shape("token_embd.weight").and_then(|shape| shape.first()),
            "hidden_size": self.required("embedding_length")?,
            "num_hidden_layers": layers.checked_sub(extra),
            "num_attention_heads": self.required("attention.head_count")?,
            "num_experts_per_tok": self.required("expert_used_count")?,
            "max_position_embeddings": self.required("context_length")?,
            "rms_norm_eps": self.float("attention.layer_norm_rms_epsilon")?,
            "intermediate_size": self.whole("feed_forward_length")?,
            "tie_word_embeddings": self.model.shape("output.weight").is_none(),
            "rope_theta": self.float("rope.freq_base")?,
            "rope_scaling": self.rope_scaling()?,
        });
        let Value::Object(fields) = fields else { return Ok(Fields::new()) };
        Ok(fields)
    }

    /// `null` for plain rope.
    fn rope_scaling(&self) -> Result<Value, String> {
        let key = self.key("rope.scaling.type");
        match self.metadata.text(&key)? {
            None | Some("none") => Ok(Value::Null),
            Some("yarn") => {
                // The file has 0.1 · mscale_all_dim; converters give cos and sin the same factor twice, so that they cancel.
                let all_dim = self.float("rope.scaling.yarn_log_multiplier")?.map(|tenth| (tenth * 1e7).round() / 1e6);
                let mut rope = json!({
                    "rope_type": "yarn",
                    "factor": self.float("rope.scaling.factor")?,
                    "original_max_position_embeddings": self.whole("rope.scaling.original_context_length")?,
                    "beta_fast": self.float("rope.scaling.yarn_beta_fast")?,
                    "beta_slow": self.float("rope.scaling.yarn_beta_slow")?,
                });
                if let Some(all_dim) = all_dim {
                    (rope["mscale"], rope["mscale_all_dim"]) = (json!(all_dim), json!(all_dim));
                }
                Ok(rope)
            }
            Some(other) => Err(format!("key {key} is {other:?}; supported: none, yarn")),
        }
    }

    fn deepseek(&self) -> Result<Fields, String> {
        let (gating, experts) = (self.whole("expert_gating_func")?, self.required("expert_count")?);
        let groups = self.whole("expert_group_count")?.filter(|&groups| groups > 0);
        let third = match gating {
            // Files of V2 and V2.5 are older than the key.
            None | Some(0 | 1) => false,
            Some(2) => true,
            Some(other) => {
                return Err(format!("key deepseek2.expert_gating_func is {other}; supported: 1 softmax, 2 sigmoid"));
            }
        };
        if third && groups.is_none() && experts == 256 {
            let key = self.key("expert_group_count");
            return Err(format!(
                "key {key} is missing, and a model of 256 experts chooses among groups; convert it anew"
            ));
        }
        let grouped = groups.is_some_and(|groups| groups > 1);
        // Files made for latent attention say the widths of the cache; the heads' own stand beside them.
        let head = |part: &str| {
            Ok::<_, String>(
                self.whole(&format!("attention.{part}_length_mla"))?
                    .or(self.whole(&format!("attention.{part}_length"))?),
            )
        };
        let (key, value) = (head("key")?, head("value")?);
        let rope = self.required("rope.dimension_count")?;
        let nope = key
            .and_then(|key| key.checked_sub(rope))
            .ok_or("key deepseek2.attention.key_length is missing or less than the rope's")?;
        let scale = self.float("expert_weights_scale")?.filter(|&scale| scale != 0.0);
        let scoring = if third {
            ["sigmoid", "noaux_tc"]
        } else {
            ["softmax", if grouped { "group_limited_greedy" } else { "greedy" }]
        };
        Ok(object(json!({
            "architectures": [if third { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" }],
            "moe_intermediate_size": self.required("expert_feed_forward_length")?,
            "n_shared_experts": self.whole("expert_shared_count")?,
            "n_routed_experts": experts,
            "routed_scaling_factor": scale,
            "kv_lora_rank": self.required("attention.kv_lora_rank")?,
            "q_lora_rank": self.whole("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            "qk_rope_head_dim": rope,
            "qk_nope_head_dim": nope,
            "v_head_dim": value,
            "n_group": groups.unwrap_or(1),
            "topk_group": self.whole("expert_group_used_count")?.filter(|_| groups.is_some()).unwrap_or(1),
            "topk_method": scoring[1],
            "scoring_func": scoring[0],
            "norm_topk_prob": self.metadata.truth(&self.key("expert_weights_norm"))?.unwrap_or(false),
            "first_k_dense_replace": self.whole("leading_dense_block_count")?.unwrap_or(0),
        })))
    }

    fn grouped_query(&self) -> Result<Fields, String> {
        Ok(object(json!({
            "num_key_value_heads": self.whole("attention.head_count_kv")?,
            "head_dim": self.whole("attention.key_length")?,
            "sliding_window": self.whole("attention.sliding_window")?.filter(|&window| window > 0),
        })))
    }

    fn qwen3(&self) -> Result<Fields, String> {
        let mut fields = self.grouped_query()?;
        fields.extend(object(json!({
            "architectures": ["Qwen3MoeForCausalLM"],
            "num_experts": self.required("expert_count")?,
            "moe_intermediate_size": self.required("expert_feed_forward_length")?,
            // The file has no key for it; llama.cpp normalises always.
            "norm_topk_prob": true,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        })));
        Ok(fields)
    }

    fn olmoe(&self) -> Result<Fields, String> {
        let mut fields = self.grouped_query()?;
        let width = self.whole("expert_feed_forward_length")?.or(self.whole("feed_forward_length")?);
        fields.extend(object(json!({
            "architectures": ["OlmoeForCausalLM"],
            "num_experts": self.required("expert_count")?,
            "intermediate_size": width,
            "norm_topk_prob": false,
            "clip_qkv": self.float("attention.clamp_kqv")?.filter(|&clip| clip > 0.0),
        })));
        Ok(fields)
    }

    /// GGUF calls every llama a llama; only one with experts is Mixtral.
    fn mixtral(&self) -> Result<Fields, String> {
        if self.whole("expert_count")?.unwrap_or(0) == 0 {
            return Err("architecture \"llama\" without experts is not supported; supported: Mixtral".to_owned());
        }
        let mut fields = self.grouped_query()?;
        fields.extend(object(json!({
            "architectures": ["MixtralForCausalLM"],
            "num_local_experts": self.required("expert_count")?,
            // Converters permute the rows of q and k so.
            "rope_interleave": true,
        })));
        Ok(fields)
    }

    fn gpt_oss(&self) -> Result<Fields, String> {
        let mut fields = self.grouped_query()?;
        if let Some(rope) = self.rope_scaling()?.as_object() {
            let mut rope = rope.clone();
            rope.insert("truncate".to_owned(), json!(false));
            fields.insert("rope_scaling".to_owned(), Value::Object(rope));
        }
        fields.extend(object(json!({
            "architectures": ["GptOssForCausalLM"],
            "num_local_experts": self.required("expert_count")?,
            "intermediate_size": self.required("expert_feed_forward_length")?,
        })));
        Ok(fields)
    }
}

fn object(value: Value) -> Fields {
    if let Value::Object(fields) = value { fields } else { Fields::new() }
}
