//! `docs/faults.md`: which fault is survived within which bound, and the tests that show it. Generated from `ROWS` and from
//! `complaints::ALL`.
//!
//! A test fails when the page differs, or when a test or a function that it names does not exist.

mod complaints;

/// One fault of the operator.
struct Row {
    id: &'static str,
    fault: &'static str,
    bound: &'static str,
    /// What the last recorded run showed.
    measured: &'static str,
    tests: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        id: "O1",
        fault: "the operator is killed before or after any write; or together with every pod",
        bound: "the same end state, no duplicate pod, no orphan",
        measured: "50 writes, 100 lives; 20 rounds with all pods",
        tests: &[
            "killed_before_or_after_any_write_it_leaves_the_same_as_undisturbed",
            "with_all_pods_and_the_operator_gone_at_once_epochs_only_rise",
            "an_operator_that_dies_after_remembering_goes_on_where_it_stopped",
        ],
    },
    Row {
        id: "O2",
        fault: "an older cached list after a restart; a watch that is minutes behind",
        bound: "no wrong delete",
        measured: "0",
        tests: &[
            "a_deletion_is_never_taken_back_and_a_late_note_hides_nothing",
            "a_list_replaces_everything_and_a_write_shows_before_its_watch_event",
            "what_no_watch_has_shown_for_long_is_kept_or_forgotten_as_the_server_says",
            "pods_that_no_watch_shows_for_long_are_asked_for_and_never_taken_for_lost",
            "however_answers_events_and_lists_cross_no_pod_of_ours_is_missed_and_none_that_ended_lives",
        ],
    },
    Row {
        id: "O3",
        fault: "a watch ends",
        bound: "it resumes, 0 writes",
        measured: "0 lists more, 0 writes",
        tests: &["a_watch_that_ends_resumes_and_one_that_expired_lists_once"],
    },
    Row {
        id: "O4",
        fault: "410 Gone in a watch, events replayed",
        bound: "1 list of each kind, 0 writes, the same status",
        measured: "1 list, 0 writes",
        tests: &["a_watch_that_ends_resumes_and_one_that_expired_lists_once"],
    },
    Row {
        id: "O5",
        fault: "409, 429, 500, 503, 504, reset, slow and truncated answers at each verb",
        bound: "the same end state; at most 10 requests a second for a failing object",
        measured: "64 lives; 24 refused POSTs took 5 passes",
        tests: &[
            "any_error_at_any_verb_leaves_the_same_as_undisturbed",
            "while_its_calls_fail_an_object_asks_at_most_ten_times_a_second",
            "the_window_grows_with_success_and_four_refusals_end_the_pass",
            "after_a_failure_events_wait_for_the_back_off_but_an_edit_does_not",
        ],
    },
    Row {
        id: "O6",
        fault: "a slow API server",
        bound: "other objects go on; a leader that cannot renew ends",
        measured: "as the bound",
        tests: &[
            "a_slow_call_for_one_object_does_not_hold_up_another",
            "a_leader_that_cannot_renew_ends_and_its_successor_touches_no_pod",
        ],
    },
    Row {
        id: "O7",
        fault: "the leader is killed or paused, or its lease deleted",
        bound: "takeover after one lease; 0 effective writes of the old one",
        measured: "0",
        tests: &[
            "a_second_operator_stands_by_and_takes_over_from_a_killed_one",
            "what_a_paused_leader_still_sends_has_no_effect",
            "a_leader_whose_lease_was_deleted_makes_it_again_and_a_deposed_one_stops",
        ],
    },
    Row {
        id: "O8",
        fault: "two operators on skewed clocks",
        bound: "one writer",
        measured: "as the bound",
        tests: &[
            "clocks_of_other_machines_do_not_matter",
            "of_two_that_see_an_expired_lease_one_is_refused_by_its_precondition",
            "whatever_the_clocks_and_the_network_do_two_never_lead_at_once",
        ],
    },
    Row {
        id: "O9",
        fault: "an RBAC rule is taken away and given back",
        bound: "Degraded/Forbidden names verb and resource; recovers alone within the longest back-off, 60 s",
        measured: "as the bound",
        tests: &["a_right_taken_away_is_named_in_the_status_and_given_back_is_enough"],
    },
    Row {
        id: "O10",
        fault: "a quota refuses the n-th pod of a group",
        bound: "no partial group older than 60 s; the missing quantity is named",
        measured: "as the bound",
        tests: &["a_quota_that_refuses_a_pod_leaves_no_partial_group"],
    },
    Row {
        id: "O11",
        fault: "a node is lost with one shard, silently or deleted",
        bound: "new pods at the taint itself; the old pod is never forced; never two epochs serving",
        measured: "0 s from the taint to new pods, by clocks of whole seconds",
        tests: &[
            "a_silent_node_loses_its_shards_at_its_taint_and_no_pod_is_forced",
            "a_deleted_node_loses_its_shards_at_once",
            "without_nodes_a_lost_node_shows_by_its_pods",
        ],
    },
    Row {
        id: "O12",
        fault: "a pod is evicted, preempted, drained, killed for memory, cannot pull or crashes",
        bound: "distinct reasons; back-off 10 s to 5 min; anew after ten healthy minutes",
        measured: "as the bound",
        tests: &[
            "a_shard_killed_for_its_memory_is_told_from_a_crash",
            "a_crashed_shard_leaves_its_exit_code_and_its_last_lines",
            "a_shard_evicted_by_its_kubelet_says_what_the_node_was_short_of",
            "an_image_that_cannot_be_pulled_is_its_own_reason",
            "a_shard_that_makes_room_for_a_higher_priority_is_preempted",
            "a_drained_pod_takes_its_group_along_and_the_next_epoch_comes_at_once",
            "a_slot_is_given_up_by_the_loss_beyond_its_budget_until_the_window_that_began_with_the_first_has_passed",
        ],
    },
    Row {
        id: "O13",
        fault: "a pod fails while its group still starts",
        bound: "exactly one epoch more",
        measured: "1",
        tests: &[
            "shards_that_fail_together_while_starting_cost_one_epoch",
            "while_a_peer_pulls_its_image_a_lost_shard_waits_and_then_costs_one_epoch",
        ],
    },
    Row {
        id: "O14",
        fault: "20 edits in a moment",
        bound: "the newest wins; never more groups than wished and the surge",
        measured: "3 edits: at most 8 pods; 20 edits: at most 42",
        tests: &["quick_edits_end_in_the_newest_with_one_group_more_than_wished_at_most"],
    },
    Row {
        id: "O15",
        fault: "a rollout that cannot become ready, then its revert",
        bound: "no serving pod touched",
        measured: "0",
        tests: &["a_revert_in_mid_rollout_touches_no_serving_pod"],
    },
    Row {
        id: "O16",
        fault: "deleted while pods are made, or without an operator",
        bound: "0 orphans",
        measured: "0",
        tests: &[
            "a_model_deleted_while_its_pods_are_made_leaves_nothing",
            "a_model_deleted_without_an_operator_leaves_nothing_and_comes_back_whole",
            "a_deleted_model_leaves_nothing",
        ],
    },
    Row {
        id: "O17",
        fault: "owned Services changed or deleted, or somebody else's; a pod's labels changed or removed, its owner taken away",
        bound: "Services are restored; a pod cannot be: its group forms again within 2 s, and the pod ends, or, if its owner \
                is another, is left alone and named",
        measured: "13 ways to tamper with a pod, all at once: within 1.7 s",
        tests: &[
            "a_pod_whose_labels_or_owner_were_changed_is_replaced_and_holds_nothing_that_is_ours",
            "a_pod_whose_labels_were_changed_is_a_lost_shard_of_the_group_that_its_name_tells",
            "a_pod_that_was_taken_from_its_owner_is_replaced_left_alone_and_told_of_until_it_is_gone",
            "before_a_group_forms_again_those_of_its_pods_that_no_watch_shows_are_looked_for",
            "a_pod_of_that_name_is_adopted_by_its_owner_and_as_a_lost_shard_if_its_labels_were_changed",
            "an_object_whose_label_names_another_model_leaves_the_one_that_had_it",
            "a_service_that_was_changed_or_deleted_is_made_right_again",
            "a_service_of_somebody_else_is_not_touched_and_the_status_says_so",
        ],
    },
    Row {
        id: "O18",
        fault: "a scaler and an editor at once, zero and back",
        bound: "no lost update; the operator never owns a field of spec",
        measured: "as the bound",
        tests: &[
            "a_scaler_and_an_editor_never_fight_and_the_operator_never_writes_the_spec",
            "kubectl_scale_changes_the_number_of_groups_and_zero_is_ready",
        ],
    },
    Row {
        id: "O19",
        fault: "stored objects with fields or values that a newer version wrote",
        bound: "0 lost fields; Accepted says which field and value is not understood, pods stay untouched; other objects go on",
        measured: "0 lost fields",
        tests: &[
            "what_a_newer_version_stored_is_kept_named_and_in_nobodys_way",
            "what_a_newer_version_wrote_is_named_by_field_and_value_and_does_not_fail_the_list",
            "a_status_write_keeps_what_a_newer_version_wrote_even_in_the_entries_of_lists",
            "only_the_conditions_say_what_is_not_understood_and_a_second_look_changes_nothing",
            "only_what_differs_is_sent_and_what_is_gone_becomes_null",
        ],
    },
    Row {
        id: "O21",
        fault: "many objects at once, or found there by a new operator; one of many can never be served",
        bound: "each in its turn; every other one served; a new operator looks at all within 60 s, 0 writes, 64 MiB",
        measured: "60 at once: at most 8 passes each; 1,000 objects and their 8,000 pods among 50,000 foreign pods found: 4.0 s, 0 writes, 45 MiB; made at once: 57 MiB (docs/figures.md)",
        tests: &[
            "sixty_models_at_once_are_served_though_pods_are_refused_and_one_can_never_be",
            "who_came_first_goes_first_and_a_busy_object_keeps_its_place_but_holds_up_nobody",
            "an_object_is_not_handed_out_while_it_is_worked_on",
        ],
    },
    Row {
        id: "O22",
        fault: "a namespace deleted under the operator",
        bound: "0 writes afterwards; no storm of writes or Events before",
        measured: "at most 80 writes, 4 Events; 19 and 3 seen",
        tests: &["a_namespace_deleted_under_the_operator_is_soon_forgotten"],
    },
    Row {
        id: "O23",
        fault: "100 passes over a settled object; a restart",
        bound: "0 writes",
        measured: "0",
        tests: &["a_settled_object_costs_no_write_in_a_hundred_passes", "a_restarted_operator_touches_no_pod"],
    },
];

const HEAD: &str = "\
# Faults that the operator survives

Each row is a fault, the bound within which it is survived, what the last recorded run showed, and the tests that make it.
Faults of the API server are made by a layer inside the operator's client (`operator/src/faults`), ordered through a hidden
argument; pods' faults are made on fake nodes. What the tests of O3 to O7, O9, O11, O16, O18 and O22 may choose freely (which call
is struck, for how long, which shard, at which moment, in which order) they draw from a seed: CI runs 3 seeds, `SHOAL_SEEDS` asks for
more; the last recorded runs of O9, O16 and O18 took 20. Crashes strike before and after every write instead. O2 and O8 are tried by 2,000 random orders
of events each, and what is pure of O1, O10, O12 to O15, O18 and O23 by 10,000 random histories. This page is generated (`SHOAL_BLESS=1 cargo test -p shoal-tests --lib fault_page`).

| | fault | bound | measured | tests |
|---|---|---|---|---|
";

/// The page.
#[must_use]
pub fn page() -> String {
    let line = |row: &Row| {
        format!("| {} | {} | {} | {} | {} |\n", row.id, row.fault, row.bound, row.measured, listed(row.tests))
    };
    HEAD.to_owned() + &ROWS.iter().map(line).collect::<String>() + &complaints::section()
}

/// Tests in one cell of a table.
fn listed(tests: &[&str]) -> String {
    tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::paths::repository;

    /// Every Rust source under `folder`, in one text.
    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_row_names_tests_that_exist_and_the_page_is_the_committed_one() {
        let mut text = String::new();
        sources(&repository().join("operator/src"), &mut text);
        sources(&repository().join("tests/tests"), &mut text);
        let rows = ROWS.iter().map(|row| (row.id, row.tests));
        for (row, tests) in rows.chain(complaints::ALL.iter().map(|complaint| (complaint.words, complaint.tests))) {
            assert!(!tests.is_empty(), "{row} has no test");
            for test in tests {
                assert!(text.contains(&format!("fn {test}(")), "{row}: there is no test {test}");
            }
        }
        for complaint in complaints::ALL {
            let (file, function) = complaint.place;
            let source = std::fs::read_to_string(repository().join(file)).unwrap();
            let there = [format!("fn {function}("), format!("struct {function} {{")];
            assert!(there.iter().any(|words| source.contains(words)), "{file} has no {function}");
        }
        let path = repository().join("docs/faults.md");
        if std::env::var_os("SHOAL_BLESS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == page(), "run: SHOAL_BLESS=1 cargo test -p shoal-tests --lib fault_page");
    }
}
