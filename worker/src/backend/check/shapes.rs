//! The shapes of every op, as its doc comment states them.

use std::ops::Range;

use super::{Access, Checker};
use crate::backend::{BackendError, KV_BLOCK};
use crate::ops::{Activation, ExpertBank, Op, PartialList, RouterRule, RowList};
use crate::program::{BufferId, BufferKind, Dtype, View};

use Access::{Read, Update, Write};

type Checking = Result<(), BackendError>;

impl Checker<'_> {
    pub(super) fn shapes(&mut self, op: &Op) -> Checking {
        match op {
            Op::Embed { table, samples, out } => self.embed(*table, *samples, *out),
            Op::RmsNorm { input, weight, out, .. } => {
                self.weight(*weight, 1, input.width)?;
                self.elementwise(&[*input], *out, out.groups)
            }
            Op::Linear { input, weight, bias, out } => {
                self.weight(*weight, out.width, input.width)?;
                if let Some(bias) = bias {
                    self.plain(*bias, 1, out.width)?;
                }
                self.view(*input, (self.rows(), 1, input.width), Read)?;
                self.view(*out, (self.rows(), 1, out.width), Write).map(drop)
            }
            Op::PerHeadMatmul { .. } => self.per_head(op),
            Op::Rope { target, table } => {
                let width = 2 * table.inv_freq.len();
                self.view(*target, (self.rows(), target.groups, width), Update).map(drop)
            }
            Op::Clamp { target, limit } => {
                if limit.is_nan() || *limit < 0.0 {
                    return self.misuse(format!("limit is {limit}; 0 or more is allowed"));
                }
                self.view(*target, (self.rows(), 1, target.width), Update).map(drop)
            }
            Op::AppendKv { first, second, cache } => {
                self.view(*first, (self.rows(), 1, first.width), Read)?;
                self.view(*second, (self.rows(), 1, second.width), Read)?;
                self.cache(*cache, first.width + second.width, Write)
            }
            Op::AttendMla { q_latent, q_rope, cache, out, .. } => {
                let heads = q_latent.groups;
                self.view(*q_latent, (self.rows(), heads, q_latent.width), Read)?;
                self.view(*q_rope, (self.rows(), heads, q_rope.width), Read)?;
                self.cache(*cache, q_latent.width + q_rope.width, Read)?;
                self.view(*out, (self.rows(), heads, q_latent.width), Write).map(drop)
            }
            Op::AttendGqa { .. } => self.attend_gqa(op),
            Op::SwiGlu { gate, up, out } => self.elementwise(&[*gate, *up], *out, 1),
            Op::Add { a, b, out } => {
                let cols = self.declaration(*out)?.cols;
                self.elementwise(
                    &[View::columns(*a, 0, cols), View::columns(*b, 0, cols)],
                    View::columns(*out, 0, cols),
                    1,
                )
            }
            _ => self.expert_shapes(op),
        }
    }

    fn expert_shapes(&mut self, op: &Op) -> Checking {
        match op {
            Op::Route { logits, bias, rule, expert, weight } => {
                let experts = self.declaration(*logits)?.cols;
                self.rule(rule, experts)?;
                self.table(*logits, Dtype::F32, (self.rows(), experts), Read)?;
                if let Some(bias) = bias {
                    self.table(*bias, Dtype::F32, (1, experts), Read)?;
                }
                self.table(*expert, Dtype::U32, (self.rows(), rule.top_k), Write)?;
                self.table(*weight, Dtype::F32, (self.rows(), rule.top_k), Write).map(drop)
            }
            Op::PackRows { input, expert, weight, owned, out } => {
                self.owned(owned)?;
                let (hidden, top_k) = (self.declaration(*input)?.cols, self.declaration(*expert)?.cols);
                self.table(*input, Dtype::F32, (self.rows(), hidden), Read)?;
                self.table(*expert, Dtype::U32, (self.rows(), top_k), Read)?;
                self.table(*weight, Dtype::F32, (self.rows(), top_k), Read)?;
                self.row_list(out, hidden, Write)
            }
            Op::GroupedGateUp { list, bank, out } => {
                let hidden = self.bank(bank, list)?;
                self.weight(bank.gate, owned_count(&bank.owned) * bank.width, hidden)?;
                self.weight(bank.up, owned_count(&bank.owned) * bank.width, hidden)?;
                if let Activation::Clamped { alpha, limit } = bank.activation
                    && !(alpha.is_finite() && limit >= 0.0)
                {
                    return self.misuse(format!("{:?} has no meaning", bank.activation));
                }
                if let Some(biases) = &bank.biases {
                    self.plain(biases.gate, owned_count(&bank.owned), bank.width)?;
                    self.plain(biases.up, owned_count(&bank.owned), bank.width)?;
                }
                let pairs = self.declaration(list.expert)?.rows;
                self.table(*out, Dtype::F32, (pairs, bank.width), Write).map(drop)
            }
            Op::GroupedDown { list, bank, input, out } => {
                let hidden = self.bank(bank, list)?;
                self.weight(bank.down, owned_count(&bank.owned) * hidden, bank.width)?;
                if let Some(biases) = &bank.biases {
                    self.plain(biases.down, owned_count(&bank.owned), hidden)?;
                }
                let pairs = self.declaration(list.expert)?.rows;
                self.table(*input, Dtype::F32, (pairs, bank.width), Read)?;
                self.table(*out, Dtype::F32, (pairs, hidden), Write).map(drop)
            }
            Op::TreePartials { list, terms, owned, experts, out } => {
                self.owned(owned)?;
                if owned.last().is_some_and(|last| last.end > *experts) {
                    return self.misuse(format!("owned experts {owned:?} are not among {experts}"));
                }
                let hidden = self.declaration(list.activation)?.cols;
                self.row_list(list, hidden, Read)?;
                let pairs = self.declaration(list.expert)?.rows;
                self.table(*terms, Dtype::F32, (pairs, hidden), Read)?;
                self.partial_list(out, hidden, Write)
            }
            Op::TreeCombine { parts, out, .. } => {
                let hidden = self.declaration(*out)?.cols;
                for (rows, partials) in parts {
                    self.row_list(rows, hidden, Read)?;
                    self.partial_list(partials, hidden, Read)?;
                }
                self.table(*out, Dtype::F32, (self.rows(), hidden), Write).map(drop)
            }
            _ => self.head_shapes(op),
        }
    }

    fn head_shapes(&mut self, op: &Op) -> Checking {
        let samples = self.samples();
        match op {
            Op::GatherSamples { input, out } => {
                let hidden = self.declaration(*out)?.cols;
                self.table(*input, Dtype::F32, (self.rows(), hidden), Read)?;
                self.table(*out, Dtype::F32, (samples, hidden), Write).map(drop)
            }
            Op::Logits { input, norm, head, normed, out, .. } => {
                let (hidden, vocabulary) = (self.declaration(*input)?.cols, self.declaration(*out)?.cols);
                self.table(*input, Dtype::F32, (samples, hidden), Read)?;
                self.weight(*norm, 1, hidden)?;
                self.weight(*head, vocabulary, hidden)?;
                self.table(*normed, Dtype::F32, (samples, hidden), Write)?;
                self.table(*out, Dtype::F32, (samples, vocabulary), Write).map(drop)
            }
            Op::Sample { logits, samples: chosen } => {
                let vocabulary = self.declaration(*logits)?.cols;
                self.table(*logits, Dtype::F32, (samples, vocabulary), Read)?;
                self.table(*chosen, Dtype::U32, (samples, 1), Write).map(drop)
            }
            Op::FiniteCheck { input } => {
                let cols = self.declaration(*input)?.cols;
                self.table(*input, Dtype::F32, (self.rows(), cols), Read).map(drop)
            }
            Op::FiniteCheckSamples { input } => {
                let cols = self.declaration(*input)?.cols;
                self.table(*input, Dtype::F32, (samples, cols), Read).map(drop)
            }
            other => self.misuse(format!("{} has no declared shapes", other.name())),
        }
    }

    fn embed(&mut self, table: BufferId, samples: BufferId, out: BufferId) -> Checking {
        let hidden = self.declaration(out)?.cols;
        let vocabulary = self.weight(table, 1, hidden)?.rows;
        let sampled = self.declaration(samples)?.rows;
        self.table(samples, Dtype::U32, (sampled, 1), Read)?;
        self.table(out, Dtype::F32, (self.rows(), hidden), Write)?;
        let bounds = &mut self.checked.bounds;
        bounds.vocabulary = Some(bounds.vocabulary.map_or(vocabulary, |least| least.min(vocabulary)));
        bounds.sampled = Some(bounds.sampled.map_or(sampled, |least| least.min(sampled)));
        Ok(())
    }

    /// `groups` runs in, as many of the same width out, which may be an input's.
    fn elementwise(&mut self, inputs: &[View], out: View, groups: usize) -> Checking {
        let rows = self.rows();
        let in_place = inputs.iter().any(|input| input.buffer == out.buffer);
        for input in inputs {
            let access = if input.buffer == out.buffer { Update } else { Read };
            self.view(*input, (rows, groups, out.width), access)?;
        }
        self.view(out, (rows, groups, out.width), if in_place { Update } else { Write }).map(drop)
    }

    fn attend_gqa(&mut self, op: &Op) -> Checking {
        let Op::AttendGqa { query, cache, kv_heads, window, sinks, out, .. } = op else {
            return Ok(());
        };
        let heads = query.groups;
        if *kv_heads == 0 || !heads.is_multiple_of(*kv_heads) || *window == Some(0) {
            return self.misuse(format!("{heads} heads cannot read {kv_heads} key heads through {window:?} keys"));
        }
        self.cache(*cache, 2 * kv_heads * query.width, Read)?;
        if let Some(sinks) = sinks {
            self.plain(*sinks, 1, heads)?;
        }
        self.view(*query, (self.rows(), heads, query.width), Read)?;
        self.view(*out, (self.rows(), heads, query.width), Write).map(drop)
    }

    fn per_head(&mut self, op: &Op) -> Checking {
        let Op::PerHeadMatmul { input, weight, rows_per_head, first_row, rows, transposed, out } = op else {
            return Ok(());
        };
        let (from, to) = if *transposed { (*rows, out.width) } else { (input.width, *rows) };
        let k = if *transposed { out.width } else { input.width };
        if first_row + rows > *rows_per_head {
            return self.misuse(format!("rows {first_row} + {rows} are not among the {rows_per_head} of a head"));
        }
        self.weight(*weight, input.groups * rows_per_head, k)?;
        self.view(*input, (self.rows(), input.groups, from), Read)?;
        self.view(*out, (self.rows(), input.groups, to), Write).map(drop)
    }

    fn cache(&mut self, cache: BufferId, width: usize, access: Access) -> Checking {
        let decl = self.touch(cache, access)?;
        self.refuse(decl.dtype)?;
        if decl.kind != BufferKind::Kv || decl.cols != width || decl.rows % KV_BLOCK != 0 {
            let is = (decl.kind, decl.rows, decl.cols);
            return self.misuse(format!("{} is {is:?}; needed: a cache of whole blocks × {width}", decl.name));
        }
        let bounds = &mut self.checked.bounds;
        bounds.slots = Some(bounds.slots.map_or(decl.rows, |least| least.min(decl.rows)));
        Ok(())
    }

    fn rule(&self, rule: &RouterRule, experts: usize) -> Checking {
        let divides = rule.groups > 0 && experts > 0 && experts.is_multiple_of(rule.groups);
        let enough =
            divides && rule.top_groups <= rule.groups && rule.top_groups * (experts / rule.groups) >= rule.top_k;
        if !enough || rule.top_k == 0 || u32::try_from(experts).is_err() {
            return self.misuse(format!("{rule:?} cannot choose among {experts} experts"));
        }
        Ok(())
    }

    fn owned(&self, owned: &[Range<u32>]) -> Checking {
        let sound = owned.iter().all(|r| r.start < r.end) && owned.windows(2).all(|two| two[0].end <= two[1].start);
        if sound { Ok(()) } else { self.misuse(format!("owned experts {owned:?} are not ascending and disjoint")) }
    }

    /// The hidden width.
    fn bank(&mut self, bank: &ExpertBank, list: &RowList) -> Result<usize, BackendError> {
        self.owned(&bank.owned)?;
        let hidden = self.declaration(list.activation)?.cols;
        self.row_list(list, hidden, Read)?;
        Ok(hidden)
    }

    fn row_list(&mut self, list: &RowList, hidden: usize, access: Access) -> Checking {
        let capacity = self.declaration(list.row)?.rows;
        let pairs = self.declaration(list.expert)?.rows;
        self.table(list.len, Dtype::U32, (1, 2), access)?;
        self.table(list.row, Dtype::U32, (capacity, 1), access)?;
        self.table(list.pairs, Dtype::U32, (capacity, 1), access)?;
        self.table(list.expert, Dtype::U32, (capacity, 1), access)?;
        self.table(list.weight, Dtype::F32, (pairs, 1), access)?;
        self.table(list.activation, Dtype::F32, (capacity, hidden), access).map(drop)
    }

    fn partial_list(&mut self, list: &PartialList, hidden: usize, access: Access) -> Checking {
        let capacity = self.declaration(list.nodes)?.rows;
        let nodes = self.declaration(list.lo)?.rows;
        self.table(list.len, Dtype::U32, (1, 2), access)?;
        self.table(list.nodes, Dtype::U32, (capacity, 1), access)?;
        self.table(list.lo, Dtype::U32, (capacity, 1), access)?;
        self.table(list.hi, Dtype::U32, (nodes, 1), access)?;
        self.table(list.sum, Dtype::F32, (nodes, hidden), access).map(drop)
    }
}

fn owned_count(owned: &[Range<u32>]) -> usize {
    owned.iter().map(|range| (range.end - range.start) as usize).sum()
}
