//! Several plans in flight.

use std::collections::VecDeque;

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;

/// The next plans until there is none.
fn fill(scheduler: &mut Scheduler, now: Instant, flying: &mut VecDeque<StepPlan>) {
    loop {
        let plan = scheduler.schedule(now);
        if plan.chunks.is_empty() {
            return;
        }
        flying.push_back(plan);
    }
}

fn sizes(flying: &VecDeque<StepPlan>) -> Vec<usize> {
    flying.iter().map(|plan| plan.chunks.len()).collect()
}

#[test]
fn sequences_are_divided_among_the_plans_and_those_that_end_leave_even_plans_behind() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 5, blocks: 16, depth: 4, ..limits() });
    for id in 0..5 {
        scheduler.submit(request(id, 1, 4), now).unwrap();
    }
    let mut flying = VecDeque::new();
    fill(&mut scheduler, now, &mut flying);
    assert_eq!(sizes(&flying), [2, 1, 1, 1]);
    assert_eq!(scheduler.schedule(now), StepPlan::default());
    let first = flying.pop_front().unwrap();
    scheduler.commit(first.step, &[ChunkResult::Fault, results(&first)[1]]);
    fill(&mut scheduler, now, &mut flying);
    assert_eq!(sizes(&flying), [1, 1, 1, 1]);
}

#[test]
fn a_deadline_and_a_cancel_in_flight_wait_for_the_commit() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { depth: 2, ..limits() });
    let late = now + Duration::from_secs(1);
    scheduler.submit(Admission { deadline: Some(late), ..request(1, 1, 4) }, now).unwrap();
    scheduler.submit(request(2, 1, 4), now).unwrap();
    let (first, second) = (scheduler.schedule(now), scheduler.schedule(now));
    assert_eq!(scheduler.cancel(RequestId(2)), None);
    assert_eq!(scheduler.schedule(late), StepPlan::default());
    assert_eq!(scheduler.load().blocks, 2);
    let over = |id, end| Ended { id: RequestId(id), end };
    assert_eq!(scheduler.commit(first.step, &results(&first)), [over(1, End::DeadlinePassed)]);
    assert_eq!(scheduler.commit(second.step, &results(&second)), [over(2, End::Cancelled)]);
    assert_eq!(scheduler.load(), Load::default());
}

#[test]
fn who_needs_a_block_waits_until_the_newer_one_in_flight_can_be_put_back() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { blocks: 3, depth: 2, ..limits() });
    scheduler.submit(request(1, 4, 4), now).unwrap();
    scheduler.submit(request(2, 4, 4), now).unwrap();
    let (first, second) = (scheduler.schedule(now), scheduler.schedule(now));
    let ids = |plan: &StepPlan| plan.chunks.iter().map(|chunk| chunk.id.0).collect::<Vec<_>>();
    assert_eq!((ids(&first), ids(&second)), (vec![1], vec![2]));
    scheduler.commit(second.step, &results(&second));
    let third = scheduler.schedule(now);
    assert_eq!((ids(&third), third.chunks[0].blocks.len()), (vec![2], 2));
    scheduler.commit(first.step, &results(&first));
    let waiting = scheduler.schedule(now);
    assert_eq!((ids(&waiting), waiting.preempted), (vec![], vec![]));
    scheduler.commit(third.step, &results(&third));
    let last = scheduler.schedule(now);
    assert_eq!((ids(&last), last.preempted), (vec![1], vec![RequestId(2)]));
}

proptest! {
    /// As many plans are in flight as may be, or one a sequence where there are fewer, and nobody is left out for long.
    #[test]
    fn with_as_many_sequences_as_plans_every_plan_has_one(sequences in 1..17_usize, depth in 1..9_usize) {
        let now = Instant::now();
        let blocks = u32::try_from(sequences * 8).unwrap();
        let limits = Limits { running: 16, waiting: 16, step_tokens: 64, step_samples: 16, blocks, block_tokens: 4, depth };
        let mut scheduler = Scheduler::new(limits);
        for id in 0..sequences as u64 {
            scheduler.submit(request(id, 3, 20), now).unwrap();
        }
        let mut flying = VecDeque::new();
        for _ in 0..2 * depth {
            fill(&mut scheduler, now, &mut flying);
            prop_assert_eq!(flying.len(), depth.min(sequences));
            prop_assert_eq!(sizes(&flying).iter().sum::<usize>(), sequences);
            prop_assert!(sizes(&flying).iter().all(|&size| size <= sequences.div_ceil(depth)));
            let first = flying.pop_front().unwrap();
            scheduler.commit(first.step, &results(&first));
        }
    }
}
