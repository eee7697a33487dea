//! A request inside the scheduler, before and after admission. Never leaves it.

use super::Admission;

/// A request without blocks.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) admission: Admission,
    /// Blocks for prompt and answer.
    pub(super) blocks: u32,
}

/// A request with all the blocks that it can need.
///
/// ```text
/// tokens  0 ······ computed ······ prompt + generated
///         in the cache     | to compute; the last one is sampled from
/// ```
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) admission: Admission,
    pub(super) blocks: Vec<u32>,
    pub(super) computed: u32,
    pub(super) generated: u32,
    /// Number of the step that last computed something of it.
    pub(super) last_step: u64,
    /// The client left while a step computed it.
    pub(super) cancelled: bool,
}

impl Sequence {
    /// Tokens known but not computed; at least 1 between steps.
    pub(super) fn pending(&self) -> u32 {
        self.admission.prompt + self.generated - self.computed
    }
}
