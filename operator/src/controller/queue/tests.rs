//! Sequences, printed: who asks or reports, what is answered, who is woken.

use pretty_assertions::assert_eq;

use super::*;

const GPU: &str = "nvidia.com/gpu";

fn at(second: u64) -> Timestamp {
    later(Timestamp::UNIX_EPOCH, Duration::from_secs(second))
}

fn refused(since: u64, retry: u64) -> Case {
    Case { refused: Some(Refused { since: at(since), retry: at(retry) }), placing: false }
}

fn placing(case: Case) -> Case {
    Case { placing: true, ..case }
}

const SERVES: Case = Case { refused: None, placing: false };

struct Desk {
    turns: Turns<&'static str>,
    lines: Vec<String>,
}

impl Desk {
    fn new() -> Self {
        Self { turns: Turns::new(Duration::from_secs(60)), lines: Vec::new() }
    }

    fn ask(&mut self, model: &'static str, now: u64) {
        let answer = match self.turns.ask(&model, GPU, at(now)) {
            Turn::May => "may".to_owned(),
            Turn::Retry => "may retry".to_owned(),
            Turn::NotYet { until } => {
                format!("not yet, until {}", until.map_or_else(|| "woken".to_owned(), |at| at.as_second().to_string()))
            }
        };
        self.lines.push(format!("{now:3} {model} asks: {answer}"));
    }

    fn report(&mut self, model: &'static str, case: Case, now: u64) {
        let awake = self.turns.report(&model, GPU, case, at(now));
        self.lines.push(format!("{now:3} {model} reports: wakes [{}]", awake.join(" ")));
    }

    fn room(&mut self, now: u64) {
        let awake = self.turns.room(at(now));
        self.lines.push(format!("{now:3} room: wakes [{}]", awake.join(" ")));
    }
}

#[test]
fn without_a_refusal_everybody_makes_groups_at_once() {
    let mut desk = Desk::new();
    for model in ["a", "b", "c"] {
        desk.ask(model, 0);
        desk.report(model, placing(SERVES), 0);
    }
    assert_eq!(
        desk.lines,
        [
            "  0 a asks: may",
            "  0 a reports: wakes []",
            "  0 b asks: may",
            "  0 b reports: wakes []",
            "  0 c asks: may",
            "  0 c reports: wakes []",
        ]
    );
    assert!(desk.turns.lines.is_empty(), "nothing is remembered of who is not refused");
}

#[test]
fn of_two_that_were_refused_the_first_tries_alone_and_the_other_follows_when_it_is_placed() {
    let mut desk = Desk::new();
    desk.report("b", refused(11, 21), 11);
    desk.report("a", refused(10, 20), 11);
    desk.ask("b", 21);
    desk.ask("a", 21);
    desk.report("a", placing(refused(10, 20)), 21);
    desk.ask("b", 22);
    desk.ask("c", 22);
    desk.report("a", SERVES, 23);
    desk.ask("b", 23);
    desk.report("b", placing(refused(11, 21)), 23);
    desk.report("b", SERVES, 24);
    assert_eq!(
        desk.lines,
        [
            " 11 b reports: wakes []",
            " 11 a reports: wakes []",
            " 21 b asks: not yet, until 81",
            " 21 a asks: may",
            " 21 a reports: wakes []",
            " 22 b asks: not yet, until 81",
            " 22 c asks: not yet, until 81",
            " 23 a reports: wakes [b]",
            " 23 b asks: may",
            " 23 b reports: wakes []",
            " 24 b reports: wakes [c]",
        ]
    );
    assert!(desk.turns.lines.is_empty());
}

#[test]
fn one_that_fits_nowhere_holds_others_up_only_while_it_tries() {
    let mut desk = Desk::new();
    desk.report("giant", refused(0, 10), 0);
    desk.ask("small", 5);
    desk.report("small", placing(SERVES), 5);
    desk.ask("giant", 10);
    desk.report("small", SERVES, 11);
    desk.ask("giant", 11);
    desk.report("giant", placing(refused(0, 10)), 11);
    desk.ask("small", 12);
    desk.report("giant", refused(0, 41), 21);
    desk.ask("small", 21);
    assert_eq!(
        desk.lines,
        [
            "  0 giant reports: wakes []",
            "  5 small asks: may",
            "  5 small reports: wakes []",
            " 10 giant asks: not yet, until 65",
            " 11 small reports: wakes [giant]",
            " 11 giant asks: may",
            " 11 giant reports: wakes []",
            " 12 small asks: not yet, until 71",
            " 21 giant reports: wakes [small]",
            " 21 small asks: may",
        ]
    );
}

#[test]
fn room_ends_the_wait_of_the_longest_refused_once() {
    let mut desk = Desk::new();
    desk.report("b", refused(1, 300), 1);
    desk.report("a", refused(2, 200), 2);
    desk.room(50);
    desk.ask("b", 50);
    desk.report("b", placing(refused(1, 300)), 50);
    desk.ask("b", 51);
    desk.report("b", refused(1, 360), 60);
    desk.ask("a", 60);
    desk.report("a", refused(2, 270), 70);
    desk.report("b", refused(1, 360), 71);
    assert_eq!(
        desk.lines,
        [
            "  1 b reports: wakes []",
            "  2 a reports: wakes []",
            " 50 room: wakes [b]",
            " 50 b asks: may retry",
            " 50 b reports: wakes []",
            " 51 b asks: may",
            " 60 b reports: wakes [a]",
            " 60 a asks: may retry",
            " 70 a reports: wakes []",
            " 71 b reports: wakes []",
        ]
    );
}

#[test]
fn one_that_does_not_use_its_turn_is_passed_over_until_it_asks() {
    let mut desk = Desk::new();
    desk.report("paused", refused(1, 10), 1);
    desk.report("b", refused(2, 12), 2);
    desk.ask("b", 12);
    desk.report("paused", refused(1, 10), 12);
    desk.ask("b", 12);
    desk.report("b", SERVES, 13);
    desk.ask("paused", 14);
    assert_eq!(
        desk.lines,
        [
            "  1 paused reports: wakes []",
            "  2 b reports: wakes []",
            " 12 b asks: not yet, until 72",
            " 12 paused reports: wakes [b]",
            " 12 b asks: may",
            " 13 b reports: wakes []",
            " 14 paused asks: may",
        ]
    );
}

#[test]
fn a_slot_is_held_for_a_minute_at_most_and_given_back_by_the_deleted() {
    let mut desk = Desk::new();
    desk.report("a", refused(1, 5), 1);
    desk.ask("a", 5);
    desk.report("a", placing(refused(1, 5)), 5);
    desk.ask("c", 64);
    desk.ask("c", 65);
    desk.report("c", placing(SERVES), 65);
    let awake = desk.turns.forget(&"c", at(66));
    assert_eq!(awake, ["a"]);
    assert_eq!(
        desk.lines,
        [
            "  1 a reports: wakes []",
            "  5 a asks: may",
            "  5 a reports: wakes []",
            " 64 c asks: not yet, until 65",
            " 65 c asks: not yet, until 125",
            " 65 c reports: wakes []",
        ]
    );
}

#[test]
fn after_a_restart_the_order_is_the_same() {
    let mut desk = Desk::new();
    for (model, since) in [("a", 3), ("b", 1), ("c", 2)] {
        let Refused { since, retry } = refused(since, 10).refused.unwrap();
        desk.turns.restore(&model, GPU, Refused { since, retry });
    }
    for model in ["a", "b", "c"] {
        desk.ask(model, 20);
    }
    assert_eq!(desk.lines, [" 20 a asks: not yet, until 80", " 20 b asks: may", " 20 c asks: not yet, until 80"]);
}

#[test]
fn resources_do_not_wait_for_one_another() {
    let mut desk = Desk::new();
    desk.report("a", refused(1, 2), 1);
    desk.ask("a", 5);
    assert_eq!(desk.turns.ask(&"b", "cpu", at(5)), Turn::May);
    let awake = desk.turns.report(&"a", "cpu", SERVES, at(6));
    assert_eq!((awake, desk.turns.lines.len()), (vec![], 0), "a model that changes its resource leaves the old queue");
}
