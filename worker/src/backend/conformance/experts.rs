//! Cases of routing and of the experts.

use std::ops::Range;

use crate::ops::{Activation, ExpertBank, ExpertBiases, GroupScore, Op, PartialList, RouterRule, RowList, Scoring};
use crate::program::{BufferId, BufferKind, Dtype};

use super::cases::{formats, plain};
use super::session::{Case, control};

pub(super) fn all() -> Vec<Case> {
    let rule = RouterRule {
        scoring: Scoring::Softmax,
        top_k: 3,
        groups: 1,
        top_groups: 1,
        group_score: GroupScore::Max,
        normalise: false,
        scale: 1.0,
    };
    let grouped = RouterRule { groups: 4, top_groups: 2, scale: 16.0, ..rule.clone() };
    let v3 = RouterRule {
        scoring: Scoring::Sigmoid,
        group_score: GroupScore::TopTwoSum,
        normalise: true,
        scale: 2.5,
        ..grouped.clone()
    };
    let mut cases = vec![route(&rule, false, 12), route(&grouped, false, 24), route(&v3, true, 24), pack()];
    cases.push(route(&RouterRule { scoring: Scoring::SoftmaxOfChosen, ..rule.clone() }, false, 12));
    cases.push(route(&RouterRule { normalise: true, ..rule }, true, 5));
    for dtype in formats() {
        for (hidden, width) in [(16, 8), (37, 21), (160, 144)] {
            let whole = |cols: usize| cols.next_multiple_of(dtype.block().0);
            let tested = if hidden == 37 { "grouped_down" } else { "grouped_gate_up" };
            let dims = (whole(hidden), whole(width));
            cases.push(grouped_experts(tested, [dtype; 3], dims, Kind::SwiGlu));
            cases.push(grouped_experts(tested, [dtype; 3], dims, Kind::Clamped));
        }
    }
    // As files mix them.
    cases.push(grouped_experts("grouped_gate_up", [Dtype::Q4K, Dtype::Q5K, Dtype::Q6K], (256, 256), Kind::SwiGlu));
    cases.push(grouped_experts("grouped_gate_up", [Dtype::Bf16, Dtype::Q8_0, Dtype::F16], (32, 32), Kind::SwiGlu));
    cases
}

fn route(rule: &RouterRule, biased: bool, experts: usize) -> Case {
    let rows = 9;
    let mut case = Case::new("route", format!("{rule:?} bias {biased} over {experts}"), control(rows));
    let logits = case.input(rows, experts);
    let bias = biased.then(|| case.weight(Dtype::F32, 1, experts));
    let (expert, weight) = (case.output(Dtype::U32, rows, rule.top_k), case.output(Dtype::F32, rows, rule.top_k));
    case.steps.push(Op::Route { logits, bias, rule: rule.clone(), expert, weight });
    case
}

/// Choices of each row: ascending, three of twelve.
pub(super) fn choices(rows: usize) -> Vec<u32> {
    (0..rows as u32).flat_map(|row| [row % 4, 4 + row * 5 % 4, 8 + row * 7 % 4]).collect()
}

/// A list of `kind`; its buffers become outputs when the program writes it.
pub(super) fn row_list(case: &mut Case, rows: usize, top_k: usize, hidden: usize) -> RowList {
    RowList {
        len: case.output(Dtype::U32, 1, 2),
        row: case.output(Dtype::U32, rows, 1),
        pairs: case.output(Dtype::U32, rows, 1),
        expert: case.output(Dtype::U32, rows * top_k, 1),
        weight: case.output(Dtype::F32, rows * top_k, 1),
        activation: case.output(Dtype::F32, rows, hidden),
    }
}

pub(super) fn partial_list(case: &mut Case, rows: usize, top_k: usize, hidden: usize) -> PartialList {
    PartialList {
        len: case.output(Dtype::U32, 1, 2),
        nodes: case.output(Dtype::U32, rows, 1),
        lo: case.output(Dtype::U32, rows * top_k, 1),
        hi: case.output(Dtype::U32, rows * top_k, 1),
        sum: case.output(Dtype::F32, rows * top_k, hidden),
    }
}

/// Packs the rows of `choices` that go to `owned`.
pub(super) fn packed(case: &mut Case, owned: &[Range<u32>], hidden: usize) -> (RowList, [BufferId; 3]) {
    let rows = case.control.rows;
    let (input, expert) = (case.input(rows, hidden), case.ids(3, &choices(rows)));
    let weight = case.input(rows, 3);
    let out = row_list(case, rows, 3, hidden);
    case.steps.push(Op::PackRows { input, expert, weight, owned: owned.to_vec(), out });
    case.row_wise = false;
    (out, [input, expert, weight])
}

fn pack() -> Case {
    let mut case = Case::new("pack_rows", "some rows left out".into(), control(9));
    case.control.kv_slots[2] = -1;
    packed(&mut case, &[1..3, 5..6], 7);
    case
}

/// What experts do between their matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SwiGlu,
    /// Clamped at the RMS of the sums, whatever the format's noise makes of them, and with biases. Under a limit far below, what
    /// rounding leaves of a sum of large terms is all that a result not clamped consists of: F32 then misses the tolerance
    /// as every format does.
    Clamped,
}

/// Clamps that the product of `rows` drawn in (−1, 1) with a matrix meets now and then.
fn clamped(case: &Case, matrix: BufferId, cols: usize) -> Activation {
    let twin = case.decoded();
    let numbers = twin.buffer(matrix).bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let (count, squares) = numbers.fold((0, 0.0), |(count, sum), x| (count + 1, sum + f64::from(x).powi(2)));
    let limit = (squares / f64::from(count) * cols as f64 / 3.0).sqrt() as f32;
    Activation::Clamped { alpha: 3.4 / limit, limit }
}

/// Pack, gate and up, down, partial sums and their combination, all owned here.
fn grouped_experts(tested: &'static str, dtypes: [Dtype; 3], (hidden, width): (usize, usize), kind: Kind) -> Case {
    let rows = 9;
    let mut case = Case::new(tested, format!("{dtypes:?} {rows}×{hidden}×{width} {kind:?}"), control(rows));
    let owned = vec![0..7, 7..12];
    let (list, _) = packed(&mut case, &owned, hidden);
    let gate = case.stack(dtypes[0], width, (12 * width, hidden));
    let up = case.stack(dtypes[1], width, (12 * width, hidden));
    let down = case.stack(dtypes[2], hidden, (12 * hidden, width));
    let plain = plain(dtypes[0]);
    let mut bias = |cols| case.weight(plain, 12, cols);
    let biases =
        (kind == Kind::Clamped).then(|| ExpertBiases { gate: bias(width), up: bias(width), down: bias(hidden) });
    let activation = if kind == Kind::Clamped { clamped(&case, gate, hidden) } else { Activation::SwiGlu };
    let bank = ExpertBank { owned: owned.clone(), gate, up, down, width, activation, biases };
    let middle = case.output(Dtype::F32, rows * 3, width);
    let terms = case.declare(BufferKind::PortOut, Dtype::F32, (rows * 3, hidden), Vec::new());
    let partials = partial_list(&mut case, rows, 3, hidden);
    let out = case.output(Dtype::F32, rows, hidden);
    case.steps.push(Op::GroupedGateUp { list, bank: bank.clone(), out: middle });
    case.steps.push(Op::GroupedDown { list, bank, input: middle, out: terms });
    case.steps.push(Op::TreePartials { list, terms, owned, experts: 12, out: partials });
    case.steps.push(Op::TreeCombine { parts: vec![(list, partials)], experts: 12, out });
    case
}
