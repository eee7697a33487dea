//! Whole plans for small cases; invariants over random histories; what is shared, and who is put back.

mod depth;
mod fairness;
mod histories;
mod memory;

use std::time::{Duration, Instant};

use pretty_assertions::assert_eq;

use super::*;

fn limits() -> Limits {
    Limits { running: 4, waiting: 8, step_tokens: 8, step_samples: 4, blocks: 8, block_tokens: 4, depth: 1 }
}

fn request(id: u64, prompt: u32, max_tokens: u32) -> Admission {
    // Tokens of their own, so that nothing is shared by chance.
    let prompt = (0..prompt).map(|position| u32::try_from(id).unwrap() * 1000 + position).collect();
    Admission { id: RequestId(id), prompt, max_tokens, priority: 0, tenant: String::new(), deadline: None }
}

/// What is in use, beside what is merely kept.
fn in_use(scheduler: &Scheduler) -> Load {
    Load { idle_blocks: 0, ..scheduler.load() }
}

/// Each step as `id:start+count`, a star where a token is sampled, until nothing is left.
fn run(scheduler: &mut Scheduler, now: Instant) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let plan = scheduler.schedule(now);
        if plan.chunks.is_empty() {
            return lines;
        }
        let show = |c: &Chunk| format!("{}:{}+{}{}", c.id.0, c.start, c.count, if c.sample { "*" } else { "" });
        lines.push(plan.chunks.iter().map(show).collect::<Vec<_>>().join(" "));
        scheduler.commit(plan.step, &results(&plan));
    }
}

fn results(plan: &StepPlan) -> Vec<ChunkResult> {
    let token = |c: &Chunk| u32::try_from(c.id.0).unwrap() * 1000 + c.start + c.count;
    let result =
        |c: &Chunk| if c.sample { ChunkResult::Sampled { token: token(c), eos: false } } else { ChunkResult::Computed };
    plan.chunks.iter().map(result).collect()
}

#[test]
fn a_long_prompt_is_cut_to_the_budget_and_does_not_hold_up_those_who_decode() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(request(1, 2, 5), now).unwrap();
    scheduler.submit(request(2, 15, 2), now).unwrap();
    assert_eq!(
        run(&mut scheduler, now),
        ["1:0+2* 2:0+6", "1:2+1* 2:6+7", "1:3+1* 2:13+2*", "1:4+1* 2:15+1*", "1:5+1*"]
    );
    assert_eq!(in_use(&scheduler), Load::default());
}

#[test]
fn a_budget_smaller_than_the_batch_goes_round() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { step_tokens: 2, ..limits() });
    for id in 0..4 {
        scheduler.submit(request(id, 1, 2), now).unwrap();
    }
    assert_eq!(run(&mut scheduler, now), ["0:0+1* 1:0+1*", "2:0+1* 3:0+1*", "0:1+1* 1:1+1*", "2:1+1* 3:1+1*"]);
}

#[test]
fn without_a_sample_left_a_prompt_is_computed_up_to_its_last_token() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { step_samples: 1, ..limits() });
    scheduler.submit(request(1, 1, 1), now).unwrap();
    scheduler.submit(request(2, 4, 1), now).unwrap();
    assert_eq!(run(&mut scheduler, now), ["1:0+1* 2:0+3", "2:3+1*"]);
}

#[test]
fn higher_priority_enters_first_and_equals_in_order_of_arrival() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 1, ..limits() });
    for (id, priority) in [(1, 0), (2, 5), (3, 5), (4, -1)] {
        scheduler.submit(Admission { priority, ..request(id, 1, 1) }, now).unwrap();
    }
    assert_eq!(run(&mut scheduler, now), ["2:0+1*", "3:0+1*", "1:0+1*", "4:0+1*"]);
}

#[test]
fn a_request_that_cannot_be_served_is_refused_with_its_reason() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { waiting: 1, ..limits() });
    let late = Admission { deadline: Some(now), ..request(1, 1, 1) };
    assert_eq!(scheduler.submit(late, now), Err(Refusal::DeadlinePassed));
    assert_eq!(scheduler.submit(request(2, 30, 3), now), Err(Refusal::TooLarge { needed: 9, total: 8 }));
    assert!(scheduler.submit(request(3, 1, u32::MAX), now).is_err());
    assert_eq!(scheduler.submit(request(4, 1, 1), now), Ok(()));
    assert_eq!(scheduler.submit(request(5, 1, 1), now), Err(Refusal::QueueFull(1)));
}

#[test]
fn a_passed_deadline_ends_waiting_and_running_requests_before_the_step() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 1, ..limits() });
    let deadline = Some(now + Duration::from_secs(1));
    for id in [1, 2] {
        scheduler.submit(Admission { deadline, ..request(id, 1, 9) }, now).unwrap();
    }
    let plan = scheduler.schedule(now);
    scheduler.commit(plan.step, &results(&plan));
    let late = scheduler.schedule(now + Duration::from_secs(1));
    let over = |id| Ended { id: RequestId(id), end: End::DeadlinePassed };
    assert_eq!(late, StepPlan { step: 2, ended: vec![over(2), over(1)], ..StepPlan::default() });
    assert_eq!(scheduler.load(), Load::default());
}

#[test]
fn a_fault_and_a_cancel_in_flight_end_one_request_each_and_free_its_blocks() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    for id in 1..4 {
        scheduler.submit(request(id, 1, 4), now).unwrap();
    }
    let plan = scheduler.schedule(now);
    assert_eq!(scheduler.cancel(RequestId(2)), None);
    let sampled = ChunkResult::Sampled { token: 0, eos: false };
    let ended = scheduler.commit(plan.step, &[ChunkResult::Fault, sampled, sampled]);
    let over = |id, end| Ended { id: RequestId(id), end };
    assert_eq!(ended, [over(1, End::Fault), over(2, End::Cancelled)]);
    assert_eq!(scheduler.load(), Load { waiting: 0, running: 1, blocks: 1, idle_blocks: 0 });
    assert_eq!(scheduler.cancel(RequestId(3)), Some(over(3, End::Cancelled)));
    assert_eq!(scheduler.load(), Load::default());
}
