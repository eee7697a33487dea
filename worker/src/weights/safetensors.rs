//! The header of one safetensors file, checked against the file's length.
//!
//! Layout: u64 little-endian header length, JSON header, data. Every byte of data belongs to exactly one tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use safetensors::tensor::{Dtype as FileDtype, TensorInfo};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Entry, WeightsError};
use crate::limits::{SAFETENSORS_HEADER, TENSOR_DIMENSIONS};
use crate::program::Dtype;

const LENGTH_BYTES: u64 = 8;
/// Elements of a tensor; keeps every later product of sizes far from overflow.
const MOST_ELEMENTS: usize = 1 << 48;

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
    SAFETENSORS_HEADER.check(header_len as f64).map_err(|error| malformed(error.to_string()))?;
    let data_begin = LENGTH_BYTES + header_len;
    if data_begin > file_len {
        return Err(malformed(format!("the header claims {header_len} bytes, the file has {file_len}")));
    }
    let mut header = vec![0; usize::try_from(header_len).expect("should fit: at most 16 MiB")];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io)?;
    parse_header(&header, file_len).map_err(malformed)
}

/// The tensors that a JSON header describes, in a file of `file_len` bytes.
///
/// # Errors
/// What is wrong, naming the tensor.
pub fn parse_header(header: &[u8], file_len: u64) -> Result<Vec<Entry>, String> {
    let data_begin = LENGTH_BYTES + header.len() as u64;
    let Table(infos) = serde_json::from_slice(header).map_err(|error| format!("the header is not valid: {error}"))?;
    let mut entries = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        entries.push(entry(name, &info, data_begin)?);
    }
    entries.sort_by(|a, b| (a.offset, a.len, &a.name).cmp(&(b.offset, b.len, &b.name)));
    check_tiling(&entries, data_begin, file_len)?;
    Ok(entries)
}

/// The tensors that a header describes; a name that is there twice is refused, which a map would not notice.
struct Table(BTreeMap<String, TensorInfo>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let (mut infos, mut seen) = (BTreeMap::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                let _: BTreeMap<String, String> = map.next_value()?;
                if std::mem::replace(&mut seen, true) {
                    return Err(A::Error::custom("__metadata__ is there twice"));
                }
                continue;
            }
            let info: TensorInfo = map.next_value().map_err(|error| {
                A::Error::custom(format_args!("tensor {name} is not described as it should be: {error}"))
            })?;
            if infos.insert(name.clone(), info).is_some() {
                return Err(A::Error::custom(format_args!("tensor {name} is there twice")));
            }
        }
        Ok(Table(infos))
    }
}

fn entry(name: String, info: &TensorInfo, data_begin: u64) -> Result<Entry, String> {
    let (begin, end) = info.data_offsets;
    if TENSOR_DIMENSIONS.check_count(info.shape.len()).is_err() {
        let (dims, most) = (info.shape.len(), TENSOR_DIMENSIONS.max);
        return Err(format!("tensor {name} has {dims} dimensions; at most {most} are allowed"));
    }
    let len =
        end.checked_sub(begin).ok_or_else(|| format!("tensor {name} ends at {end}, before it begins at {begin}"))?;
    let elements = info.shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let elements = elements.filter(|&elements| elements <= MOST_ELEMENTS);
    let bits = elements.and_then(|elements| elements.checked_mul(info.dtype.bitsize()));
    if bits != len.checked_mul(8) {
        return Err(format!("tensor {name} has shape {:?} of {}, but {len} bytes", info.shape, info.dtype));
    }
    let dtype = match info.dtype {
        FileDtype::F32 => Ok(Dtype::F32),
        FileDtype::BF16 => Ok(Dtype::Bf16),
        FileDtype::F16 => Ok(Dtype::F16),
        FileDtype::F8_E4M3 => Ok(Dtype::E4m3),
        FileDtype::F8_E8M0 => Ok(Dtype::E8m0),
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
