//! A request inside the scheduler, waiting or running. Never leaves it.

use std::sync::Arc;

use super::blocks::{BlockPool, Parent};
use super::{Admission, End, RequestId};

/// Tokens of an answer for which there is room from the start.
const AHEAD: u32 = 256;

/// ```text
/// tokens  0 ······ computed ······ prompt + generated
///         in the cache     | to compute; the last one is sampled from
/// ```
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) admission: Admission,
    pub(super) tenant: Arc<str>,
    /// Place in the order of arrival.
    pub(super) arrival: u64,
    /// Prompt, then answer.
    pub(super) tokens: Vec<u32>,
    /// While it runs: one for every token that is known. Empty while it waits.
    pub(super) blocks: Vec<u32>,
    pub(super) computed: u32,
    pub(super) generated: u32,
    /// Of `blocks`, how many are kept, and where the last of them stands.
    kept: usize,
    parent: Parent,
    /// Number of the step that last computed something of it.
    pub(super) last_step: u64,
    /// Requests that came later and began earlier.
    pub(super) overtaken: u32,
    /// Whether it has run before.
    pub(super) began: bool,
    /// A plan that is not committed computes it.
    pub(super) in_flight: bool,
    /// Why it ends with that commit, whatever comes of it.
    pub(super) ending: Option<End>,
}

impl Sequence {
    pub(super) fn new(mut admission: Admission, tenant: Arc<str>, arrival: u64) -> Self {
        let mut tokens = std::mem::take(&mut admission.prompt);
        // Or the first token of the answer would double what a long prompt takes.
        tokens.reserve_exact(admission.max_tokens.min(AHEAD) as usize);
        Self {
            tokens,
            parent: Parent::Tenant(Arc::clone(&tenant)),
            admission,
            tenant,
            arrival,
            blocks: Vec::new(),
            computed: 0,
            generated: 0,
            kept: 0,
            last_step: 0,
            overtaken: 0,
            began: false,
            in_flight: false,
            ending: None,
        }
    }

    pub(super) fn id(&self) -> RequestId {
        self.admission.id
    }

    /// Tokens known.
    pub(super) fn known(&self) -> u32 {
        u32::try_from(self.tokens.len()).expect("should fit: checked at submission")
    }

    /// Tokens known but not computed; at least 1 between steps.
    pub(super) fn pending(&self) -> u32 {
        self.known() - self.computed
    }

    /// Whether every token that is known has its place.
    pub(super) fn has_room(&self, block_tokens: u32) -> bool {
        self.blocks.len() >= self.known().div_ceil(block_tokens) as usize
    }

    /// Blocks for prompt and answer.
    pub(super) fn most_blocks(&self, block_tokens: u32) -> usize {
        let left = self.admission.max_tokens - self.generated;
        self.known().saturating_add(left).div_ceil(block_tokens) as usize
    }

    /// Holds the kept blocks with which its tokens begin, whole ones only, and leaves at least one token to compute.
    pub(super) fn find_beginning(&mut self, pool: &mut BlockPool, block_tokens: usize) {
        let whole = (self.tokens.len() - 1) / block_tokens;
        for tokens in self.tokens.chunks_exact(block_tokens).take(whole) {
            let Some((block, node)) = pool.find(&self.parent, tokens) else { break };
            self.blocks.push(block);
            self.parent = Parent::Block(node);
        }
        self.kept = self.blocks.len();
        self.computed = u32::try_from(self.kept * block_tokens).expect("should fit: fewer than the tokens known");
    }

    /// Keeps the blocks that are full by now.
    pub(super) fn keep_full_blocks(&mut self, pool: &mut BlockPool, block_tokens: usize) {
        while (self.kept + 1) * block_tokens <= self.computed as usize {
            let tokens = &self.tokens[self.kept * block_tokens..][..block_tokens];
            let node = pool.keep(self.blocks[self.kept], self.parent.clone(), tokens);
            self.parent = Parent::Block(node);
            self.kept += 1;
        }
    }

    /// Lets go of all blocks; its tokens must be computed again, as far as nobody keeps them.
    pub(super) fn let_go(&mut self, pool: &mut BlockPool) {
        pool.release(std::mem::take(&mut self.blocks));
        self.computed = 0;
        self.kept = 0;
        self.parent = Parent::Tenant(Arc::clone(&self.tenant));
    }
}
