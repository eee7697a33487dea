//! The strict backend gives the bits of `cpu`, and says no where a device would show garbage.

use std::num::NonZeroUsize;

use crate::backend::cpu::{CpuOptions, Level};
use crate::backend::strict::{StrictBackend, StrictOptions};
use crate::backend::{Backend, BackendError};
use crate::ops::Op;
use crate::program::{BufferKind, Dtype, Segment, View};

use super::session::{Case, Session, control, load};
use super::{all_cases, cpu, run_whole};

fn strict(seed: u64) -> StrictBackend {
    let cpu = CpuOptions { threads: NonZeroUsize::MIN, level: None };
    StrictBackend::new(StrictOptions { cpu, seed }).unwrap()
}

#[test]
fn whole_runs_have_the_bits_of_cpu() {
    for case in all_cases() {
        assert!(run_whole(&case, &strict(1)) == run_whole(&case, &cpu(1, Level::detect())), "{}", case.name);
    }
}

#[test]
fn runs_padded_to_their_bucket_have_the_bits_of_cpu_in_every_live_row() {
    for case in all_cases().into_iter().filter(|case| case.row_wise) {
        let (rows, chunk) = (case.control.rows, 4);
        let whole = run_whole(&case, &cpu(1, Level::detect())).0;
        let backend = strict(2);
        let mut session = Session::new(&case, &backend);
        for start in (0..rows).step_by(chunk) {
            let range = start..rows.min(start + chunk);
            let piece = session.run(range.clone()).0;
            assert!(whole.rows(&case, range.clone()) == piece.rows(&case, 0..range.len()), "{} {range:?}", case.name);
        }
    }
}

/// A chain of ops long enough to be interleaved.
fn chain(segment: Segment, first: u32) -> Case {
    let (rows, width) = (5, 24);
    let mut case = Case::new("linear", format!("chain {segment:?}"), control(rows));
    (case.segment, case.first) = (segment, first);
    let (mut from, weight) = (case.input(rows, width), case.weight(Dtype::Bf16, width, width));
    let view = |buffer| View::columns(buffer, 0, width);
    for _ in 0..10 {
        let to = case.declare(BufferKind::Scratch, Dtype::F32, (rows, width), Vec::new());
        case.steps.push(Op::Linear { input: view(from), weight, bias: None, out: view(to) });
        from = to;
    }
    let out = case.output(Dtype::F32, rows, width);
    case.steps.push(Op::Add { a: from, b: from, out });
    case
}

#[test]
fn lanes_interleaved_in_any_order_do_not_touch_each_other() {
    let (own, peers) = (chain(Segment::Whole, 0), chain(Segment::Serve(0), 1000));
    let alone = [run_whole(&own, &cpu(1, Level::detect())), run_whole(&peers, &cpu(1, Level::detect()))];
    for seed in 0..30 {
        let backend = strict(seed);
        load(&own, &backend);
        load(&peers, &backend);
        let mut sessions = [Session::of_loaded(&own, &backend), Session::of_loaded(&peers, &backend)];
        let tickets = [sessions[0].submit(0..5), sessions[1].submit(0..5)];
        let [step, expert] = &mut sessions;
        assert!([step.finish(tickets[0]), expert.finish(tickets[1])] == alone, "seed {seed}");
    }
}

#[test]
fn a_port_is_held_until_its_run_is_waited_for() {
    let case = chain(Segment::Whole, 0);
    let backend = strict(3);
    let mut session = Session::new(&case, &backend);
    let ticket = session.submit(0..5);
    let (input, output) = (crate::program::BufferId(0), case.outputs[0]);
    let held = |name: &str| BackendError::Misuse(format!("{name} is touched before run {} was waited for", ticket.0));
    assert_eq!(backend.read_port(output, &mut [0; 4]), Err(held("PortOut 12")));
    assert_eq!(backend.write_port(input, &[0; 4]), Err(held("PortIn 0")));
    session.finish(ticket);
    assert_eq!(backend.write_port(input, &[0; 4]), Ok(()));
    assert_eq!(backend.wait(ticket), Err(BackendError::Misuse(format!("ticket {} is unknown or taken", ticket.0))));
}

#[test]
fn both_lanes_may_not_write_one_buffer_and_weights_are_read_only_after_compile() {
    let case = chain(Segment::Whole, 0);
    let backend = cpu(1, Level::detect());
    Session::new(&case, &backend);
    let served = Case { segment: Segment::Serve(0), ..case.clone() };
    let refused = backend.compile(&served.program()).unwrap_err().to_string();
    assert!(refused.ends_with("is written by segments of both lanes"), "{refused}");
    let weight = crate::program::BufferId(1);
    let late = BackendError::Misuse("Weight 1 is read only since the first compile".into());
    assert_eq!(backend.upload(weight, 0, &[0; 2]), Err(late));
}
