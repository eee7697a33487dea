//! Constants of ops: how positions turn, how router scores become choices.

/// How the two halves of a rotation are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (2i, 2i + 1): DeepSeek's checkpoints.
    Interleaved,
    /// (i, i + width/2).
    HalfSplit,
}

/// Rotary frequencies, already scaled (yarn included); the angle at position p is `p · inv_freq[i]` in F32.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// width / 2 frequencies in radians per token.
    pub inv_freq: Vec<f32>,
    /// Multiplies both cosine and sine.
    pub factor: f32,
    /// Which elements rotate together.
    pub pairing: Pairing,
}

/// How router scores become choices and weights. Scores are F32.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterRule {
    /// Softmax over all experts or over the chosen ones, or a sigmoid each.
    pub scoring: Scoring,
    /// Experts chosen for a row.
    pub top_k: usize,
    /// Groups that the experts are divided into; 1 for none.
    pub groups: usize,
    /// Groups that stay; experts of the others are masked with −∞.
    pub top_groups: usize,
    /// What a group is judged by.
    pub group_score: GroupScore,
    /// Divide the chosen weights by (their sum + 1e-20).
    pub normalise: bool,
    /// Multiplies the weights last.
    pub scale: f32,
}

/// Score function of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Over all experts: DeepSeek V2, Qwen3-MoE, Mixtral, OLMoE.
    Softmax,
    /// The choice is by logit, the weights are a softmax over the chosen ones: gpt-oss.
    SoftmaxOfChosen,
    /// DeepSeek V3: the correction bias is added for the choice only, weights come from the unbiased score.
    Sigmoid,
}

/// How an expert's gate and up become its middle.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Activation {
    /// silu(gate) · up. Shazeer 2020.
    #[default]
    SwiGlu,
    /// With gate ≤ limit and up in −limit..=limit: gate · sigmoid(alpha · gate) · (up + 1). gpt-oss.
    Clamped {
        /// Gain inside the sigmoid.
        alpha: f32,
        /// Bound of both.
        limit: f32,
    },
}

/// What a group of experts is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// V2: its best score.
    Max,
    /// V3: the sum of its two best biased scores.
    TopTwoSum,
}
