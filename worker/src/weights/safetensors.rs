//! The header of one safetensors file, checked against the file's length.
//!
//! Layout: u64 little-endian header length, JSON header, data. Every byte of data belongs to exactly one tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use safetensors::tensor::{Dtype as FileDtype, TensorInfo};

use super::WeightsError;
use crate::program::Dtype;

/// Longest header read, in bytes.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 4;
const LENGTH_BYTES: u64 = 8;

/// Where one tensor stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name.
    pub name: String,
    /// Element type, or the name of one that is not supported.
    pub dtype: Result<Dtype, String>,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Reads and checks the header of `file`.
///
/// # Errors
/// [`WeightsError::Io`] and [`WeightsError::Malformed`], naming the tensor at fault.
pub fn read_header(path: &Path, file: &File) -> Result<Vec<Entry>, WeightsError> {
    let malformed = |problem: String| WeightsError::Malformed { path: path.to_owned(), problem };
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    let file_len = file.metadata().map_err(io)?.len();
    if file_len < LENGTH_BYTES {
        return Err(malformed(format!("{file_len} bytes are too few for a safetensors file")));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0).map_err(io)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER_BYTES {
        return Err(malformed(format!("the header claims {header_len} bytes; at most {MAX_HEADER_BYTES} are allowed")));
    }
    let data_begin = LENGTH_BYTES + header_len;
    if data_begin > file_len {
        return Err(malformed(format!("the header claims {header_len} bytes, the file has {file_len}")));
    }
    let mut header = vec![0; usize::try_from(header_len).expect("should fit: at most 16 MiB")];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io)?;
    let not_valid = |error: serde_json::Error| malformed(format!("the header is not valid: {error}"));
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).map_err(not_valid)?;
    let mut entries = Vec::with_capacity(fields.len());
    for (name, field) in fields.into_iter().filter(|(name, _)| name != "__metadata__") {
        let info: TensorInfo = serde_json::from_value(field)
            .map_err(|error| malformed(format!("tensor {name} is not described as it should be: {error}")))?;
        entries.push(entry(name, &info, data_begin).map_err(malformed)?);
    }
    entries.sort_by(|a, b| (a.offset, a.len, &a.name).cmp(&(b.offset, b.len, &b.name)));
    check_tiling(&entries, data_begin, file_len).map_err(malformed)?;
    Ok(entries)
}

fn entry(name: String, info: &TensorInfo, data_begin: u64) -> Result<Entry, String> {
    let (begin, end) = info.data_offsets;
    if info.shape.len() > MAX_DIMENSIONS {
        return Err(format!("tensor {name} has {} dimensions; at most {MAX_DIMENSIONS} are allowed", info.shape.len()));
    }
    let len =
        end.checked_sub(begin).ok_or_else(|| format!("tensor {name} ends at {end}, before it begins at {begin}"))?;
    let elements = info.shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let bits = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize()));
    if bits != len.checked_mul(8) {
        return Err(format!("tensor {name} has shape {:?} of {}, but {len} bytes", info.shape, info.dtype));
    }
    let dtype = match info.dtype {
        FileDtype::F32 => Ok(Dtype::F32),
        FileDtype::BF16 => Ok(Dtype::Bf16),
        FileDtype::F16 => Ok(Dtype::F16),
        other => Err(other.to_string()),
    };
    let offset = data_begin.checked_add(begin as u64).ok_or_else(|| format!("tensor {name} begins past every file"))?;
    Ok(Entry { name, dtype, shape: info.shape.clone(), offset, len: len as u64 })
}

fn check_tiling(entries: &[Entry], data_begin: u64, file_len: u64) -> Result<(), String> {
    let mut next = data_begin;
    for entry in entries {
        if entry.offset < next {
            return Err(format!("tensor {} overlaps the one before it", entry.name));
        }
        if entry.offset > next {
            return Err(format!("{} bytes before tensor {} belong to none", entry.offset - next, entry.name));
        }
        next = next.checked_add(entry.len).ok_or_else(|| format!("tensor {} ends past every file", entry.name))?;
        if next > file_len {
            return Err(format!("tensor {} ends at byte {next}, the file has {file_len}: it is truncated", entry.name));
        }
    }
    if next != file_len {
        return Err(format!("{} bytes after the last tensor belong to none", file_len - next));
    }
    Ok(())
}
