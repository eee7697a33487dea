//! The header of one file: magic, version, counts, metadata, tensor table.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | keys u64 | keys × (name, type u32, value) | tensors × (name, dims u32,
//! dims × u64 innermost first, type u32, offset u64) | padding to the alignment | data, offsets count from here
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::metadata::{Metadata, value};
use super::types;
use crate::limits::{GGUF_ALIGNMENT, GGUF_KEYS, GGUF_NAME, GGUF_TENSORS, TENSOR_DIMENSIONS};
use crate::weights::Entry;

const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
const DEFAULT_ALIGNMENT: u64 = 32;
/// name length, dims, one dim, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// name length, name, type, the smallest value.
const LEAST_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Elements of a tensor; keeps every later product of sizes far from overflow.
const MOST_ELEMENTS: usize = 1 << 48;

/// What one file says of itself.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// Keys and values.
    pub metadata: Metadata,
    /// Tensors under the file's own names, by offset; shapes outermost first.
    pub tensors: Vec<Entry>,
}

/// Why a header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// It goes on behind the bytes given.
    Short,
    /// It contradicts itself, the file or the limits.
    Bad(String),
}

fn bad<T>(problem: String) -> Result<T, Problem> {
    Err(Problem::Bad(problem))
}

/// Parses the header at the beginning of a file of `file_len` bytes, of which `bytes` are the first.
///
/// # Errors
/// What is wrong, and the bytes again.
pub fn parse(bytes: Vec<u8>, file_len: u64) -> Result<Header, (Problem, Vec<u8>)> {
    match walk(&bytes, file_len) {
        Ok((values, tensors)) => Ok(Header { metadata: Metadata::new(bytes, values), tensors }),
        Err(problem) => Err((problem, bytes)),
    }
}

type Walked = (BTreeMap<String, super::metadata::Value>, Vec<Entry>);

fn walk(bytes: &[u8], file_len: u64) -> Result<Walked, Problem> {
    let mut cursor = Cursor::new(bytes, file_len);
    if file_len < 24 {
        return bad(format!("{file_len} bytes are too few for a GGUF file"));
    }
    if cursor.u32()? != MAGIC {
        return bad("it does not begin with \"GGUF\"".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => {}
        version if [2, 3].contains(&version.swap_bytes()) => {
            return bad("big-endian files are not supported".to_owned());
        }
        version => return bad(format!("version {version} is not supported; supported: 2, 3")),
    }
    let tensor_count = cursor.count(GGUF_TENSORS)?;
    let key_count = cursor.count(GGUF_KEYS)?;
    cursor.check_room("metadata keys", key_count as u64, LEAST_KEY_BYTES)?;
    cursor.check_room("tensors", tensor_count as u64, LEAST_TENSOR_BYTES)?;
    let mut values = BTreeMap::new();
    for _ in 0..key_count {
        let key = cursor.name("a metadata key", GGUF_NAME)?;
        let value = value(&mut cursor, key)?;
        if values.insert(key.to_owned(), value).is_some() {
            return bad(format!("key {key} is there twice"));
        }
    }
    let mut tensors = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..tensor_count {
        let tensor = tensor(&mut cursor)?;
        if !names.insert(tensor.name.clone()) {
            return bad(format!("tensor {} is there twice", tensor.name));
        }
        tensors.push(tensor);
    }
    let alignment = alignment(&values)?;
    let data_begin = (cursor.at() as u64).next_multiple_of(alignment);
    tensors.sort_by(|a, b| (a.offset, a.len, &a.name).cmp(&(b.offset, b.len, &b.name)));
    place(&mut tensors, alignment, (data_begin, file_len))?;
    Ok((values, tensors))
}

fn alignment(values: &BTreeMap<String, super::metadata::Value>) -> Result<u64, Problem> {
    let alignment = match values.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(super::metadata::Value::Whole(alignment)) => u64::try_from(*alignment).unwrap_or(0),
        Some(_) => return bad("key general.alignment is no whole number".to_owned()),
    };
    GGUF_ALIGNMENT.check(alignment as f64).map_err(|error| Problem::Bad(error.to_string()))?;
    if !alignment.is_power_of_two() {
        return bad(format!("general.alignment is {alignment}; a power of two is allowed"));
    }
    Ok(alignment)
}

/// One line of the tensor table; its offset still counts from the data.
fn tensor(cursor: &mut Cursor<'_>) -> Result<Entry, Problem> {
    let name = cursor.name("the name of a tensor", GGUF_NAME)?.to_owned();
    let dims = cursor.u32()?;
    if dims == 0 || TENSOR_DIMENSIONS.check(dims).is_err() {
        return bad(format!("tensor {name} has {dims} dimensions; 1 to {} are allowed", TENSOR_DIMENSIONS.max));
    }
    let mut shape = Vec::new();
    let mut elements = 1_usize;
    for _ in 0..dims {
        let dim = usize::try_from(cursor.u64()?).unwrap_or(usize::MAX);
        let product = elements.checked_mul(dim).filter(|&product| (1..=MOST_ELEMENTS).contains(&product));
        elements = match product {
            Some(product) => product,
            None => {
                return bad(format!("tensor {name} has a dimension of {dim}; 1 to 2^48 elements are allowed in all"));
            }
        };
        shape.insert(0, dim);
    }
    let number = cursor.u32()?;
    let Some(kind) = types::find(number) else {
        return bad(format!("tensor {name} is of type {number}, which is unknown"));
    };
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.elements) {
        let (name_of, block) = (kind.name, kind.elements);
        return bad(format!("tensor {name} of {name_of} has rows of {row}, which are no whole blocks of {block}"));
    }
    let len = (elements / kind.elements * kind.bytes) as u64;
    let offset = cursor.u64()?;
    Ok(Entry { name, dtype: kind.dtype.ok_or_else(|| kind.name.to_owned()), shape, offset, len })
}

/// Turns offsets into places of the file; every tensor lies in it, aligned, and on no other.
fn place(tensors: &mut [Entry], alignment: u64, bounds: (u64, u64)) -> Result<(), Problem> {
    let (data_begin, file_len) = bounds;
    let mut end = data_begin;
    for tensor in tensors {
        let Entry { name, offset, len, .. } = &*tensor;
        if !offset.is_multiple_of(alignment) {
            return bad(format!("tensor {name} begins at {offset}, which is no multiple of {alignment}"));
        }
        let begin = data_begin.checked_add(*offset);
        let Some((begin, stop)) = begin.and_then(|begin| Some((begin, begin.checked_add(*len)?))) else {
            return bad(format!("tensor {name} begins at {offset}, past every file"));
        };
        if stop > file_len {
            return bad(format!("tensor {name} ends at byte {stop}, the file has {file_len}: it is truncated"));
        }
        if begin < end {
            return bad(format!("tensor {name} overlaps the one before it"));
        }
        end = stop;
        tensor.offset = begin;
    }
    Ok(())
}
