//! GGUF: one file, or the splits of one, to metadata and tensors under their Hugging Face names.
//!
//! The header is parsed in place; the data is read by range and only when asked for. Versions 2 and 3, little-endian.
//! Never trusts a size; never knows what a model does with a tensor.

mod cursor;
mod header;
mod metadata;
mod names;
mod splits;
mod types;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub use header::{Header, Problem, parse};
pub use metadata::{Metadata, Texts};
pub use names::Names;
pub use splits::find;

use super::{Entry, WeightsError};
use crate::limits::GGUF_HEADER;

/// What is read first; most headers without a large vocabulary fit.
const FIRST_BYTES: u64 = 1 << 20;

/// One file of a model.
#[derive(Debug)]
pub struct Part {
    /// Where it lies.
    pub path: PathBuf,
    /// Open for reading.
    pub file: File,
    /// Bytes.
    pub len: u64,
    /// Its tensors under the names that they have there.
    pub tensors: Vec<Entry>,
}

/// A whole model.
#[derive(Debug)]
pub struct Gguf {
    /// Of the first file, which describes the model.
    pub metadata: Metadata,
    /// What recipes call its tensors.
    pub names: Names,
    /// In order.
    pub parts: Vec<Part>,
}

impl Gguf {
    /// Shape of a tensor by its name in the files, outermost first.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let tensor = self.parts.iter().flat_map(|part| &part.tensors).find(|tensor| tensor.name == name);
        tensor.map(|tensor| tensor.shape.as_slice())
    }
}

/// Opens a GGUF file and, when it is the first of several, all of them.
///
/// # Errors
/// [`WeightsError::Io`] and [`WeightsError::Malformed`], naming the key or tensor at fault.
pub fn open(path: &Path) -> Result<Gguf, WeightsError> {
    let malformed = |problem: String| WeightsError::Malformed { path: path.to_owned(), problem };
    let (file, len, first) = read(path)?;
    let split = splits::check(path, &first.metadata, 0, None).map_err(malformed)?;
    let mut files = vec![(path.to_owned(), file, len, first)];
    for number in 1..split.count {
        let path = split.path(number);
        let malformed = |problem: String| WeightsError::Malformed { path: path.clone(), problem };
        let (file, len, header) = read(&path)?;
        splits::check(&path, &header.metadata, number, Some(&split)).map_err(malformed)?;
        files.push((path.clone(), file, len, header));
    }
    let names = Names::new(&files[0].3.metadata).map_err(malformed)?;
    let tensors = || files.iter().flat_map(|(.., header)| &header.tensors);
    splits::check_tensors(&split, tensors()).map_err(malformed)?;
    tensors().try_for_each(|tensor| names.check(&tensor.name)).map_err(malformed)?;
    let metadata = files[0].3.metadata.clone();
    let part = |(path, file, len, header): (PathBuf, File, u64, Header)| {
        let tensors = header.tensors;
        Part { path, file, len, tensors }
    };
    Ok(Gguf { metadata, names, parts: files.into_iter().map(part).collect() })
}

/// Reads as much of a file as its header needs.
fn read(path: &Path) -> Result<(File, u64, Header), WeightsError> {
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    let malformed = |problem: String| WeightsError::Malformed { path: path.to_owned(), problem };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let most = len.min(GGUF_HEADER.max as u64);
    let mut bytes = Vec::new();
    let mut wanted = FIRST_BYTES.min(most);
    loop {
        let have = bytes.len();
        bytes.resize(usize::try_from(wanted).expect("should fit: bounded by the limit"), 0);
        file.read_exact_at(&mut bytes[have..], have as u64).map_err(io)?;
        match parse(bytes, len) {
            Ok(header) => return Ok((file, len, header)),
            Err((Problem::Short, read)) if wanted < most => bytes = read,
            Err((Problem::Short, _)) if most < len => {
                return Err(malformed(format!("the header is longer than {most} bytes, which is the most allowed")));
            }
            Err((Problem::Short, _)) => return Err(malformed("the file ends within its header".to_owned())),
            Err((Problem::Bad(problem), _)) => return Err(malformed(problem)),
        }
        wanted = (wanted * 4).min(most);
    }
}

/// The metadata of a model's first file.
///
/// # Errors
/// As [`open`], as far as one header goes.
pub fn read_metadata(path: &Path) -> Result<Metadata, WeightsError> {
    Ok(read(path)?.2.metadata)
}
