//! All tensors of a model under their Hugging Face names: one `model.safetensors`, the files of an index, or a GGUF file
//! with its splits.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::gguf::{self, Gguf};
use super::paired::Paired;
use super::safetensors::read_header;
use super::{Entry, WeightsError};
use crate::limits::SAFETENSORS_INDEX;
use crate::program::Dtype;

const PIECE_BYTES: usize = 4 << 20;

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
    /// Of GGUF files, whose tensors have names of their own.
    names: Option<gguf::Names>,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a GGUF file, or every weight file of a directory, and checks the headers.
    ///
    /// # Errors
    /// Any [`WeightsError`] about files, headers and the index.
    pub fn open(directory: &Path) -> Result<Self, WeightsError> {
        if let Some(path) = gguf_of(directory)? {
            return Ok(Self::of_gguf(gguf::open(&path)?));
        }
        let single = directory.join("model.safetensors");
        let index = directory.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::open_indexed(directory, &index);
        }
        if !single.is_file() {
            return Err(WeightsError::NoWeights(directory.to_owned()));
        }
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new(), names: None };
        checkpoint.add(single, None)?;
        Ok(checkpoint)
    }

    fn of_gguf(model: Gguf) -> Self {
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for (number, gguf::Part { path, file, len, tensors: of_part }) in model.parts.into_iter().enumerate() {
            tensors.extend(of_part.into_iter().map(|entry| (entry.name.clone(), (number, entry))));
            files.push(WeightFile { path, len, file });
        }
        Self { files, tensors, names: Some(model.names) }
    }

    /// Where a tensor stands, if there is one of this name.
    fn find(&self, name: &str) -> Option<(usize, Cow<'_, Entry>)> {
        let Some(names) = &self.names else {
            return self.tensors.get(name).map(|(file, entry)| (*file, Cow::Borrowed(entry)));
        };
        let (own, part) = names.find(name)?;
        let (file, entry) = self.tensors.get(&own)?;
        Some((*file, Cow::Owned(part.of(entry, name)?)))
    }

    /// As [`Self::find`], without the file.
    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        self.find(name).map(|(_, entry)| entry.into_owned())
    }

    /// The matrix of this name that is stored otherwise, and its shape.
    fn paired(&self, name: &str) -> Option<(Paired, [usize; 2])> {
        let paired = Paired::of(name)?;
        let shape = paired.shape(self)?;
        Some((paired, shape))
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some() || self.paired(name).is_some()
    }

    /// Reads some bytes of a tensor whatever they mean; `into` becomes as long as they are.
    pub(super) fn read_bytes(
        &self,
        name: &str,
        begin: usize,
        len: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), WeightsError> {
        let missing = || WeightsError::MissingTensor(name.to_owned());
        let (number, entry) = self.find(name).ok_or_else(missing)?;
        let inside = begin.checked_add(len).is_some_and(|end| end as u64 <= entry.len);
        let source = if inside { &self.files[number] } else { return Err(missing()) };
        let io = |error| WeightsError::Io { path: source.path.clone(), source: error };
        into.resize(len, 0);
        source.file.read_exact_at(into, entry.offset + begin as u64).map_err(io)
    }

    fn open_indexed(directory: &Path, path: &Path) -> Result<Self, WeightsError> {
        let malformed = |problem: String| WeightsError::Malformed { path: path.to_owned(), problem };
        let io = |source| WeightsError::Io { path: path.to_owned(), source };
        let len = std::fs::metadata(path).map_err(io)?.len();
        SAFETENSORS_INDEX.check(len as f64).map_err(|error| malformed(error.to_string()))?;
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
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new(), names: None };
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
        let shaped = |found: &[usize]| {
            let (found, expected) = (found.to_vec(), shape.to_vec());
            if found == expected { Ok(()) } else { Err(WeightsError::Shape { name: name.to_owned(), found, expected }) }
        };
        if self.find(name).is_none()
            && let Some((_, found)) = self.paired(name)
        {
            return shaped(&found).map(|()| Dtype::Mxfp4);
        }
        let (_, entry) = self.find(name).ok_or_else(|| WeightsError::MissingTensor(name.to_owned()))?;
        shaped(&entry.shape)?;
        entry.into_owned().dtype.map_err(|found| WeightsError::Dtype { name: name.to_owned(), found })
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
        if self.find(name).is_none()
            && let Some((paired, shape)) = self.paired(name)
        {
            return paired.read(self, shape, each);
        }
        let missing = || WeightsError::MissingTensor(name.to_owned());
        let (_, entry) = self.find(name).ok_or_else(missing)?;
        self.read_range(name, 0..usize::try_from(entry.len).map_err(|_| missing())?, each)
    }

    /// Reads some bytes of a tensor as [`Checkpoint::read`] does; offsets count from the start of `range`, which begins
    /// and ends between blocks.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`WeightsError::MissingTensor`] also for bytes that the tensor does not have.
    pub fn read_range<E: From<WeightsError>>(
        &self,
        name: &str,
        range: Range<usize>,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (number, entry) = self.find(name).ok_or_else(|| WeightsError::MissingTensor(name.to_owned()))?;
        let source = &self.files[number];
        if range.end as u64 > entry.len {
            return Err(WeightsError::MissingTensor(name.to_owned()).into());
        }
        let (start, len) = (range.start, range.len());
        // Whole blocks, so that each piece can be judged alone.
        let block = entry.dtype.as_ref().map_or(1, |dtype| dtype.block().1);
        let piece_bytes = PIECE_BYTES / block * block;
        let mut piece = vec![0; piece_bytes.min(len)];
        for begin in (0..len).step_by(piece_bytes) {
            let bytes = &mut piece[..piece_bytes.min(len - begin)];
            let io = |error| WeightsError::Io { path: source.path.clone(), source: error };
            source.file.read_exact_at(bytes, entry.offset + (start + begin) as u64).map_err(io)?;
            if let Ok(dtype) = entry.dtype
                && let Some(element) = dtype.first_not_finite(bytes)
            {
                let (numbers, block) = dtype.block();
                let element = (start + begin) / block * numbers + element;
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

/// The GGUF file to read, if the model is one; beside safetensors files such a file is somebody's copy.
///
/// # Errors
/// As [`gguf::find`].
pub fn gguf_of(path: &Path) -> Result<Option<PathBuf>, WeightsError> {
    let own = ["model.safetensors", "model.safetensors.index.json"];
    if own.iter().any(|name| path.join(name).is_file()) { Ok(None) } else { gguf::find(path) }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
