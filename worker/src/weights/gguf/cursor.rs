//! Walks the bytes of a header without believing any of them.

use std::ops::Range;

use super::Problem;
use crate::limits::Limit;

/// A place in the bytes read so far, of a file that may be longer.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        Self { bytes, at: 0, file_len }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Refuses `count` things of at least `size` bytes that the rest of the file cannot hold.
    pub(super) fn check_room(&self, what: &str, count: u64, size: u64) -> Result<(), Problem> {
        let rest = self.file_len - self.at as u64;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= rest => Ok(()),
            _ => Err(Problem::Bad(format!("{what}: {count} do not fit the {rest} bytes that are left of the file"))),
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<Range<usize>, Problem> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len()).ok_or(Problem::Short)?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let range = self.take(N)?;
        Ok(self.bytes[range].first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count within `limit`.
    pub(super) fn count(&mut self, limit: Limit) -> Result<usize, Problem> {
        let count = self.u64()?;
        // Exact below 2⁵³, and no limit is near that.
        limit.check(count as f64).map_err(|error| Problem::Bad(error.to_string()))?;
        Ok(usize::try_from(count).expect("should fit: within the limit"))
    }

    /// Where a string of any length that fits the file stands.
    pub(super) fn string(&mut self, what: &str) -> Result<Range<usize>, Problem> {
        let len = self.u64()?;
        self.check_room(what, len, 1)?;
        self.take(usize::try_from(len).map_err(|_| Problem::Short)?)
    }

    /// A short string of UTF-8.
    pub(super) fn name(&mut self, what: &str, limit: Limit) -> Result<&'a str, Problem> {
        let len = self.count(limit)?;
        self.check_room(what, len as u64, 1)?;
        let range = self.take(len)?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| Problem::Bad(format!("{what} is not UTF-8")))
    }
}
