//! Random histories over a memory that holds tokens instead of numbers: what a step would read is what the sequence
//! said, whatever was shared, put back, cancelled or failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;

const BLOCK: u32 = 4;

/// One thing that happens to a scheduler.
#[derive(Debug, Clone)]
enum Act {
    Submit { prompt: Vec<u32>, max_tokens: u32, priority: i32, tenant: u8, deadline: Option<u64> },
    Cancel(u64),
    Step { eos: u32, fault: u32, lost: bool, cancel: Option<u64>, hold: bool },
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    // Two letters and few lengths: beginnings are often the same.
    let prompt = (prop::collection::vec(0..2_u32, 1..6), 1..6_usize).prop_map(|(word, times)| word.repeat(times));
    let submit = (prompt, 1..20_u32, -1..2_i32, 0..2_u8, prop::option::weighted(0.1, 0..90_u64)).prop_map(
        |(prompt, max_tokens, priority, tenant, deadline)| Act::Submit {
            prompt,
            max_tokens,
            priority,
            tenant,
            deadline,
        },
    );
    let rare = |bits: u32| if bits.is_multiple_of(8) { bits / 8 } else { 0 };
    let step = (
        0..64_u32,
        0..64_u32,
        prop::bool::weighted(0.05),
        prop::option::weighted(0.2, 0..40_u64),
        prop::bool::weighted(0.3),
    );
    let step = step.prop_map(move |(eos, fault, lost, cancel, hold)| Act::Step {
        eos: rare(eos),
        fault: rare(fault),
        lost,
        cancel,
        hold,
    });
    prop_oneof![6 => submit, 1 => (0..40_u64).prop_map(Act::Cancel), 24 => step, 1 => Just(Act::Clear)]
}

/// What a request has said so far.
struct Said {
    tenant: u8,
    tokens: Vec<u32>,
    last: usize,
}

/// A scheduler with what must stay true of it.
struct Watched {
    scheduler: Scheduler,
    limits: Limits,
    start: Instant,
    now: u64,
    taken: BTreeMap<RequestId, Said>,
    over: BTreeSet<RequestId>,
    /// Tokens in the cache of those that run.
    computed: BTreeMap<RequestId, u32>,
    /// In order; what comes of them is known at their commit.
    flying: VecDeque<StepPlan>,
    most_flying: usize,
    /// Consecutive steps that ran without a sequence that runs.
    idle_steps: BTreeMap<RequestId, usize>,
    /// Tenant and token at every place of the cache.
    memory: Vec<Option<(u8, u32)>>,
    found: u64,
    preempted: u64,
}

/// The next token of everybody who has said this.
fn script(tokens: &[u32]) -> u32 {
    tokens.iter().fold(7_u32, |hash, token| hash.wrapping_mul(31).wrapping_add(token + 1)) / 3 % 2
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
            computed: BTreeMap::new(),
            flying: VecDeque::new(),
            most_flying: 0,
            idle_steps: BTreeMap::new(),
            memory: vec![None; (limits.blocks * BLOCK) as usize],
            found: 0,
            preempted: 0,
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
            self.computed.remove(&id);
        }
    }

    fn apply(&mut self, index: u64, act: Act) {
        match act {
            Act::Submit { prompt, max_tokens, priority, tenant, deadline } => {
                let deadline = deadline.map(|ms| self.start + Duration::from_millis(ms));
                let last = prompt.len() + max_tokens as usize;
                let said = Said { tenant, tokens: prompt.clone(), last };
                let tenant = tenant.to_string();
                let admission = Admission { id: RequestId(index), prompt, max_tokens, priority, tenant, deadline };
                if self.scheduler.submit(admission, self.time()).is_ok() {
                    self.taken.insert(RequestId(index), said);
                }
            }
            Act::Cancel(id) => {
                let ended = self.scheduler.cancel(RequestId(id));
                self.end(ended.map(|ended| ended.id));
            }
            Act::Clear => {
                let ids = self.scheduler.clear();
                self.flying.clear();
                self.end(ids);
                assert_eq!(self.scheduler.load(), Load::default());
            }
            Act::Step { eos, fault, lost, cancel, hold } => {
                self.plan(cancel);
                if !hold || self.flying.len() == self.limits.depth {
                    self.commit(eos, fault, lost);
                }
            }
        }
    }

    fn plan(&mut self, cancel: Option<u64>) {
        self.now += 1;
        let plan = self.scheduler.schedule(self.time());
        let flying: BTreeSet<_> = self.flying.iter().flat_map(|plan| &plan.chunks).map(|chunk| chunk.id).collect();
        let gone = plan.ended.iter().map(|ended| &ended.id).chain(&plan.preempted);
        assert!(gone.clone().all(|id| !flying.contains(id)), "{plan:?} touches what is in flight");
        assert!(plan.chunks.iter().all(|chunk| !flying.contains(&chunk.id)), "{plan:?} computes what is in flight");
        self.end(plan.ended.iter().map(|ended| ended.id));
        for id in &plan.preempted {
            self.computed.remove(id);
        }
        self.preempted += plan.preempted.len() as u64;
        self.found += plan.admitted.iter().map(|admitted| u64::from(admitted.cached)).sum::<u64>();
        self.check(&plan);
        if let Some(id) = cancel {
            let ended = self.scheduler.cancel(RequestId(id));
            self.end(ended.map(|ended| ended.id));
        }
        if !plan.chunks.is_empty() {
            self.flying.push_back(plan);
        }
        self.most_flying = self.most_flying.max(self.flying.len());
        assert!(self.flying.len() <= self.limits.depth);
    }

    /// What came of the oldest plan in flight.
    fn commit(&mut self, eos: u32, fault: u32, lost: bool) {
        let Some(plan) = self.flying.pop_front() else { return };
        if lost {
            // The step never came back: it counts as not run, though it may have written.
            let ended = self.scheduler.commit(plan.step, &[]);
            return self.end(ended.into_iter().map(|ended| ended.id));
        }
        // Nobody wrote over it meanwhile: a later stage may read it only now.
        self.read(&plan);
        let mut results = Vec::new();
        for (bit, chunk) in plan.chunks.iter().enumerate() {
            if fault >> bit & 1 == 1 {
                results.push(ChunkResult::Fault);
                continue;
            }
            self.computed.insert(chunk.id, chunk.start + chunk.count);
            let said = self.taken.get_mut(&chunk.id).unwrap();
            results.push(if chunk.sample {
                let token = script(&said.tokens);
                said.tokens.push(token);
                ChunkResult::Sampled { token, eos: eos >> bit & 1 == 1 }
            } else {
                ChunkResult::Computed
            });
        }
        let ended = self.scheduler.commit(plan.step, &results);
        for Ended { id, end } in &ended {
            assert!(*end != End::Length || self.taken[id].tokens.len() == self.taken[id].last);
        }
        self.end(ended.into_iter().map(|ended| ended.id));
    }

    fn check(&mut self, plan: &StepPlan) {
        let tokens: u32 = plan.chunks.iter().map(|c| c.count).sum();
        assert!(tokens as usize <= self.limits.step_tokens);
        assert!(plan.chunks.iter().filter(|c| c.sample).count() <= self.limits.step_samples);
        for chunk in &plan.chunks {
            assert!(!self.over.contains(&chunk.id), "{:?} runs after its end", chunk.id);
            match self.computed.get(&chunk.id) {
                Some(&computed) => assert_eq!(chunk.start, computed),
                None => assert!(chunk.start.is_multiple_of(BLOCK), "part of a block was found: {chunk:?}"),
            }
            let known = self.taken[&chunk.id].tokens.len() as u32;
            assert!(chunk.count > 0 && chunk.start + chunk.count <= known);
            assert_eq!(chunk.sample, chunk.start + chunk.count == known);
            assert_eq!(chunk.blocks.len() as u32, (chunk.start + chunk.count).div_ceil(BLOCK));
        }
        self.write_and_read(plan);
        let load = self.scheduler.load();
        assert!(load.running <= self.limits.running);
        assert!(load.waiting <= self.limits.waiting + self.limits.running);
        assert!(load.blocks + load.idle_blocks <= self.limits.blocks);
        assert_eq!(load.running + load.waiting, self.taken.len() - self.over.len());
        if plan.chunks.is_empty() {
            return;
        }
        let flying = self.flying.iter().flat_map(|plan| &plan.chunks);
        let ran: BTreeSet<_> = plan.chunks.iter().chain(flying).map(|c| c.id).collect();
        self.idle_steps.retain(|id, _| self.scheduler.running.contains_key(id));
        for (&id, sequence) in &self.scheduler.running {
            let idle = self.idle_steps.entry(id).or_default();
            *idle = if ran.contains(&id) { 0 } else { *idle + 1 };
            assert!(*idle <= self.limits.running * 2 * self.limits.depth, "{id:?} starves: {sequence:?}");
        }
    }

    /// All chunks of a step write, then all read: in the order of rows a device promises nothing.
    fn write_and_read(&mut self, plan: &StepPlan) {
        let mut written = BTreeSet::new();
        for chunk in &plan.chunks {
            let said = &self.taken[&chunk.id];
            for position in chunk.start..chunk.start + chunk.count {
                let slot = slot(chunk, position);
                assert!(written.insert(slot), "two sequences write to one place");
                self.memory[slot] = Some((said.tenant, said.tokens[position as usize]));
            }
        }
        self.read(plan);
    }

    fn read(&self, plan: &StepPlan) {
        for chunk in &plan.chunks {
            let said = &self.taken[&chunk.id];
            for position in 0..chunk.start + chunk.count {
                let wanted = Some((said.tenant, said.tokens[position as usize]));
                assert_eq!(
                    self.memory[slot(chunk, position)],
                    wanted,
                    "{chunk:?} reads what is not its own at {position}"
                );
            }
        }
    }
}

fn slot(chunk: &Chunk, position: u32) -> usize {
    (chunk.blocks[(position / BLOCK) as usize] * BLOCK + position % BLOCK) as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// No block leaks or is wrongly shared, budgets hold, nobody starves, and everybody who entered ends exactly once.
    #[test]
    fn every_history_keeps_the_books(
        acts in prop::collection::vec(act(), 1..100),
        (running, step_tokens, step_samples, blocks) in (1..7_usize, 1..12_usize, 1..4_usize, 1..16_u32),
        depth in 1..5_usize,
    ) {
        let limits = Limits { running, waiting: 6, step_tokens, step_samples, blocks, block_tokens: BLOCK, depth };
        let mut watched = Watched::new(limits);
        for (index, act) in acts.into_iter().enumerate() {
            watched.apply(index as u64, act);
        }
        for _ in 0..4000 {
            if watched.scheduler.is_idle() { break; }
            watched.plan(None);
            watched.commit(0, 0, false);
        }
        prop_assert_eq!(in_use(&watched.scheduler), Load::default());
        prop_assert_eq!(watched.over.len(), watched.taken.len());
    }
}

/// The histories above are worth nothing if nothing in them is found or put back.
#[test]
fn histories_find_beginnings_and_put_sequences_back() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut found, mut preempted, mut full) = (0, 0, 0);
    for case in 0..200 {
        let depth = 1 + case % 4;
        let acts = prop::collection::vec(act(), 120..160).new_tree(&mut runner).unwrap().current();
        let limits =
            Limits { running: 4, waiting: 6, step_tokens: 8, step_samples: 4, blocks: 9, block_tokens: BLOCK, depth };
        let mut watched = Watched::new(limits);
        for (index, act) in acts.into_iter().enumerate() {
            watched.apply(index as u64, act);
        }
        found += u64::from(watched.found > 0);
        preempted += u64::from(watched.preempted > 0);
        full += u64::from(watched.most_flying == depth);
    }
    println!(
        "of 200 histories {found} find a beginning, {preempted} put a sequence back, {full} have all plans in flight"
    );
    assert!(found >= 50 && preempted >= 50 && full >= 120, "{found} find, {preempted} put back, {full} full");
}
