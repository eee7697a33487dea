//! Cache blocks by id: which are free. Never touches what is in them.

/// Ids `0..total`, each either free or held by exactly one owner.
#[derive(Debug)]
pub struct BlockPool {
    total: u32,
    /// Free ids; the last is given next.
    free: Vec<u32>,
}

impl BlockPool {
    /// All of `0..total` free; the lowest ids are given first.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self { total, free: (0..total).rev().collect() }
    }

    /// Takes `count` blocks, or none when fewer are free.
    pub fn take(&mut self, count: u32) -> Option<Vec<u32>> {
        let rest = self.free.len().checked_sub(count as usize)?;
        Some(self.free.drain(rest..).rev().collect())
    }

    /// Returns what [`Self::take`] gave.
    pub fn give_back(&mut self, blocks: Vec<u32>) {
        self.free.extend(blocks.into_iter().rev());
    }

    /// Blocks that somebody holds.
    #[must_use]
    pub fn used(&self) -> u32 {
        let free = u32::try_from(self.free.len()).expect("should fit: ids are below a u32");
        self.total - free
    }
}
