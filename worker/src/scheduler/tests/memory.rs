//! What is found in the cache, and who is put back when it is full.

use pretty_assertions::assert_eq;

use super::*;

fn of(tenant: &str, id: u64, prompt: Vec<u32>, max_tokens: u32) -> Admission {
    Admission { id: RequestId(id), prompt, max_tokens, priority: 0, tenant: tenant.into(), deadline: None }
}

/// Admits one request alone; how much of its prompt was found.
fn found(scheduler: &mut Scheduler, admission: Admission) -> u32 {
    let now = Instant::now();
    scheduler.submit(admission, now).unwrap();
    let plan = scheduler.schedule(now);
    scheduler.commit(plan.step, &results(&plan));
    run(scheduler, now);
    plan.admitted[0].cached
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_computes_only_the_rest_and_whole_blocks_are_found() {
    let mut scheduler = Scheduler::new(limits());
    let prompt: Vec<u32> = (0..10).collect();
    assert_eq!(found(&mut scheduler, of("a", 1, prompt.clone(), 1)), 0);
    assert_eq!(scheduler.load(), Load { idle_blocks: 2, ..Load::default() });
    assert_eq!(found(&mut scheduler, of("a", 2, prompt.clone(), 1)), 8);
    assert_eq!(found(&mut scheduler, of("a", 3, prompt[..9].to_vec(), 1)), 8);
    // The last token is always computed: the next one is sampled from it.
    assert_eq!(found(&mut scheduler, of("a", 4, prompt[..8].to_vec(), 1)), 4);
    assert_eq!(found(&mut scheduler, of("a", 5, [&prompt[..5], &[9, 9, 9, 9]].concat(), 1)), 4);
    assert_eq!(found(&mut scheduler, of("a", 6, prompt[1..].to_vec(), 1)), 0);
}

#[test]
fn tenants_never_share() {
    let mut scheduler = Scheduler::new(limits());
    let prompt: Vec<u32> = (0..10).collect();
    for (id, tenant) in [(1, "a"), (2, "b"), (3, "")] {
        assert_eq!(found(&mut scheduler, of(tenant, id, prompt.clone(), 1)), 0, "{tenant:?}");
    }
    assert_eq!(found(&mut scheduler, of("b", 4, prompt, 1)), 8);
}

#[test]
fn the_answer_is_found_too_when_a_conversation_goes_on() {
    let mut scheduler = Scheduler::new(limits());
    assert_eq!(found(&mut scheduler, of("", 1, vec![1000, 1001], 12)), 0);
    // `results` continues request 1 with 1002, 1003, …; its last token was never computed.
    let more: Vec<u32> = (1000..1014).chain([7]).collect();
    assert_eq!(found(&mut scheduler, of("", 2, more, 1)), 12);
}

#[test]
fn two_that_begin_alike_at_once_hold_the_same_blocks_and_none_is_freed_early() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(limits());
    let prompt: Vec<u32> = (0..9).collect();
    found(&mut scheduler, of("", 1, prompt.clone(), 1));
    scheduler.submit(of("", 2, prompt.clone(), 3), now).unwrap();
    scheduler.submit(of("", 3, prompt, 3), now).unwrap();
    let plan = scheduler.schedule(now);
    assert_eq!(plan.chunks[0].blocks[..2], plan.chunks[1].blocks[..2]);
    assert_ne!(plan.chunks[0].blocks[2], plan.chunks[1].blocks[2]);
    assert_eq!(scheduler.load().blocks, 4);
    scheduler.commit(plan.step, &results(&plan));
    scheduler.cancel(RequestId(2));
    assert_eq!(scheduler.load(), Load { waiting: 0, running: 1, blocks: 3, idle_blocks: 0 });
}

#[test]
fn when_blocks_run_out_the_newest_is_put_back_and_goes_on_where_its_blocks_are_kept() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { blocks: 4, step_tokens: 16, ..limits() });
    scheduler.submit(request(1, 6, 7), now).unwrap();
    scheduler.submit(request(2, 4, 7), now).unwrap();
    let lines = run(&mut scheduler, now);
    assert_eq!(
        lines,
        [
            "2:0+4* 1:0+6*",
            "1:6+1* 2:4+1*",
            "1:7+1* 2:5+1*",
            // Request 1 knows 9 tokens and needs a third block; request 2 holds the fourth.
            "1:8+1*",
            "1:9+1*",
            "1:10+1*",
            "1:11+1*",
            // Its first block was kept: 3 of its 7 tokens are computed again.
            "2:4+3*",
            "2:7+1*",
            "2:8+1*",
            "2:9+1*",
        ]
    );
}

#[test]
fn the_less_urgent_is_put_back_even_if_it_is_older() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { blocks: 3, ..limits() });
    scheduler.submit(Admission { priority: -1, ..request(1, 3, 6) }, now).unwrap();
    let first = scheduler.schedule(now);
    scheduler.commit(first.step, &results(&first));
    scheduler.submit(request(2, 3, 6), now).unwrap();
    let mut preempted = Vec::new();
    while !scheduler.is_idle() {
        let plan = scheduler.schedule(now);
        preempted.extend(plan.preempted.iter().copied());
        scheduler.commit(plan.step, &results(&plan));
    }
    assert_eq!(preempted, [RequestId(1)]);
}
