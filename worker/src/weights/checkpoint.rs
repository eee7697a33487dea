//! All tensors of a model directory in Hugging Face layout: one `model.safetensors`, or the files of an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::WeightsError;
use super::safetensors::{Entry, read_header};
use crate::program::Dtype;

const PIECE_BYTES: usize = 4 << 20;
const MAX_INDEX_BYTES: u64 = 64 << 20;

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    len: u64,
    file: File,
}

/// Every tensor by name; only headers are in memory.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, (usize, Entry)>,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens every weight file of `directory` and checks its header.
    ///
    /// # Errors
    /// Any [`WeightsError`] about files, headers and the index.
    pub fn open(directory: &Path) -> Result<Self, WeightsError> {
        let single = directory.join("model.safetensors");
        let index = directory.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::open_indexed(directory, &index);
        }
        if !single.is_file() {
            return Err(WeightsError::NoWeights(directory.to_owned()));
        }
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new() };
        checkpoint.add(single, None)?;
        Ok(checkpoint)
    }

    fn open_indexed(directory: &Path, path: &Path) -> Result<Self, WeightsError> {
        let malformed = |problem: String| WeightsError::Malformed { path: path.to_owned(), problem };
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let len = std::fs::metadata(path).map_err(io)?.len();
        if len > MAX_INDEX_BYTES {
            return Err(malformed(format!("{len} bytes; at most {MAX_INDEX_BYTES} are allowed")));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|error| malformed(format!("not an index: {error}")))?;
        let mut by_file: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            if Path::new(file).components().count() != 1 || file.starts_with('.') || !file.ends_with(".safetensors") {
                return Err(malformed(format!("{file:?} is not the name of a safetensors file in the same directory")));
            }
            by_file.entry(file).or_default().insert(tensor);
        }
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for (file, expected) in by_file {
            checkpoint.add(directory.join(file), Some(&expected))?;
        }
        if let Some(missing) = index.weight_map.keys().find(|name| !checkpoint.tensors.contains_key(*name)) {
            return Err(malformed(format!("tensor {missing} is not in the file that the index names")));
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: PathBuf, expected: Option<&BTreeSet<&str>>) -> Result<(), WeightsError> {
        let io = |source| WeightsError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let number = self.files.len();
        for entry in read_header(&path, &file)? {
            if expected.is_some_and(|names| !names.contains(entry.name.as_str())) {
                continue;
            }
            let name = entry.name.clone();
            if self.tensors.insert(name.clone(), (number, entry)).is_some() {
                return Err(WeightsError::Malformed { path, problem: format!("tensor {name} is in two files") });
            }
        }
        self.files.push(WeightFile { path, len, file });
        Ok(())
    }

    /// Finds a tensor of a supported element type and of exactly this shape.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], [`WeightsError::Dtype`] or [`WeightsError::Shape`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Dtype, WeightsError> {
        let (_, entry) = self.tensors.get(name).ok_or_else(|| WeightsError::MissingTensor(name.to_owned()))?;
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(WeightsError::Shape { name: name.to_owned(), found, expected });
        }
        entry.dtype.clone().map_err(|found| WeightsError::Dtype { name: name.to_owned(), found })
    }

    /// Reads a tensor in consecutive pieces of at most 4 MiB: `each(offset, bytes)`.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], [`WeightsError::Io`], [`WeightsError::NotFinite`], or what `each` returns.
    pub fn read<E: From<WeightsError>>(
        &self,
        name: &str,
        each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let missing = || WeightsError::MissingTensor(name.to_owned());
        let (_, entry) = self.tensors.get(name).ok_or_else(missing)?;
        self.read_range(name, 0..usize::try_from(entry.len).map_err(|_| missing())?, each)
    }

    /// Reads some bytes of a tensor as [`Checkpoint::read`] does; offsets count from the start of `range`, which begins
    /// and ends between elements.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`WeightsError::MissingTensor`] also for bytes that the tensor does not have.
    pub fn read_range<E: From<WeightsError>>(
        &self,
        name: &str,
        range: Range<usize>,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (number, entry) = self.tensors.get(name).ok_or_else(|| WeightsError::MissingTensor(name.to_owned()))?;
        let source = &self.files[*number];
        if range.end as u64 > entry.len {
            return Err(WeightsError::MissingTensor(name.to_owned()).into());
        }
        let (start, len) = (range.start, range.len());
        let mut piece = vec![0; PIECE_BYTES.min(len)];
        for begin in (0..len).step_by(PIECE_BYTES) {
            let bytes = &mut piece[..PIECE_BYTES.min(len - begin)];
            let io = |error| WeightsError::Io { path: source.path.clone(), source: error };
            source.file.read_exact_at(bytes, entry.offset + (start + begin) as u64).map_err(io)?;
            if let Ok(dtype) = entry.dtype
                && let Some(element) = first_not_finite(dtype, bytes)
            {
                let element = (start + begin) / dtype.bytes() + element;
                return Err(WeightsError::NotFinite { name: name.to_owned(), element }.into());
            }
            each(begin, bytes)?;
        }
        Ok(())
    }

    /// Digest of the tensor table and of the files' sizes; together with the config it names the model.
    pub fn hash_table(&self, hasher: &mut blake3::Hasher) {
        for (name, (number, entry)) in &self.tensors {
            let dtype = entry.dtype.as_ref().map_or_else(Clone::clone, |dtype| format!("{dtype:?}"));
            hasher.update(format!("{name} {dtype} {:?} {number} {}\n", entry.shape, entry.offset).as_bytes());
        }
        for file in &self.files {
            hasher.update(&file.len.to_le_bytes());
        }
    }
}

/// A float is not finite exactly when all bits of its exponent are set.
fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    let word = |mask: u16| {
        move |pair: &[u8]| {
            let bits = u16::from_le_bytes([pair[0], pair[1]]);
            bits & mask == mask
        }
    };
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|quad| &quad[2..]).position(word(0x7f80)),
        Dtype::Bf16 => bytes.chunks_exact(2).position(word(0x7f80)),
        Dtype::F16 => bytes.chunks_exact(2).position(word(0x7c00)),
        Dtype::U32 => None,
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
