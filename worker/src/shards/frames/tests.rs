//! Frames cut and judged on small shapes.

use pretty_assertions::assert_eq;

use super::*;

const SHAPE: Shape = Shape { hidden: 2, top_k: 3, experts: 8, layers: 2, rows: 2 };

fn owned() -> Vec<Range<u32>> {
    std::iter::once(0..6).collect()
}

fn batch() -> RowBatch {
    RowBatch {
        row: vec![1, 4, 5],
        pairs: vec![2, 1, 3],
        expert: vec![0, 5, 3, 0, 1, 4],
        weight: vec![0.5, 0.25, 1.0, 0.1, 0.2, 0.3],
        activation: (0..24).collect::<Vec<u8>>().into(),
    }
}

fn label() -> Label {
    Label { step: 9, layer: 1, sequence: 40 }
}

#[test]
fn a_batch_is_cut_by_rows_and_its_answers_are_known_beforehand() {
    let requests = cut(&batch(), &SHAPE, &owned(), label());
    let rows =
        |sequence, last| Rows { step: 9, layer: 1, sequence, last, activation_dtype: "f32".into(), ..Rows::default() };
    let first = Request {
        rows: Rows {
            row: vec![1, 4],
            pairs: vec![2, 1],
            expert: vec![0, 5, 3],
            weight: vec![0.5, 0.25, 1.0],
            activation: (0..16).collect::<Vec<u8>>().into(),
            ..rows(40, false)
        },
        nodes: vec![2, 1],
        bounds: vec![(0, 4), (4, 6), (0, 4)],
    };
    let second = Request {
        rows: Rows {
            row: vec![5],
            pairs: vec![3],
            expert: vec![0, 1, 4],
            weight: vec![0.1, 0.2, 0.3],
            activation: (16..24).collect::<Vec<u8>>().into(),
            ..rows(41, true)
        },
        nodes: vec![2],
        bounds: vec![(0, 4), (4, 6)],
    };
    assert_eq!(requests, [first, second]);
}

#[test]
fn an_answer_that_would_exceed_a_frame_cuts_the_request() {
    let wide = Shape { hidden: 40_000, top_k: 3, experts: 8, layers: 1, rows: 9 };
    let rows = 8_usize;
    let batch = RowBatch {
        row: (0..8).collect(),
        pairs: vec![3; rows],
        expert: [1, 2, 4].repeat(rows),
        weight: vec![1.0; rows * 3],
        activation: vec![0; rows * 160_000].into(),
    };
    let scattered = [1..2, 2..3, 4..5];
    let requests = cut(&batch, &wide, &scattered, label());
    assert_eq!(requests.iter().map(|r| r.rows.row.len()).collect::<Vec<_>>(), [2, 2, 2, 2]);
    assert!(requests.iter().all(|r| r.bounds.len() * 160_000 <= FRAME_BYTES));
}

#[test]
fn rows_that_lie_about_themselves_are_refused() {
    let good = cut(&batch(), &SHAPE, &owned(), label()).swap_remove(0).rows;
    assert_eq!(check_rows(&good, &SHAPE, &owned()), Ok(()));
    type Spoil = fn(&mut Rows);
    let cases: [(Spoil, &str); 10] = [
        (|r| r.activation_dtype = "f16".into(), "activation_dtype \"f16\" is not f32"),
        (|r| r.layer = 2, "layer 2 is not below 2"),
        (|r| r.row.clear(), "0 rows with 2 pair counts; 1 to 2 are allowed"),
        (|r| r.row = vec![4, 1], "the row indices do not ascend"),
        (|r| r.pairs = vec![u32::MAX, 4], "4294967299 pairs with 3 experts and 3 weights"),
        (|r| r.weight.truncate(2), "3 pairs with 3 experts and 2 weights"),
        (|r| r.activation = Bytes::new(), "0 bytes of activation for 2 rows of 8"),
        (|r| r.pairs = vec![0, 3], "a row chose []; 1 to 3 ascending ids are allowed"),
        (|r| r.expert = vec![5, 0, 3], "a row chose [5, 0]; 1 to 3 ascending ids are allowed"),
        (|r| r.expert = vec![0, 6, 3], "expert 6 is not among [0..6]"),
    ];
    for (spoil, expected) in cases {
        let mut rows = good.clone();
        spoil(&mut rows);
        assert_eq!(check_rows(&rows, &SHAPE, &owned()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn sums_of_another_step_or_of_other_nodes_are_refused() {
    let request = cut(&batch(), &SHAPE, &owned(), label()).swap_remove(0);
    let good = Partials {
        step: 9,
        layer: 1,
        sequence: 40,
        nodes: vec![2, 1],
        lo: vec![0, 4, 0],
        hi: vec![4, 6, 4],
        sum: vec![0; 24].into(),
    };
    assert_eq!(check_partials(&good, &request, &SHAPE), Ok(()));
    let text = |partials: Partials| check_partials(&partials, &request, &SHAPE).unwrap_err().to_string();
    let nodes = "the tree nodes are not those that the rows hit";
    assert_eq!(text(Partials { step: 8, ..good.clone() }), "sums of step 8 layer 1 answer step 9 layer 1");
    assert_eq!(text(Partials { nodes: vec![1, 2], ..good.clone() }), nodes);
    assert_eq!(text(Partials { lo: vec![0, 4, 4], ..good.clone() }), nodes);
    assert_eq!(text(Partials { hi: vec![4, 6], ..good.clone() }), nodes);
    assert_eq!(text(Partials { sum: vec![0; 23].into(), ..good }), "23 bytes of sums where 24 are due");
}
