//! The router.

use crate::ops::{GroupScore, RouterRule, Scoring};
use crate::program::BufferId;

use super::Walk;

impl Walk<'_> {
    pub(super) fn route(
        &mut self,
        logits: BufferId,
        bias: Option<BufferId>,
        rule: &RouterRule,
        out: (BufferId, BufferId),
    ) {
        for row in 0..self.control.rows {
            if self.control.kv_slots[row] < 0 {
                self.memory.set_row(out.0, row, &vec![f64::from(u32::MAX); rule.top_k]);
                self.memory.set_row(out.1, row, &vec![0.0; rule.top_k]);
                continue;
            }
            let scores = scores(self.memory.row(logits, row), rule.scoring);
            let mut biased = scores.clone();
            if let Some(bias) = bias {
                biased.iter_mut().zip(self.memory.values(bias)).for_each(|(score, bias)| *score += bias);
            }
            mask_losing_groups(&mut biased, rule);
            let mut chosen = highest(&biased, rule.top_k);
            chosen.sort_unstable();
            let scores = if rule.scoring == Scoring::SoftmaxOfChosen { softmax(&scores, &chosen) } else { scores };
            let sum: f64 = chosen.iter().map(|&id| scores[id]).sum();
            let divisor = if rule.normalise { sum + 1e-20 } else { 1.0 };
            let weights: Vec<f64> = chosen.iter().map(|&id| scores[id] / divisor * f64::from(rule.scale)).collect();
            self.memory.set_row(out.0, row, &chosen.iter().map(|&id| id as f64).collect::<Vec<_>>());
            self.memory.set_row(out.1, row, &weights);
        }
    }
}

fn scores(logits: &[f64], scoring: Scoring) -> Vec<f64> {
    match scoring {
        Scoring::Sigmoid => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        Scoring::Softmax => softmax(logits, &(0..logits.len()).collect::<Vec<_>>()),
        Scoring::SoftmaxOfChosen => logits.to_vec(),
    }
}

/// Over the logits of `among`; the others' entries mean nothing.
fn softmax(logits: &[f64], among: &[usize]) -> Vec<f64> {
    let highest = among.iter().map(|&id| logits[id]).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = among.iter().map(|&id| (logits[id] - highest).exp()).sum();
    logits.iter().map(|logit| (logit - highest).exp() / total).collect()
}

fn mask_losing_groups(biased: &mut [f64], rule: &RouterRule) {
    let size = biased.len() / rule.groups;
    let judged: Vec<f64> = biased
        .chunks(size)
        .map(|group| {
            let best: Vec<f64> = highest(group, 2).into_iter().map(|id| group[id]).collect();
            match rule.group_score {
                GroupScore::Max => best[0],
                GroupScore::TopTwoSum => best.iter().sum(),
            }
        })
        .collect();
    let winners = highest(&judged, rule.top_groups);
    for (id, score) in biased.iter_mut().enumerate() {
        if !winners.contains(&(id / size)) {
            *score = f64::NEG_INFINITY;
        }
    }
}

/// Indices of the `count` highest, ties to the lowest index.
fn highest(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).expect("should be numbers").then(a.cmp(&b)));
    order.truncate(count);
    order
}
