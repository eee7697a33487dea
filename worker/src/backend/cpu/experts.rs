//! Ops over rows on their way to experts: pack, and the grouped matmuls of the experts owned here.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::backend::BackendError;
use crate::ops::{ExpertBank, Op, RowList};
use crate::program::BufferId;

use super::epilogue::Epilogue;
use super::lists::Pairs;
use super::matmul::{Product, multiply};
use super::run::{Device, Run};

/// The pairs of one expert: where their inputs and outputs start, and their weights.
#[derive(Default)]
struct Group {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    weights: Vec<f32>,
    /// Of the first and of the gated matrix; empty without biases.
    biases: [Vec<f32>; 2],
}

impl Run {
    pub(super) fn pack_rows(&self, op: &Op) -> Result<(), BackendError> {
        let Op::PackRows { input, expert, weight, owned, out } = op else {
            return Ok(());
        };
        let (top_k, hidden) = (self.memory.cols(*expert), self.memory.cols(*input));
        let (input, expert) = (self.memory.read::<f32>(*input), self.memory.read::<u32>(*expert));
        let weight = self.memory.read::<f32>(*weight);
        let (mut rows, mut pairs) = (self.memory.write::<u32>(out.row), self.memory.write::<u32>(out.pairs));
        let mut experts = self.memory.write::<u32>(out.expert);
        let mut weights = self.memory.write::<f32>(out.weight);
        let mut activation = self.memory.write::<f32>(out.activation);
        let (mut packed, mut filled) = (0, 0);
        for row in (0..self.control.rows).filter(|&row| !self.is_padding(row)) {
            let before = filled;
            for choice in row * top_k..(row + 1) * top_k {
                if place(owned, expert[choice]).is_none() {
                    continue;
                }
                if filled == experts.len() {
                    return Err(self.full(out.expert));
                }
                (experts[filled], weights[filled]) = (expert[choice], weight[choice]);
                filled += 1;
            }
            if filled == before {
                continue;
            }
            if packed == rows.len() {
                return Err(self.full(out.row));
            }
            (rows[packed], pairs[packed]) = (row as u32, (filled - before) as u32);
            activation[packed * hidden..][..hidden].copy_from_slice(&input[row * hidden..][..hidden]);
            packed += 1;
        }
        self.memory.write::<u32>(out.len).copy_from_slice(&[packed as u32, filled as u32]);
        Ok(())
    }

    fn full(&self, buffer: BufferId) -> BackendError {
        let decl = &self.memory.get(buffer).decl;
        BackendError::Misuse(format!("pack_rows: {} holds only {} entries", decl.name, decl.rows))
    }

    pub(super) fn gate_up(
        &mut self,
        device: &mut Device,
        list: &RowList,
        bank: &ExpertBank,
        out: BufferId,
    ) -> Result<(), BackendError> {
        let pairs = self.pairs(list)?;
        let hidden = self.memory.cols(list.activation);
        let mut groups = self.groups(&pairs, bank, |row, _| row * hidden, bank.width)?;
        if let Some(biases) = bank.biases {
            for (index, group) in &mut groups {
                group.biases = [biases.gate, biases.up].map(|id| self.widened(id, index * bank.width, bank.width));
            }
        }
        self.report.expert_pairs += pairs.experts.len() as u64;
        self.report.experts_read += groups.len() as u64;
        let x = self.memory.read::<f32>(list.activation);
        let (gate, up) = (self.weight(bank.gate), self.weight(bank.up));
        let products: Vec<_> = groups
            .iter()
            .map(|(&index, group)| Product {
                x: &x,
                x_rows: &group.inputs,
                k: hidden,
                weight: gate.as_weight(),
                gated: Some(up.as_weight()),
                first: index * bank.width,
                columns: bank.width,
                out_rows: &group.outputs,
                scale: None,
                epilogue: Epilogue {
                    bias: &group.biases[0],
                    gated_bias: &group.biases[1],
                    activation: bank.activation,
                },
            })
            .collect();
        multiply(&mut device.pool, device.level, &products, &mut self.memory.write::<f32>(out));
        Ok(())
    }

    pub(super) fn down(
        &self,
        device: &mut Device,
        on: (&RowList, &ExpertBank),
        input: BufferId,
        out: BufferId,
    ) -> Result<(), BackendError> {
        let (list, bank) = on;
        let pairs = self.pairs(list)?;
        let hidden = self.memory.cols(out);
        let mut groups = self.groups(&pairs, bank, |_, pair| pair * bank.width, hidden)?;
        if let Some(biases) = bank.biases {
            for (index, group) in &mut groups {
                group.biases[0] = self.widened(biases.down, index * hidden, hidden);
            }
        }
        let (x, down) = (self.memory.read::<f32>(input), self.weight(bank.down));
        let products: Vec<_> = groups
            .iter()
            .map(|(&index, group)| Product {
                x: &x,
                x_rows: &group.inputs,
                k: bank.width,
                weight: down.as_weight(),
                gated: None,
                first: index * hidden,
                columns: hidden,
                out_rows: &group.outputs,
                scale: Some(&group.weights),
                epilogue: Epilogue { bias: &group.biases[0], ..Epilogue::default() },
            })
            .collect();
        multiply(&mut device.pool, device.level, &products, &mut self.memory.write::<f32>(out));
        Ok(())
    }

    /// Pairs by place of their expert in the bank; `input(row, pair)` is where a pair's input starts.
    fn groups(
        &self,
        pairs: &Pairs,
        bank: &ExpertBank,
        input: impl Fn(usize, usize) -> usize,
        width: usize,
    ) -> Result<BTreeMap<usize, Group>, BackendError> {
        let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
        for (row, bounds) in pairs.starts.windows(2).enumerate() {
            for pair in bounds[0]..bounds[1] {
                let expert = pairs.experts[pair];
                let Some(index) = place(&bank.owned, expert) else {
                    let owned = &bank.owned;
                    return Err(BackendError::Misuse(format!("expert {expert} is not owned here; owned: {owned:?}")));
                };
                let group = groups.entry(index).or_default();
                group.inputs.push(input(row, pair));
                group.outputs.push(pair * width);
                group.weights.push(pairs.weights[pair]);
            }
        }
        Ok(groups)
    }
}

/// Where an expert stands among the owned ones.
fn place(owned: &[Range<u32>], expert: u32) -> Option<usize> {
    let mut before = 0;
    for range in owned {
        if range.contains(&expert) {
            return Some(before + (expert - range.start) as usize);
        }
        before += range.len();
    }
    None
}
