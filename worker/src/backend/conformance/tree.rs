//! The routed sum has the same bits for every split of the experts.

use std::ops::Range;

use proptest::prelude::*;

use crate::backend::Backend;
use crate::backend::cpu::Level;
use crate::ops::{Activation, Op};
use crate::program::{BufferId, BufferKind, Dtype};

use super::cpu;
use super::experts::{partial_list, row_list};
use super::session::{Case, Session, control};

const HIDDEN: usize = 5;

/// The ranges of experts that `owner` holds.
fn ranges(owners: &[usize], owner: usize) -> Vec<Range<u32>> {
    let own = (0..owners.len() as u32).filter(|&expert| owners[expert as usize] == owner);
    own.map(|expert| expert..expert + 1).collect()
}

/// One row per set of choices; each owner packs, makes terms by a copying expert, and sums; then all are combined.
fn routed_sum(owners: &[usize], choices: &[Vec<u32>], scales: &[f32]) -> Vec<f64> {
    let (rows, top_k, experts) = (choices.len(), choices[0].len(), owners.len() as u32);
    let mut case = Case::new("tree_combine", format!("{owners:?}"), control(rows));
    case.row_wise = false;
    let input = case.input(rows, HIDDEN);
    let expert = case.ids(top_k, &choices.concat());
    let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let weight = case.declare(BufferKind::PortIn, Dtype::F32, (rows, top_k), bytes);
    let mut parts = Vec::new();
    for owner in 0..=owners.iter().copied().max().unwrap_or(0) {
        let owned = ranges(owners, owner);
        let list = row_list(&mut case, rows, top_k, HIDDEN);
        let partials = partial_list(&mut case, rows, top_k, HIDDEN);
        case.steps.push(Op::PackRows { input, expert, weight, owned: owned.clone(), out: list });
        let terms = terms(&mut case, &owned, &list, rows * top_k);
        case.steps.push(Op::TreePartials { list, terms, owned, experts, out: partials });
        parts.push((list, partials));
    }
    case.outputs.clear();
    let out = case.output(Dtype::F32, rows, HIDDEN);
    case.steps.push(Op::TreeCombine { parts, experts, out });
    let backend = cpu(1, Level::detect());
    let (outputs, _) = Session::new(&case, &backend as &dyn Backend).run(0..rows);
    outputs.numbers(&case, 0)
}

/// weight · (down_e · middle), where every expert has the same down and another middle by its own gate.
fn terms(case: &mut Case, owned: &[Range<u32>], list: &crate::ops::RowList, pairs: usize) -> BufferId {
    let weights = |rows: usize, cols: usize, of: &dyn Fn(u32, usize, usize) -> f32| -> Vec<u8> {
        let one = |expert: u32| (0..rows * cols).map(move |i| of(expert, i / cols, i % cols));
        owned.iter().flat_map(|range| one(range.start)).flat_map(f32::to_le_bytes).collect()
    };
    let value =
        |expert: u32, row: usize, col: usize| ((expert as usize * 31 + row * 7 + col * 3) % 23) as f32 * 0.1 - 1.0;
    let count = owned.len();
    let matrix = weights(HIDDEN, HIDDEN, &value);
    let shape = (count * HIDDEN, HIDDEN);
    let [gate, up, down] = [0; 3].map(|_| case.declare(BufferKind::Weight, Dtype::F32, shape, matrix.clone()));
    let bank = crate::ops::ExpertBank {
        owned: owned.to_vec(),
        gate,
        up,
        down,
        width: HIDDEN,
        activation: Activation::SwiGlu,
        biases: None,
    };
    let [middle, terms] = [0; 2].map(|_| case.declare(BufferKind::Scratch, Dtype::F32, (pairs, HIDDEN), Vec::new()));
    case.steps.push(Op::GroupedGateUp { list: *list, bank: bank.clone(), out: middle });
    case.steps.push(Op::GroupedDown { list: *list, bank, input: middle, out: terms });
    terms
}

fn splits() -> impl Strategy<Value = (Vec<usize>, Vec<Vec<u32>>, Vec<f32>)> {
    (1_usize..40, 1_usize..5, 1_usize..6).prop_flat_map(|(experts, owners, rows)| {
        let top_k = experts.min(6);
        let ids: Vec<u32> = (0..experts as u32).collect();
        (
            prop::collection::vec(0..owners, experts),
            prop::collection::vec(prop::sample::subsequence(ids, top_k), rows),
            prop::collection::vec(0.01_f32..3.0, rows * top_k),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_routed_sum_has_the_same_bits_for_every_split((owners, choices, scales) in splits()) {
        let single = vec![0; owners.len()];
        prop_assert_eq!(routed_sum(&single, &choices, &scales), routed_sum(&owners, &choices, &scales));
    }
}

#[test]
fn an_aligned_split_returns_one_sum_a_row() {
    let aligned: Vec<usize> = (0..8).map(|expert| expert / 4).collect();
    let uneven = vec![0, 1, 1, 1, 0, 0, 0, 0];
    let choices = vec![vec![0, 3, 4, 7], vec![1, 2, 5, 6]];
    let scales = vec![0.3, 0.7, 1.1, 0.2, 0.9, 0.4, 1.3, 0.6];
    let whole = routed_sum(&[0; 8], &choices, &scales);
    assert_eq!(routed_sum(&aligned, &choices, &scales), whole);
    assert_eq!(routed_sum(&uneven, &choices, &scales), whole);
    assert!(whole.iter().any(|value| *value != 0.0));
}
