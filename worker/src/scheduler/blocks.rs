//! Cache blocks by id: free, held by sequences, or kept for whoever begins with the same tokens. Never touches what is
//! in them.
//!
//! ```text
//! free ──take──► held ──release──► free
//!                 │ keep             ▲ take, when nothing is free: the one that was let go first
//!                 ▼                  │
//!            held and kept ──release──► idle ──hold──► held and kept
//! ```
//! A kept block is found by its exact tokens and the kept block before it, never by a hash alone; the first block of a
//! chain also by its tenant, so tenants never share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Where a block stands in the tree of kept beginnings; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node(u64);

/// What a kept block continues.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Parent {
    /// Nothing: it holds the first tokens of requests of this tenant.
    Tenant(Arc<str>),
    /// The block before it.
    Block(Node),
}

/// By what a kept block is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Beginning {
    parent: Parent,
    tokens: Box<[u32]>,
}

#[derive(Debug, Default)]
struct Block {
    /// Sequences that read it; one of them at most writes it, and none once it is kept.
    holders: u32,
    kept: Option<(Beginning, Node)>,
    /// When the last holder let go of it, if it is kept.
    idle_since: Option<u64>,
}

/// Ids `0..total`.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// Neither held nor kept; the last is given next.
    free: Vec<u32>,
    kept: HashMap<Beginning, u32>,
    /// Kept and held by nobody, by when they were let go.
    idle: BTreeMap<u64, u32>,
    releases: u64,
    nodes: u64,
}

impl BlockPool {
    /// All of `0..total` free; the lowest ids are given first.
    #[must_use]
    pub fn new(total: u32) -> Self {
        Self {
            blocks: (0..total).map(|_| Block::default()).collect(),
            free: (0..total).rev().collect(),
            kept: HashMap::new(),
            idle: BTreeMap::new(),
            releases: 0,
            nodes: 0,
        }
    }

    /// Blocks that [`Self::take`] can give.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks that somebody holds.
    #[must_use]
    pub fn held(&self) -> u32 {
        u32::try_from(self.blocks.len() - self.available()).expect("should fit: ids are u32")
    }

    /// Blocks that nobody holds and that a request with the same beginning would find.
    #[must_use]
    pub fn idle(&self) -> u32 {
        u32::try_from(self.idle.len()).expect("should fit: ids are u32")
    }

    /// Takes a block to write into; the oldest idle one is forgotten when nothing is free.
    pub fn take(&mut self) -> Option<u32> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.forget_oldest()?,
        };
        self.blocks[id as usize].holders = 1;
        Some(id)
    }

    /// Holds the kept block with these tokens after `parent`, if there is one.
    pub fn find(&mut self, parent: &Parent, tokens: &[u32]) -> Option<(u32, Node)> {
        let wanted = Beginning { parent: parent.clone(), tokens: tokens.into() };
        let id = *self.kept.get(&wanted)?;
        let block = &mut self.blocks[id as usize];
        let (_, node) = block.kept.as_ref()?;
        let node = *node;
        block.holders += 1;
        if let Some(since) = block.idle_since.take() {
            self.idle.remove(&since);
        }
        Some((id, node))
    }

    /// Makes a held block, whose tokens are all computed, one that others may find; where it stands. Of two blocks with
    /// the same beginning the first is kept, and the other's sequence goes on under it.
    pub fn keep(&mut self, id: u32, parent: Parent, tokens: &[u32]) -> Node {
        let beginning = Beginning { parent, tokens: tokens.into() };
        let other = self.kept.get(&beginning).and_then(|&kept| self.blocks[kept as usize].kept.as_ref());
        if let Some((_, node)) = other {
            return *node;
        }
        let node = Node(self.nodes);
        self.nodes += 1;
        self.kept.insert(beginning.clone(), id);
        self.blocks[id as usize].kept = Some((beginning, node));
        node
    }

    /// Lets go of blocks in the order of their positions. The last of them is forgotten first: without it what comes
    /// before it can still be found.
    pub fn release(&mut self, blocks: Vec<u32>) {
        for id in blocks.into_iter().rev() {
            let block = &mut self.blocks[id as usize];
            block.holders -= 1;
            if block.holders > 0 {
                continue;
            }
            if block.kept.is_some() {
                block.idle_since = Some(self.releases);
                self.idle.insert(self.releases, id);
                self.releases += 1;
            } else {
                self.free.push(id);
            }
        }
    }

    fn forget_oldest(&mut self) -> Option<u32> {
        let (_, id) = self.idle.pop_first()?;
        let block = &mut self.blocks[id as usize];
        block.idle_since = None;
        if let Some((beginning, _)) = block.kept.take() {
            self.kept.remove(&beginning);
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn of(tenant: &str) -> Parent {
        Parent::Tenant(tenant.into())
    }

    #[test]
    fn a_kept_block_is_found_by_tokens_parent_and_tenant_alone() {
        let mut pool = BlockPool::new(4);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        let first = pool.keep(a, of("x"), &[1, 2]);
        let second = pool.keep(b, Parent::Block(first), &[3, 4]);
        pool.release(vec![a, b]);
        assert_eq!((pool.held(), pool.idle(), pool.available()), (0, 2, 4));
        assert_eq!(pool.find(&of("y"), &[1, 2]), None);
        assert_eq!(pool.find(&of("x"), &[3, 4]), None);
        assert_eq!(pool.find(&Parent::Block(second), &[3, 4]), None);
        assert_eq!(pool.find(&of("x"), &[1, 2]), Some((a, first)));
        assert_eq!(pool.find(&Parent::Block(first), &[3, 4]), Some((b, second)));
        assert_eq!((pool.held(), pool.idle()), (2, 0));
    }

    #[test]
    fn when_nothing_is_free_the_block_let_go_first_is_forgotten_and_of_a_chain_the_last() {
        let mut pool = BlockPool::new(3);
        let old = pool.take().unwrap();
        pool.keep(old, of(""), &[9]);
        pool.release(vec![old]);
        let chain = vec![pool.take().unwrap(), pool.take().unwrap()];
        let first = pool.keep(chain[0], of(""), &[1]);
        pool.keep(chain[1], Parent::Block(first), &[2]);
        pool.release(chain.clone());
        assert_eq!(pool.take(), Some(old));
        assert_eq!(pool.take(), Some(chain[1]));
        assert_eq!(pool.find(&of(""), &[1]), Some((chain[0], first)));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn of_two_blocks_with_the_same_tokens_one_is_kept_and_the_other_is_free_again() {
        let mut pool = BlockPool::new(2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_eq!(pool.keep(a, of(""), &[1]), pool.keep(b, of(""), &[1]));
        pool.release(vec![b]);
        assert_eq!((pool.held(), pool.idle(), pool.available()), (1, 0, 1));
    }
}
