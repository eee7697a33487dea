//! From files to named tensors: headers are checked whole, bytes are read by range and only when asked for.
//!
//! Never trusts a size, never maps a file, never knows what a tensor means.

pub mod checkpoint;
mod entry;
pub mod gguf;
mod paired;
pub mod safetensors;

use std::path::PathBuf;

pub use entry::Entry;

/// Why a model's files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The directory holds no weights in a format that is read.
    #[error("{0} holds neither model.safetensors nor model.safetensors.index.json nor a .gguf file")]
    NoWeights(PathBuf),
    /// The header or the index contradicts itself or the file.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the tensor.
        problem: String,
    },
    /// A tensor that the model needs is absent.
    #[error("tensor {0} is missing from the model's files")]
    MissingTensor(String),
    /// Another shape than the config asks for.
    #[error("tensor {name} has shape {found:?}; the config asks for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the config.
        expected: Vec<usize>,
    },
    /// An element type that no backend computes with yet.
    #[error(
        "tensor {name} is stored as {found}; supported: F32, BF16, F16, F8_E4M3, GGUF's Q8_0, Q4_0, Q5_0, Q5_1, IQ4_NL, Q4_K, Q5_K, Q6_K, MXFP4"
    )]
    Dtype {
        /// The tensor.
        name: String,
        /// In the file.
        found: String,
    },
    /// A weight that is NaN or infinite.
    #[error("tensor {name} holds a number that is not finite at element {element}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// First such element; of a block, its first.
        element: usize,
    },
}
