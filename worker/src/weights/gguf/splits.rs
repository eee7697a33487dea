//! Files that are one of several: `NAME-00001-of-000NN.gguf`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Metadata;
use crate::limits::GGUF_SPLITS;
use crate::weights::{Entry, WeightsError};

/// All files of one model.
pub(super) struct Split {
    directory: PathBuf,
    stem: String,
    /// How many there are; 1 for a file that is not one of several.
    pub(super) count: usize,
    tensors: Option<u64>,
}

impl Split {
    /// File `number`, from 0.
    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.directory.join(format!("{}-{:05}-of-{:05}.gguf", self.stem, number + 1, self.count))
    }
}

/// Stem, number from 1, and count, from a name that says so.
fn parse(path: &Path) -> Option<(String, usize, usize)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let five = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some((stem.to_owned(), five(number)?, five(count)?))
}

/// Whether the file at `path` may be number `number` (from 0) of `of`, or of those that its name speaks of.
pub(super) fn check(path: &Path, metadata: &Metadata, number: usize, of: Option<&Split>) -> Result<Split, String> {
    let (stem, named, count) = parse(path).unwrap_or((String::new(), 1, 1));
    GGUF_SPLITS.check_count(count).map_err(|error| error.to_string())?;
    if named != number + 1 {
        return Err(format!("this is file {named} of {count}; name the first, which describes the model"));
    }
    let count = of.map_or(count, |split| split.count);
    let says = |key: &str, meant: usize| match metadata.whole(key)? {
        Some(said) if said != meant as u64 => Err(format!("key {key} is {said}; its name says {meant}")),
        said => Ok(said),
    };
    if says("split.count", count)?.is_none() && count > 1 {
        return Err("key split.count is missing".to_owned());
    }
    says("split.no", number)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    Ok(Split { directory, stem, count, tensors: metadata.whole("split.tensors.count")? })
}

/// No tensor is in two files, and none is missing.
pub(super) fn check_tensors<'a>(split: &Split, tensors: impl Iterator<Item = &'a Entry>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            return Err(format!("tensor {} is in two files", tensor.name));
        }
    }
    match split.tensors {
        Some(said) if said != names.len() as u64 => {
            Err(format!("key split.tensors.count is {said}; the files hold {}", names.len()))
        }
        _ => Ok(()),
    }
}

/// The GGUF file that `path` means: itself, or the only one (or first of several) of a directory; `None` if there is none.
///
/// # Errors
/// [`WeightsError::Io`], or [`WeightsError::Malformed`] when a directory holds more than one model.
pub fn find(path: &Path) -> Result<Option<PathBuf>, WeightsError> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension == "gguf");
    if !path.is_dir() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if is_gguf(&file) && parse(&file).is_none_or(|(_, number, _)| number == 1) {
            found.push(file);
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [one, other, ..] => {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let problem = format!("it holds several models, such as {} and {}; name one", name(one), name(other));
            Err(WeightsError::Malformed { path: path.to_owned(), problem })
        }
    }
}
