//! The sizes of the model in a folder: `config.json`, and the exact bytes of the tensor table.
//!
//! Reads headers only, never a weight. Never trusts a size that a file states.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{ConfigError, Dims};
use crate::crd::{ModelShape, WeightFormat};

/// The longest header of one file.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Element types of routed experts.
const FORMATS: &str = "F32, F16, BF16, F8_E4M3, U8 (MXFP4)";

/// Why a folder gives no sizes.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `config.json` gives no sizes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No weights.
    #[error("{0} holds no *.safetensors")]
    NoWeights(PathBuf),
    /// A header that lies or is no JSON.
    #[error("{path}: {problem}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Tensors by what they belong to.
#[derive(Debug, Default)]
struct Tally {
    dense: u64,
    experts: BTreeMap<(u64, u64), u64>,
    formats: BTreeMap<String, u64>,
}

/// Reads the sizes of the model in `folder`.
///
/// # Errors
/// [`FolderError`], naming the file.
pub fn shape(folder: &Path) -> Result<ModelShape, FolderError> {
    let config = read(&folder.join("config.json"))?;
    let dims = Dims::parse(&config)?;
    let mut tally = Tally::default();
    for file in weights(folder)? {
        count(&file, &dims, &mut tally)?;
    }
    let header = |problem: &str| FolderError::Header { path: folder.to_owned(), problem: problem.to_owned() };
    let most = tally.formats.iter().max_by_key(|(_, bytes)| **bytes).map(|(name, _)| name.as_str());
    let format = match most {
        Some("F32") => WeightFormat::F32,
        Some("F16") => WeightFormat::F16,
        Some("BF16") => WeightFormat::BF16,
        Some("F8_E4M3") => WeightFormat::FP8,
        // Blocks of two numbers a byte, beside one byte of scale for each 32.
        Some("U8") => WeightFormat::MXFP4,
        Some(other) => {
            return Err(header(&format!("experts in {other} are not supported; supported: {FORMATS}")));
        }
        None => return Err(header("holds no routed expert")),
    };
    let expert = tally.experts.values().max().copied().unwrap_or(0);
    let signed = |bytes: u64| i64::try_from(bytes).map_err(|_| header("more than 2^63 bytes"));
    Ok(ModelShape { dense_bytes: signed(tally.dense)?, expert_bytes: signed(expert)?, ..dims.shape(format)? })
}

fn read(path: &Path) -> Result<Vec<u8>, FolderError> {
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_HEADER_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn weights(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |source| FolderError::Read { path: folder.to_owned(), source };
    let entries = folder.read_dir().map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    if files.is_empty() { Err(FolderError::NoWeights(folder.to_owned())) } else { Ok(files) }
}

fn count(path: &Path, dims: &Dims, tally: &mut Tally) -> Result<(), FolderError> {
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    let wrong = |problem: String| FolderError::Header { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size.saturating_sub(8) {
        return Err(wrong(format!("a header of {length} bytes in a file of {size}; at most {MAX_HEADER_BYTES}")));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(failed)?;
    let table: BTreeMap<String, Value> = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
    for (name, entry) in table.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |index: usize| entry["data_offsets"][index].as_u64();
        let (Some(begin), Some(end)) = (offset(0), offset(1)) else {
            return Err(wrong(format!("{name} has no data_offsets")));
        };
        let bytes = end.checked_sub(begin).filter(|_| end <= size - 8 - length);
        let bytes = bytes.ok_or_else(|| wrong(format!("{name} lies outside the file")))?;
        tally.add(name, entry["dtype"].as_str().unwrap_or_default(), bytes, dims);
    }
    Ok(())
}

impl Tally {
    /// Tensors of layers beyond the model's own (multi-token prediction) are never loaded.
    fn add(&mut self, name: &str, format: &str, bytes: u64, dims: &Dims) {
        let parts: Vec<_> = name.split('.').collect();
        let after = |word: &str| {
            let index = parts.iter().position(|part| *part == word)?;
            parts.get(index + 1)?.parse::<u64>().ok()
        };
        let layer = after("layers");
        if layer.is_some_and(|layer| layer >= dims.num_hidden_layers) {
            return;
        }
        let Some(layer) = layer.filter(|_| parts.contains(&"experts")) else {
            self.dense = self.dense.saturating_add(bytes);
            return;
        };
        *self.formats.entry(format.to_owned()).or_default() += bytes;
        // Some files stack all experts of a layer in one tensor.
        let (expert, own) =
            after("experts").map_or((0, bytes / dims.n_routed_experts.max(1)), |expert| (expert, bytes));
        *self.experts.entry((layer, expert)).or_default() += own;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn folder(header: &str, data: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"architectures":["DeepseekV3ForCausalLM"],"vocab_size":8,"hidden_size":4,"num_hidden_layers":2,
            "num_attention_heads":2,"kv_lora_rank":2,"qk_nope_head_dim":2,"qk_rope_head_dim":2,"v_head_dim":2,
            "intermediate_size":8,"first_k_dense_replace":1,"n_routed_experts":2,"num_experts_per_tok":1,
            "moe_intermediate_size":4,"max_position_embeddings":64}"#;
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let mut file = File::create(folder.path().join("model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&vec![0; data]).unwrap();
        folder
    }

    #[test]
    fn bytes_come_from_the_tensor_table_and_mtp_layers_are_skipped() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "model.embed_tokens.weight":{"dtype":"BF16","shape":[8,4],"data_offsets":[0,64]},
            "model.layers.1.mlp.experts.0.up_proj.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[64,96]},
            "model.layers.1.mlp.experts.0.down_proj.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[96,128]},
            "model.layers.1.mlp.experts.1.up_proj.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[128,160]},
            "model.layers.2.eh_proj.weight":{"dtype":"BF16","shape":[4,4],"data_offsets":[160,192]}}"#;
        let shape = shape(folder(header, 192).path()).unwrap();
        assert_eq!((shape.dense_bytes, shape.expert_bytes, shape.weights), (64, 64, WeightFormat::BF16));
        assert_eq!((shape.layers, shape.moe_layers, shape.kv_elements), (2, 1, 4));
    }

    #[test]
    fn experts_that_are_stacked_in_one_tensor_share_its_bytes() {
        let header = r#"{"model.norm.weight":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},
            "model.layers.1.mlp.experts.down_proj_blocks":{"dtype":"U8","shape":[2,24],"data_offsets":[8,56]},
            "model.layers.1.mlp.experts.down_proj_scales":{"dtype":"U8","shape":[2,4],"data_offsets":[56,64]}}"#;
        let shape = shape(folder(header, 64).path()).unwrap();
        assert_eq!((shape.dense_bytes, shape.expert_bytes, shape.weights), (8, 28, WeightFormat::MXFP4));
    }

    #[test]
    fn dense_part_and_experts_add_up_to_the_files_of_every_family() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for name in ["v3-plain", "half-split", "qwen3-sparse", "mixtral-full", "olmoe-clip", "gpt-oss-small"] {
            let folder = fixtures.join(name);
            let shape = shape(&folder).unwrap();
            let experts = shape.expert_bytes * i64::from(shape.experts) * i64::from(shape.moe_layers);
            let file = std::fs::read(folder.join("model.safetensors")).unwrap();
            let header = u64::from_le_bytes(file[..8].try_into().unwrap());
            assert_eq!(shape.dense_bytes + experts, file.len() as i64 - 8 - header as i64, "{name}");
        }
    }

    #[test]
    fn a_lying_header_is_an_error_naming_the_tensor() {
        let header = r#"{"a":{"dtype":"BF16","shape":[8,4],"data_offsets":[0,64]}}"#;
        let error = shape(folder(header, 10).path()).unwrap_err().to_string();
        assert!(error.ends_with("model.safetensors: a lies outside the file"), "{error}");
    }

    #[test]
    fn a_folder_without_weights_is_an_error() {
        let empty = folder("{}", 0);
        std::fs::remove_file(empty.path().join("model.safetensors")).unwrap();
        assert!(matches!(shape(empty.path()), Err(FolderError::NoWeights(_))));
    }
}
