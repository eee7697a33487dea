//! One list of cases, run on every backend at every level, against the oracle: values within the tolerance beside the
//! op, and the law that a row's bits depend on that row alone.

mod cases;
mod experts;
mod fixtures;
mod referee;
mod refusals;
mod session;
mod strict;
mod tree;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;

use super::cpu::{CpuBackend, CpuOptions, Level};
use super::{Backend, Report};
use crate::ops::Op;
use crate::oracle;

use session::{Case, Outputs, Session};

fn cpu(threads: usize, level: Level) -> CpuBackend {
    let threads = NonZeroUsize::new(threads).unwrap();
    CpuBackend::new(CpuOptions { threads, level: Some(level) }).unwrap()
}

fn levels() -> Vec<Level> {
    let (here, missing): (Vec<_>, Vec<_>) = Level::ALL.into_iter().partition(|level| level.is_available());
    for level in missing {
        eprintln!("skipped: level {level}: this CPU lacks it");
    }
    here
}

fn all_cases() -> Vec<Case> {
    [cases::all(), experts::all()].concat()
}

fn run_whole(case: &Case, backend: &dyn Backend) -> (Outputs, Report) {
    let rows = 0..case.control.rows;
    Session::new(case, backend).run(rows)
}

/// What the oracle says, as bytes of each output's dtype would decode.
fn expected(case: &Case) -> (Vec<Vec<f64>>, Report) {
    let mut memory = oracle::Memory::default();
    for (id, buffer) in case.numbered() {
        memory.alloc(id, &buffer.decl);
        memory.load(id, &buffer.bytes);
    }
    let report = oracle::run(&case.program(), &mut memory, &case.control);
    (case.outputs.iter().map(|&id| memory.values(id).to_vec()).collect(), report)
}

fn assert_close(case: &Case, level: Level) {
    let (outputs, report) = run_whole(case, &cpu(1, level));
    let (values, meant) = expected(case);
    let tolerance = case.steps.iter().map(Op::tolerance).fold(0.0, f64::max);
    for (index, values) in values.iter().enumerate() {
        let largest = values.iter().fold(1e-30_f64, |largest, value| largest.max(value.abs()));
        let ours = outputs.numbers(case, index);
        for (at, (ours, value)) in ours.iter().zip(values).enumerate() {
            let off = (ours - value).abs() / largest;
            assert!(off <= tolerance, "{} at {level}: output {index}[{at}] is {ours}, not {value}", case.name);
        }
    }
    let summary = |report: Report| {
        let ids: Vec<_> = report.samples.iter().map(|sample| sample.as_ref().map(|token| token.id)).collect();
        (ids, report.non_finite, (report.expert_pairs, report.experts_read))
    };
    assert_eq!(summary(report), summary(meant), "{}", case.name);
}

#[test]
fn every_op_and_format_at_every_level_means_what_the_oracle_says() {
    for level in levels() {
        for case in all_cases() {
            assert_close(&case, level);
        }
    }
}

#[test]
fn levels_and_threads_give_the_same_bits() {
    for case in all_cases() {
        let reference = run_whole(&case, &cpu(1, Level::Scalar));
        for level in levels() {
            for threads in [1, 2, 5] {
                let other = run_whole(&case, &cpu(threads, level));
                assert!(reference == other, "{} at {level} on {threads} threads", case.name);
            }
        }
    }
}

#[test]
fn the_bits_of_a_row_depend_on_neither_chunks_nor_neighbours() {
    for case in all_cases().into_iter().filter(|case| case.row_wise) {
        let rows = case.control.rows;
        let whole = run_whole(&case, &cpu(2, Level::detect())).0;
        for chunk in [1, 3, 7] {
            let backend = cpu(2, Level::detect());
            let mut session = Session::new(&case, &backend);
            let starts = (0..rows).step_by(chunk);
            let pieces: Vec<(Range<usize>, Outputs)> = starts
                .map(|start| start..rows.min(start + chunk))
                .map(|range| (range.clone(), session.run(range).0))
                .collect();
            for (range, piece) in pieces {
                assert!(
                    whole.rows(&case, range.clone()) == piece.rows(&case, 0..range.len()),
                    "{} {range:?}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn encoded_weights_give_the_bits_of_the_f32_numbers_that_they_stand_for() {
    let encoded = |case: &Case| case.formats().any(|dtype| dtype.block().1 != 4);
    for case in all_cases().into_iter().filter(encoded) {
        let twin = case.decoded();
        for level in levels() {
            let (ours, meant) = (run_whole(&case, &cpu(2, level)), run_whole(&twin, &cpu(2, level)));
            assert!(ours == meant, "{} at {level}", case.name);
        }
    }
}

#[test]
fn no_op_and_no_weight_format_goes_without_a_case() {
    let covered: BTreeSet<&str> = all_cases().iter().flat_map(|case| case.steps.iter().map(Op::name)).collect();
    assert_eq!(covered, BTreeSet::from(Op::NAMES));
    let formats: BTreeSet<(String, &str)> = all_cases()
        .iter()
        .flat_map(|case| case.formats().map(|dtype| (format!("{dtype:?}"), case.tested)).collect::<Vec<_>>())
        .collect();
    for op in ["embed", "rms_norm", "linear", "per_head_matmul", "grouped_gate_up", "grouped_down", "logits"] {
        for dtype in cases::formats() {
            assert!(formats.contains(&(format!("{dtype:?}"), op)), "{op} over {dtype:?}");
        }
    }
}
