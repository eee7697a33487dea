//! Who is next.

use pretty_assertions::assert_eq;

use super::*;

fn of(tenant: &str, id: u64, priority: i32) -> Admission {
    Admission { tenant: tenant.into(), priority, ..request(id, 4, 1) }
}

/// The order in which requests begin, one at a time.
fn order(scheduler: &mut Scheduler, now: Instant) -> Vec<u64> {
    let mut order = Vec::new();
    while !scheduler.is_idle() {
        let plan = scheduler.schedule(now);
        order.extend(plan.admitted.iter().map(|admitted| admitted.id.0));
        scheduler.commit(plan.step, &results(&plan));
    }
    order
}

#[test]
fn a_tenant_that_asks_much_does_not_hold_up_one_that_asks_little() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 1, ..limits() });
    for (id, tenant) in [(1, "big"), (2, "big"), (3, "big"), (4, "big"), (5, "small"), (6, "small")] {
        scheduler.submit(of(tenant, id, 0), now).unwrap();
    }
    assert_eq!(order(&mut scheduler, now), [1, 5, 2, 6, 3, 4]);
}

#[test]
fn who_was_away_is_owed_nothing() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 1, ..limits() });
    for id in 1..5 {
        scheduler.submit(of("old", id, 0), now).unwrap();
    }
    for _ in 0..2 {
        let plan = scheduler.schedule(now);
        scheduler.commit(plan.step, &results(&plan));
    }
    for id in 5..8 {
        scheduler.submit(of("new", id, 0), now).unwrap();
    }
    assert_eq!(order(&mut scheduler, now), [3, 5, 4, 6, 7]);
}

#[test]
fn nobody_is_overtaken_for_ever() {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(Limits { running: 1, waiting: 4, ..limits() });
    scheduler.submit(of("", 0, -5), now).unwrap();
    for id in 1..200 {
        scheduler.submit(of("", id, 100), now).unwrap();
        let plan = scheduler.schedule(now);
        scheduler.commit(plan.step, &results(&plan));
        if plan.admitted.iter().any(|admitted| admitted.id.0 == 0) {
            assert_eq!(id, u64::from(OVERTAKEN) + 1);
            return;
        }
    }
    panic!("request 0 never began");
}
