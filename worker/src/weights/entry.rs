//! Where one tensor stands in its file.

use crate::program::Dtype;

/// One tensor, or one matrix of a stack.
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
