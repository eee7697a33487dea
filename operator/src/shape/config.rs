//! The dimensions of a `config.json`, and the sizes that follow from them.
//!
//! Counts what the definition of each architecture says; tensors that a file really holds are the business of
//! [`super::folder`].

use serde::Deserialize;

use crate::crd::{ModelShape, WeightFormat};

/// Why a `config.json` gives no sizes.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, a missing field or a field of another type.
    #[error("config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// An architecture whose sizes we do not know.
    #[error("config.json: architecture {0} is not supported; supported: {known}", known = super::ARCHITECTURES.join(", "))]
    Architecture(String),
    /// A dimension that is zero or too large to be true.
    #[error("config.json: the dimensions give a size that is 0 or too large: {0}")]
    Size(&'static str),
}

/// The dimensions that decide sizes; names as in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Dims {
    pub architectures: Vec<String>,
    pub vocab_size: u64,
    pub hidden_size: u64,
    pub num_hidden_layers: u64,
    pub num_attention_heads: u64,
    #[serde(default)]
    pub num_key_value_heads: Option<u64>,
    #[serde(default)]
    pub head_dim: Option<u64>,
    #[serde(default)]
    pub q_lora_rank: Option<u64>,
    #[serde(default)]
    pub kv_lora_rank: u64,
    #[serde(default)]
    pub qk_nope_head_dim: u64,
    #[serde(default)]
    pub qk_rope_head_dim: u64,
    #[serde(default)]
    pub v_head_dim: u64,
    #[serde(default)]
    pub intermediate_size: u64,
    #[serde(default)]
    pub first_k_dense_replace: u64,
    #[serde(default, alias = "num_experts")]
    pub n_routed_experts: u64,
    #[serde(default)]
    pub n_shared_experts: Option<u64>,
    pub num_experts_per_tok: u64,
    pub moe_intermediate_size: u64,
    pub max_position_embeddings: u64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

/// Bytes of a matrix of `out` × `inner` elements in some format.
type Matrix = fn(u64, u64) -> u64;

impl Dims {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The sizes of a model stored in `format`; embedding, head, norms and router of FP8 models are BF16.
    ///
    /// # Errors
    /// [`ConfigError`] when the architecture is unknown or a size is impossible.
    pub fn shape(&self, format: WeightFormat) -> Result<ModelShape, ConfigError> {
        let architecture = self.architecture()?;
        self.check()?;
        let (matrix, wide): (Matrix, u64) = match format {
            WeightFormat::F32 => (|out, inner| out * inner * 4, 4),
            WeightFormat::F16 | WeightFormat::BF16 => (|out, inner| out * inner * 2, 2),
            WeightFormat::FP8 => (|out, inner| out * inner + out.div_ceil(128) * inner.div_ceil(128) * 4, 2),
        };
        let mlp = |width| 2 * matrix(width, self.hidden_size) + matrix(self.hidden_size, width);
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        let outside = (embeddings * self.vocab_size + 1) * self.hidden_size * wide;
        let attention = if self.is_deepseek() { self.latent(matrix, wide) } else { self.grouped(matrix, wide) };
        let layer = attention + 2 * self.hidden_size * wide;
        let bias = if architecture == "DeepseekV3ForCausalLM" { self.n_routed_experts * 4 } else { 0 };
        let router = self.n_routed_experts * self.hidden_size * wide + bias;
        let shared = self.n_shared_experts.unwrap_or(0) * self.moe_intermediate_size;
        let moe_layer = router + if shared > 0 { mlp(shared) } else { 0 };
        let dense_ffn = self.first_k_dense_replace * mlp(self.intermediate_size);
        let dense = outside + self.num_hidden_layers * layer + dense_ffn + self.moe_layers() * moe_layer;
        Ok(ModelShape {
            architecture: architecture.to_owned(),
            weights: format,
            layers: small("num_hidden_layers", self.num_hidden_layers)?,
            moe_layers: small("first_k_dense_replace", self.moe_layers())?,
            hidden_size: small("hidden_size", self.hidden_size)?,
            vocab_size: small("vocab_size", self.vocab_size)?,
            experts: small("n_routed_experts", self.n_routed_experts)?,
            experts_per_token: small("num_experts_per_tok", self.num_experts_per_tok)?,
            max_context_tokens: small("max_position_embeddings", self.max_position_embeddings)?,
            kv_elements: small("kv_lora_rank", self.kv_elements())?,
            activation_elements: small("num_attention_heads", self.activation_elements())?,
            dense_bytes: large("dense part", dense)?,
            expert_bytes: large("expert", mlp(self.moe_intermediate_size))?,
        })
    }

    /// Layers with routed experts: all after the dense ones.
    #[must_use]
    pub fn moe_layers(&self) -> u64 {
        self.num_hidden_layers.saturating_sub(self.first_k_dense_replace)
    }

    fn architecture(&self) -> Result<&str, ConfigError> {
        let name = self.architectures.first().map(String::as_str).unwrap_or_default();
        if super::ARCHITECTURES.contains(&name) { Ok(name) } else { Err(ConfigError::Architecture(name.to_owned())) }
    }

    fn is_deepseek(&self) -> bool {
        self.kv_lora_rank > 0
    }

    /// No factor above 2^24 and no dimension above 2^20: products of three stay below 2^63.
    fn check(&self) -> Result<(), ConfigError> {
        let factors = [self.hidden_size, self.num_attention_heads, self.intermediate_size, self.moe_intermediate_size];
        let ranks = [self.kv_lora_rank, self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim];
        let others = [self.q_lora_rank.unwrap_or(0), self.head_dim.unwrap_or(0), self.n_routed_experts];
        let counts =
            [self.num_hidden_layers, self.n_shared_experts.unwrap_or(0), self.num_key_value_heads.unwrap_or(0)];
        let all = factors.iter().chain(&ranks).chain(&others);
        if all.clone().any(|size| *size > 1 << 17) || counts.iter().any(|count| *count > 1024) {
            return Err(ConfigError::Size("a dimension is above 131072, or a count above 1024"));
        }
        if self.vocab_size > 1 << 24 {
            return Err(ConfigError::Size("vocab_size is above 2^24"));
        }
        Ok(())
    }

    /// Multi-head latent attention with its inner norms.
    fn latent(&self, matrix: Matrix, wide: u64) -> u64 {
        let heads = self.num_attention_heads;
        let q_out = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim);
        let query = match self.q_lora_rank {
            Some(rank) => matrix(rank, self.hidden_size) + rank * wide + matrix(q_out, rank),
            None => matrix(q_out, self.hidden_size),
        };
        let down = matrix(self.kv_lora_rank + self.qk_rope_head_dim, self.hidden_size) + self.kv_lora_rank * wide;
        let up = matrix(heads * (self.qk_nope_head_dim + self.v_head_dim), self.kv_lora_rank);
        query + down + up + matrix(self.hidden_size, heads * self.v_head_dim)
    }

    /// Grouped-query attention with a norm per head on q and k.
    fn grouped(&self, matrix: Matrix, wide: u64) -> u64 {
        let query = matrix(self.num_attention_heads * self.head_size(), self.hidden_size);
        let key = matrix(self.key_heads() * self.head_size(), self.hidden_size);
        let output = matrix(self.hidden_size, self.num_attention_heads * self.head_size());
        query + 2 * key + output + 2 * self.head_size() * wide
    }

    fn key_heads(&self) -> u64 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_size(&self) -> u64 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// MLA caches one latent and one rope key; others cache keys and values of every key head.
    fn kv_elements(&self) -> u64 {
        if self.is_deepseek() {
            self.kv_lora_rank + self.qk_rope_head_dim
        } else {
            2 * self.key_heads() * self.head_size()
        }
    }

    /// Per row: queries (absorbed ones too), attention output, one 64-key tile of scores, and the widest FFN's halves.
    fn activation_elements(&self) -> u64 {
        let per_head = if self.is_deepseek() {
            self.qk_nope_head_dim + 2 * self.qk_rope_head_dim + 2 * self.kv_lora_rank + self.v_head_dim
        } else {
            2 * self.head_size()
        };
        let shared = self.n_shared_experts.unwrap_or(0) * self.moe_intermediate_size;
        let routed = self.num_experts_per_tok * self.moe_intermediate_size;
        let widest = self.intermediate_size.max(shared + routed);
        self.num_attention_heads * (per_head + 64) + self.kv_elements() + 2 * widest
    }
}

fn small(name: &'static str, size: u64) -> Result<i32, ConfigError> {
    i32::try_from(size).ok().filter(|size| *size > 0).ok_or(ConfigError::Size(name))
}

fn large(name: &'static str, size: u64) -> Result<i64, ConfigError> {
    i64::try_from(size).ok().filter(|size| *size > 0).ok_or(ConfigError::Size(name))
}
