//! From a model's files to programs on a backend: config → recipe → [`loaded::LoadedModel`].
//!
//! Never schedules, never talks to peers.

pub mod config;
mod decoder;
mod families;
mod fields;
mod gguf;
pub mod load;
pub mod loaded;
mod parts;
mod raw;
pub mod recipe;
pub mod rope;
mod transpose;

use std::path::PathBuf;

use shoal_proto::placement::PlacementError;

use crate::backend::BackendError;
use crate::weights::WeightsError;

/// Why a model cannot be served from its directory.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// `config.json` is not what its architecture needs.
    #[error("{path}: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Which field, what it is, what is allowed.
        problem: String,
    },
    /// The group's placement is not for this model.
    #[error("the placement is for {placed} {what}s, the model has {actual}")]
    Placement {
        /// `expert` or `layer`.
        what: &'static str,
        /// By the placement.
        placed: u32,
        /// By the config.
        actual: u32,
    },
    /// The group's placement cannot be honoured.
    #[error(transparent)]
    Undecidable(#[from] PlacementError),
    /// More context than the model allows.
    #[error("{wanted} context tokens are more than the model's {allowed}")]
    Context {
        /// By the flag.
        wanted: u32,
        /// By the config.
        allowed: u32,
    },
    /// A KV cache that one request can outgrow.
    #[error("a KV cache of {tokens} tokens is less than the context of {context}; allowed: at least {context}")]
    Cache {
        /// By the flag.
        tokens: u32,
        /// Of one request.
        context: u32,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The backend refuses.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

#[cfg(test)]
mod parity_tests;
