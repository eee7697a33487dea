//! Router scores to choices.

use crate::ops::{GroupScore, Op, RouterRule, Scoring};

use super::math::{exp, sigmoid};
use super::run::{Device, Run};

/// The choice of a padding row: no shard owns it.
pub(super) const NOBODY: u32 = u32::MAX;

impl Run {
    pub(super) fn route(&self, _device: &mut Device, op: &Op) {
        let Op::Route { logits, bias, rule, expert, weight } = op else {
            return;
        };
        let experts = self.memory.cols(*logits);
        let bias = bias.map(|bias| self.memory.read::<f32>(bias));
        let logits = self.memory.read::<f32>(*logits);
        let mut expert = self.memory.write::<u32>(*expert);
        let mut weight = self.memory.write::<f32>(*weight);
        for row in 0..self.control.rows {
            let chosen = row * rule.top_k..(row + 1) * rule.top_k;
            let (expert, weight) = (&mut expert[chosen.clone()], &mut weight[chosen]);
            if self.is_padding(row) {
                expert.fill(NOBODY);
                weight.fill(0.0);
            } else {
                let logits = &logits[row * experts..][..experts];
                choose(logits, bias.as_deref().map(|bias| &bias[..experts]), rule, (expert, weight));
            }
        }
    }
}

/// Fills in the choices, ascending by id; logits that are not finite give weights that are NaN.
fn choose(logits: &[f32], bias: Option<&[f32]>, rule: &RouterRule, out: (&mut [u32], &mut [f32])) {
    let (expert, weight) = out;
    let mut scores = score(logits, rule.scoring);
    let mut rank: Vec<f32> = scores.clone();
    if let Some(bias) = bias {
        rank.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
    }
    if rule.top_groups < rule.groups {
        keep_best_groups(&mut rank, rule);
    }
    let mut chosen = best(&rank, rule.top_k);
    chosen.sort_unstable();
    if rule.scoring == Scoring::SoftmaxOfChosen {
        scores = softmax(logits, &chosen);
    }
    let mut factor = rule.scale;
    let sum: f32 = chosen.iter().map(|&id| scores[id]).sum();
    for (slot, &id) in chosen.iter().enumerate() {
        expert[slot] = id as u32;
        weight[slot] = if rule.normalise { scores[id] / (sum + 1e-20) } else { scores[id] };
    }
    if !logits.iter().all(|logit| logit.is_finite()) {
        factor = f32::NAN;
    }
    weight.iter_mut().for_each(|weight| *weight *= factor);
}

fn score(logits: &[f32], scoring: Scoring) -> Vec<f32> {
    match scoring {
        Scoring::Sigmoid => logits.iter().map(|&logit| sigmoid(logit)).collect(),
        Scoring::Softmax => softmax(logits, &(0..logits.len()).collect::<Vec<_>>()),
        Scoring::SoftmaxOfChosen => logits.to_vec(),
    }
}

/// Over the logits of `among`, ids ascending; the other entries are 0.
fn softmax(logits: &[f32], among: &[usize]) -> Vec<f32> {
    let highest = among.iter().map(|&id| logits[id]).fold(f32::NEG_INFINITY, f32::max);
    let mut scores = vec![0.0; logits.len()];
    among.iter().for_each(|&id| scores[id] = exp(logits[id] - highest));
    let total: f32 = among.iter().map(|&id| scores[id]).sum();
    among.iter().for_each(|&id| scores[id] /= total);
    scores
}

/// Masks the experts of the losing groups with −∞.
fn keep_best_groups(rank: &mut [f32], rule: &RouterRule) {
    let size = rank.len() / rule.groups;
    let group_score = |group: &[f32]| {
        let mut two = best(group, 2).into_iter().map(|index| group[index]);
        let first = two.next().unwrap_or(f32::NEG_INFINITY);
        match rule.group_score {
            GroupScore::Max => first,
            GroupScore::TopTwoSum => first + two.next().unwrap_or(0.0),
        }
    };
    let scores: Vec<f32> = rank.chunks_exact(size).map(group_score).collect();
    let kept = best(&scores, rule.top_groups);
    for (index, group) in rank.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&index) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The indices of the `count` highest values, highest first, ties by index; NaN ranks lowest.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    // + 0.0 makes a negative zero tie with a positive one.
    let key = |index: usize| if values[index].is_nan() { f32::NEG_INFINITY } else { values[index] + 0.0 };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
    order.truncate(count);
    order
}
