//! The dimensions of a `config.json`, and the sizes that follow from them.
//!
//! Counts what the definition of each architecture says; tensors that a file really holds are the business of
//! [`super::folder`].

use serde::Deserialize;

use super::family::Family;
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
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
    /// Dense layers of Qwen3-MoE, by index.
    #[serde(default)]
    pub mlp_only_layers: Option<Vec<u64>>,
    /// Of Qwen3-MoE's layers only each n-th has experts.
    #[serde(default)]
    pub decoder_sparse_step: Option<u64>,
    #[serde(default, alias = "num_experts", alias = "num_local_experts")]
    pub n_routed_experts: u64,
    #[serde(default)]
    pub n_shared_experts: Option<u64>,
    pub num_experts_per_tok: u64,
    /// Absent where `intermediate_size` is the width of an expert.
    #[serde(default)]
    pub moe_intermediate_size: u64,
    pub max_position_embeddings: u64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

/// Bytes of a matrix of `out` × `inner` elements in some format.
pub(super) type Matrix = fn(u64, u64) -> u64;

/// How a model of some format stores what.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    /// Matrices of attention and of dense and shared FFNs.
    pub(super) dense: Matrix,
    /// Matrices of routed experts.
    pub(super) expert: Matrix,
    /// Bytes of one number of everything else: embedding, head, norms, biases, router.
    pub(super) wide: u64,
}

impl Stored {
    fn of(format: WeightFormat) -> Self {
        let half: Matrix = |out, inner| out * inner * 2;
        match format {
            WeightFormat::F32 => {
                let full: Matrix = |out, inner| out * inner * 4;
                Self { dense: full, expert: full, wide: 4 }
            }
            WeightFormat::F16 | WeightFormat::BF16 => Self { dense: half, expert: half, wide: 2 },
            // One F32 scale for each block of 128 × 128.
            WeightFormat::FP8 => {
                let blocks: Matrix = |out, inner| out * inner + out.div_ceil(128) * inner.div_ceil(128) * 4;
                Self { dense: blocks, expert: blocks, wide: 2 }
            }
            // Four bits a number and one byte of scale for each 32 of a row; only routed experts are stored so.
            WeightFormat::MXFP4 => {
                let blocks: Matrix = |out, inner| out * (inner.div_ceil(32) * 17);
                Self { dense: half, expert: blocks, wide: 2 }
            }
        }
    }
}

impl Dims {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The sizes of a model stored in `format`; embedding, head, norms and router of FP8 models are BF16, and so is
    /// everything but the routed experts of MXFP4 models.
    ///
    /// # Errors
    /// [`ConfigError`] when the architecture is unknown or a size is impossible.
    pub fn shape(&self, format: WeightFormat) -> Result<ModelShape, ConfigError> {
        let name = self.architectures.first().map(String::as_str).unwrap_or_default();
        let family = Family::of(name).ok_or_else(|| ConfigError::Architecture(name.to_owned()))?;
        self.check()?;
        let stored = Stored::of(format);
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        let outside = (embeddings * self.vocab_size + 1) * self.hidden_size * stored.wide;
        let layer = family.attention(self, stored) + 2 * self.hidden_size * stored.wide;
        let shared = self.shared_width();
        let moe_layer = family.router(self, stored) + if shared > 0 { self.mlp(shared, stored.dense) } else { 0 };
        let dense_layers = self.num_hidden_layers - self.moe_layers();
        let dense_ffn = dense_layers * self.mlp(self.intermediate_size, stored.dense);
        let dense = outside + self.num_hidden_layers * layer + dense_ffn + self.moe_layers() * moe_layer;
        Ok(ModelShape {
            architecture: name.to_owned(),
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
            expert_bytes: large("expert", family.expert(self, stored))?,
        })
    }

    /// Layers with routed experts: all after the dense ones that come first, are listed, or lie between two steps.
    #[must_use]
    pub fn moe_layers(&self) -> u64 {
        let step = self.decoder_sparse_step.unwrap_or(1).max(1);
        let listed = self.mlp_only_layers.as_deref().unwrap_or_default();
        let is_mixture = |layer: &u64| (layer + 1).is_multiple_of(step) && !listed.contains(layer);
        (self.first_k_dense_replace..self.num_hidden_layers).filter(is_mixture).count() as u64
    }

    /// Gate, up and down of an FFN of `width`.
    pub(super) fn mlp(&self, width: u64, matrix: Matrix) -> u64 {
        2 * matrix(width, self.hidden_size) + matrix(self.hidden_size, width)
    }

    /// Columns of a routed expert's inner layer.
    pub(super) fn expert_width(&self) -> u64 {
        if self.moe_intermediate_size > 0 { self.moe_intermediate_size } else { self.intermediate_size }
    }

    /// Columns of all shared experts together.
    fn shared_width(&self) -> u64 {
        self.n_shared_experts.unwrap_or(0) * self.expert_width()
    }

    fn is_latent(&self) -> bool {
        self.kv_lora_rank > 0
    }

    /// No dimension above 2^17 and no count above 2^10: products of three stay below 2^63.
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

    pub(super) fn key_heads(&self) -> u64 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(super) fn head_size(&self) -> u64 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// MLA caches one latent and one rope key; others cache keys and values of every key head.
    fn kv_elements(&self) -> u64 {
        if self.is_latent() {
            self.kv_lora_rank + self.qk_rope_head_dim
        } else {
            2 * self.key_heads() * self.head_size()
        }
    }

    /// What a worker declares for each row beside the residual's width: queries (absorbed ones too) and attention
    /// output, keys and values, gate and up of the dense and of the shared FFN, the middle of every chosen expert.
    fn activation_elements(&self) -> u64 {
        let heads = self.num_attention_heads;
        let attention = if self.is_latent() {
            let query = self.qk_nope_head_dim + self.qk_rope_head_dim;
            self.q_lora_rank.unwrap_or(0) + heads * (query + 2 * self.kv_lora_rank + self.v_head_dim)
        } else {
            2 * heads * self.head_size()
        };
        let dense = if self.moe_layers() < self.num_hidden_layers { self.intermediate_size } else { 0 };
        let routed = self.num_experts_per_tok * self.expert_width();
        attention + self.kv_elements() + 2 * (dense + self.shared_width()) + routed
    }
}

fn small(name: &'static str, size: u64) -> Result<i32, ConfigError> {
    i32::try_from(size).ok().filter(|size| *size > 0).ok_or(ConfigError::Size(name))
}

fn large(name: &'static str, size: u64) -> Result<i64, ConfigError> {
    i64::try_from(size).ok().filter(|size| *size > 0).ok_or(ConfigError::Size(name))
}
