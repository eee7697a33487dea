//! Whole plans for small cases, and invariants over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits { running: 4, waiting: 8, step_tokens: 8, step_samples: 4, blocks: 8, block_tokens: 4 }
}

fn request(id: u64, prompt: u32, max_tokens: u32) -> Admission {
    Admission { id: RequestId(id), prompt, max_tokens, priority: 0, deadline: None }
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
        scheduler.commit(&results(&plan));
    }
}

fn results(plan: &StepPlan) -> Vec<ChunkResult> {
    let result = |c: &Chunk| if c.sample { ChunkResult::Sampled { eos: false } } else { ChunkResult::Computed };
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
    assert_eq!(scheduler.load(), Load::default());
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
    assert!(scheduler.submit(request(3, u32::MAX, u32::MAX), now).is_err());
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
    scheduler.commit(&results(&plan));
    let late = scheduler.schedule(now + Duration::from_secs(1));
    let over = |id| Ended { id: RequestId(id), end: End::DeadlinePassed };
    assert_eq!(late, StepPlan { chunks: vec![], ended: vec![over(2), over(1)] });
    assert_eq!(scheduler.load(), Load::default());
}

#[test]
fn a_fault_and_a_cancel_in_flight_end_one_request_each_and_free_its_blocks() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    for id in 1..4 {
        scheduler.submit(request(id, 1, 4), now).unwrap();
    }
    scheduler.schedule(now);
    assert_eq!(scheduler.cancel(RequestId(2)), None);
    let sampled = ChunkResult::Sampled { eos: false };
    let ended = scheduler.commit(&[ChunkResult::Fault, sampled, sampled]);
    let over = |id, end| Ended { id: RequestId(id), end };
    assert_eq!(ended, [over(1, End::Fault), over(2, End::Cancelled)]);
    assert_eq!(scheduler.load(), Load { waiting: 0, running: 1, blocks: 2 });
    assert_eq!(scheduler.cancel(RequestId(3)), Some(over(3, End::Cancelled)));
    assert_eq!(scheduler.load(), Load::default());
}

/// One thing that happens to a scheduler.
#[derive(Debug, Clone)]
enum Act {
    Submit { prompt: u32, max_tokens: u32, priority: i32, deadline: Option<u64> },
    Cancel(u64),
    Step { eos: u32, fault: u32, cancel: Option<u64> },
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    let submit = (1..20_u32, 1..20_u32, -1..2_i32, prop::option::weighted(0.2, 0..60_u64))
        .prop_map(|(prompt, max_tokens, priority, deadline)| Act::Submit { prompt, max_tokens, priority, deadline });
    let step = (0..64_u32, 0..64_u32, prop::option::weighted(0.2, 0..40_u64))
        .prop_map(|(eos, fault, cancel)| Act::Step { eos, fault: if fault % 8 == 0 { fault / 8 } else { 0 }, cancel });
    prop_oneof![6 => submit, 2 => (0..40_u64).prop_map(Act::Cancel), 12 => step, 1 => Just(Act::Clear)]
}

/// A scheduler with what must stay true of it.
struct Watched {
    scheduler: Scheduler,
    limits: Limits,
    start: Instant,
    now: u64,
    taken: BTreeMap<RequestId, Admission>,
    over: BTreeSet<RequestId>,
    /// Consecutive steps that ran without a sequence that runs.
    idle_steps: BTreeMap<RequestId, usize>,
    computed: BTreeMap<RequestId, u32>,
}

impl Watched {
    fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            limits,
            start: Instant::now(),
            now: 0,
            taken: BTreeMap::new(),
            over: BTreeSet::new(),
            idle_steps: BTreeMap::new(),
            computed: BTreeMap::new(),
        }
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn end(&mut self, ids: impl IntoIterator<Item = RequestId>) {
        for id in ids {
            assert!(self.taken.contains_key(&id), "{id:?} ended but never began");
            assert!(self.over.insert(id), "{id:?} ended twice");
            self.idle_steps.remove(&id);
        }
    }

    fn apply(&mut self, index: u64, act: Act) {
        match act {
            Act::Submit { prompt, max_tokens, priority, deadline } => {
                let deadline = deadline.map(|ms| self.start + Duration::from_millis(ms));
                let admission = Admission { id: RequestId(index), prompt, max_tokens, priority, deadline };
                if self.scheduler.submit(admission, self.time()).is_ok() {
                    self.taken.insert(admission.id, admission);
                }
            }
            Act::Cancel(id) => {
                let ended = self.scheduler.cancel(RequestId(id));
                self.end(ended.map(|ended| ended.id));
            }
            Act::Clear => {
                let ids = self.scheduler.clear();
                self.end(ids);
                assert_eq!(self.scheduler.load(), Load::default());
            }
            Act::Step { eos, fault, cancel } => self.step(eos, fault, cancel),
        }
    }

    fn step(&mut self, eos: u32, fault: u32, cancel: Option<u64>) {
        self.now += 1;
        let plan = self.scheduler.schedule(self.time());
        self.end(plan.ended.iter().map(|ended| ended.id));
        self.check(&plan);
        if let Some(id) = cancel {
            let ended = self.scheduler.cancel(RequestId(id));
            self.end(ended.map(|ended| ended.id));
        }
        let mut results = results(&plan);
        for (bit, result) in results.iter_mut().enumerate() {
            if fault >> bit & 1 == 1 {
                *result = ChunkResult::Fault;
            } else if let ChunkResult::Sampled { eos: last } = result {
                *last = eos >> bit & 1 == 1;
            }
        }
        for (chunk, result) in plan.chunks.iter().zip(&results) {
            if *result != ChunkResult::Fault {
                *self.computed.entry(chunk.id).or_default() += chunk.count;
            }
        }
        let ended = self.scheduler.commit(&results);
        self.end(ended.into_iter().map(|ended| ended.id));
    }

    fn check(&mut self, plan: &StepPlan) {
        let tokens: u32 = plan.chunks.iter().map(|c| c.count).sum();
        assert!(tokens as usize <= self.limits.step_tokens);
        assert!(plan.chunks.iter().filter(|c| c.sample).count() <= self.limits.step_samples);
        let mut owned = BTreeSet::new();
        for chunk in &plan.chunks {
            assert!(!self.over.contains(&chunk.id), "{:?} runs after its end", chunk.id);
            assert_eq!(chunk.start, self.computed.get(&chunk.id).copied().unwrap_or(0));
            assert_eq!(chunk.blocks.len() as u32, (chunk.start + chunk.count).div_ceil(self.limits.block_tokens));
            assert!(chunk.blocks.iter().all(|&b| b < self.limits.blocks && owned.insert(b)), "a block is shared");
        }
        let load = self.scheduler.load();
        assert!(load.running <= self.limits.running && load.waiting <= self.limits.waiting);
        assert_eq!(load.running + load.waiting, self.taken.len() - self.over.len());
        let ran: BTreeSet<_> = plan.chunks.iter().map(|c| c.id).collect();
        for (&id, sequence) in &self.scheduler.running {
            let idle = self.idle_steps.entry(id).or_default();
            *idle = if ran.contains(&id) { 0 } else { *idle + 1 };
            assert!(*idle <= self.limits.running * 2, "{id:?} starves: {sequence:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// No block leaks or is shared, budgets hold, nobody starves, and everybody who entered ends exactly once.
    #[test]
    fn every_history_keeps_the_books(
        acts in prop::collection::vec(act(), 1..80),
        (running, step_tokens, step_samples, blocks) in (1..5_usize, 1..12_usize, 1..4_usize, 1..12_u32),
    ) {
        let limits = Limits { running, waiting: 6, step_tokens, step_samples, blocks, block_tokens: 4 };
        let mut watched = Watched::new(limits);
        for (index, act) in acts.into_iter().enumerate() {
            watched.apply(index as u64, act);
        }
        for _ in 0..2000 {
            if watched.scheduler.is_idle() { break; }
            watched.step(0, 0, None);
        }
        prop_assert_eq!(watched.scheduler.load(), Load::default());
        prop_assert_eq!(watched.over.len(), watched.taken.len());
    }
}
