//! Experts: lists, grouped matmuls and the routed sum.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::ops::{Activation, ExpertBank, Op, PartialList, RowList};
use crate::program::BufferId;

use super::{Walk, dot, silu};

/// One pair of a list: row of the list, expert, weight.
type Pair = (usize, u32, f64);

impl Walk<'_> {
    fn pairs(&self, list: &RowList) -> Vec<Pair> {
        let rows = self.memory.whole(list.len)[0];
        let counts = self.memory.whole(list.pairs);
        let row_of_pair = (0..rows).flat_map(|row| std::iter::repeat_n(row, counts[row]));
        let (experts, weights) = (self.memory.values(list.expert), self.memory.values(list.weight));
        row_of_pair.enumerate().map(|(pair, row)| (row, experts[pair] as u32, weights[pair])).collect()
    }

    pub(super) fn pack_rows(&mut self, op: &Op) {
        let Op::PackRows { input, expert, weight, owned, out } = op else { return };
        let (mut rows, mut pairs) = (0, 0);
        for row in self.live() {
            let choices = self.memory.row(*expert, row).iter().zip(self.memory.row(*weight, row));
            let own: Vec<(f64, f64)> = choices
                .filter(|(expert, _)| owned.iter().any(|range| range.contains(&(**expert as u32))))
                .map(|(&expert, &weight)| (expert, weight))
                .collect();
            if own.is_empty() {
                continue;
            }
            let x = self.memory.row(*input, row).to_vec();
            self.memory.set_row(out.activation, rows, &x);
            self.memory.set_row(out.row, rows, &[row as f64]);
            self.memory.set_row(out.pairs, rows, &[own.len() as f64]);
            for (expert, weight) in own {
                self.memory.set_row(out.expert, pairs, &[expert]);
                self.memory.set_row(out.weight, pairs, &[weight]);
                pairs += 1;
            }
            rows += 1;
        }
        self.memory.set_row(out.len, 0, &[rows as f64, pairs as f64]);
    }

    pub(super) fn gate_up(&mut self, list: &RowList, bank: &ExpertBank, out: BufferId) {
        let pairs = self.pairs(list);
        self.report.expert_pairs += pairs.len() as u64;
        let chosen: BTreeSet<_> = pairs.iter().map(|&(_, expert, _)| place(&bank.owned, expert)).collect();
        self.report.experts_read += chosen.len() as u64;
        for (pair, (row, expert, _)) in pairs.into_iter().enumerate() {
            let x = self.memory.row(list.activation, row);
            let place = place(&bank.owned, expert);
            let product = |weight: BufferId, bias: Option<BufferId>, n: usize| {
                let bias = bias.map_or(0.0, |bias| self.memory.row(bias, place)[n]);
                dot(x, self.memory.row(weight, place * bank.width + n)) + bias
            };
            let middle = |n: usize| {
                let gate = product(bank.gate, bank.biases.map(|biases| biases.gate), n);
                activate(bank.activation, gate, product(bank.up, bank.biases.map(|biases| biases.up), n))
            };
            let y: Vec<f64> = (0..bank.width).map(middle).collect();
            self.memory.set_row(out, pair, &y);
        }
    }

    pub(super) fn down(&mut self, on: (&RowList, &ExpertBank), input: BufferId, out: BufferId) {
        let (list, bank) = on;
        let hidden = self.memory.decl(out).cols;
        for (pair, (_, expert, weight)) in self.pairs(list).into_iter().enumerate() {
            let x = self.memory.row(input, pair);
            let place = place(&bank.owned, expert);
            let bias = |n: usize| bank.biases.map_or(0.0, |biases| self.memory.row(biases.down, place)[n]);
            let product = |n: usize| dot(x, self.memory.row(bank.down, place * hidden + n)) + bias(n);
            let y: Vec<f64> = (0..hidden).map(|n| weight * product(n)).collect();
            self.memory.set_row(out, pair, &y);
        }
    }

    pub(super) fn tree_partials(&mut self, op: &Op) {
        let Op::TreePartials { list, terms, owned, experts, out } = op else { return };
        let pairs = self.pairs(list);
        let rows = self.memory.whole(list.len)[0];
        let mut nodes = 0;
        for row in 0..rows {
            let own = pairs.iter().enumerate().filter(|(_, pair)| pair.0 == row);
            let leaves: Vec<(u32, Vec<f64>)> =
                own.map(|(pair, &(_, expert, _))| (expert, self.memory.row(*terms, pair).to_vec())).collect();
            let before = nodes;
            for (lo, hi) in maximal_nodes(0, *experts, owned) {
                let inside = leaves.iter().filter(|(expert, _)| (lo..hi).contains(expert));
                let Some(sum) = inside.map(|(_, term)| term.clone()).reduce(plus) else { continue };
                self.memory.set_row(out.lo, nodes, &[f64::from(lo)]);
                self.memory.set_row(out.hi, nodes, &[f64::from(hi)]);
                self.memory.set_row(out.sum, nodes, &sum);
                nodes += 1;
            }
            self.memory.set_row(out.nodes, row, &[(nodes - before) as f64]);
        }
        self.memory.set_row(out.len, 0, &[rows as f64, nodes as f64]);
    }

    /// In F64 the order of a sum does not matter here.
    pub(super) fn tree_combine(&mut self, parts: &[(RowList, PartialList)], _experts: u32, out: BufferId) {
        let hidden = self.memory.decl(out).cols;
        let mut sums = vec![vec![0.0; hidden]; self.control.rows];
        for (list, partials) in parts {
            let rows = self.memory.whole(list.len)[0];
            let counts = self.memory.whole(partials.nodes);
            let mut node = 0;
            for (&target, &count) in self.memory.whole(list.row).iter().zip(&counts).take(rows) {
                for _ in 0..count {
                    let sum = std::mem::take(&mut sums[target]);
                    sums[target] = plus(sum, self.memory.row(partials.sum, node).to_vec());
                    node += 1;
                }
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            self.memory.set_row(out, row, sum);
        }
    }
}

fn activate(activation: Activation, gate: f64, up: f64) -> f64 {
    match activation {
        Activation::SwiGlu => silu(gate) * up,
        Activation::Clamped { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
            gate / (1.0 + (-alpha * gate).exp()) * (up + 1.0)
        }
    }
}

fn plus(a: Vec<f64>, b: Vec<f64>) -> Vec<f64> {
    a.iter().zip(&b).map(|(a, b)| a + b).collect()
}

fn is_owned(owned: &[Range<u32>], expert: u32) -> bool {
    owned.iter().any(|range| range.contains(&expert))
}

/// Place of an owned expert in its bank: how many owned ids are lower.
fn place(owned: &[Range<u32>], expert: u32) -> usize {
    owned.iter().flat_map(Clone::clone).filter(|&id| id < expert).count()
}

/// The maximal nodes of the tree over `lo..hi` whose leaves are all owned, ascending.
fn maximal_nodes(lo: u32, hi: u32, owned: &[Range<u32>]) -> Vec<(u32, u32)> {
    if (lo..hi).all(|expert| is_owned(owned, expert)) {
        return vec![(lo, hi)];
    }
    if hi - lo == 1 {
        return Vec::new();
    }
    let mid = (lo + hi) / 2;
    [maximal_nodes(lo, mid, owned), maximal_nodes(mid, hi, owned)].concat()
}
