//! What users of other operators complain of, and what answers it here: the second table of the page.

use super::listed;

/// One complaint.
pub(super) struct Complaint {
    /// In our own words.
    pub(super) words: &'static str,
    /// Project, and number where there is one.
    pub(super) reported: &'static str,
    /// The tests that fail without what protects.
    pub(super) tests: &'static [&'static str],
    /// File and function, or type, that protect.
    pub(super) place: (&'static str, &'static str),
}

pub(super) const ALL: &[Complaint] = &[
    Complaint {
        words: "the definition is too big for kubectl apply",
        reported: "kserve, aibrix",
        tests: &["the_definition_is_the_committed_one_and_small_enough_for_every_client"],
        place: ("operator/src/crd/pod.rs", "PodSpec"),
    },
    Complaint {
        words: "a rollout counts as successful while old pods make up the number, and helm --wait believes it",
        reported: "dynamo#3567",
        tests: &[
            "groups_of_an_older_revision_do_not_make_a_model_ready",
            "helm_waits_for_a_model_and_fails_with_one_that_cannot_be_served",
        ],
        place: ("operator/src/controller/status.rs", "whole"),
    },
    Complaint {
        words: "three quick edits restart everything",
        reported: "dynamo#13353",
        tests: &[
            "three_quick_edits_replace_only_the_never_ready_groups_of_superseded_revisions",
            "quick_edits_end_in_the_newest_with_one_group_more_than_wished_at_most",
        ],
        place: ("operator/src/controller/rollout/remove.rs", "may_go"),
    },
    Complaint {
        words: "a revert deletes pods that serve",
        reported: "dynamo#13620",
        tests: &[
            "a_revert_in_mid_rollout_removes_only_what_never_served",
            "a_revert_in_mid_rollout_touches_no_serving_pod",
        ],
        place: ("operator/src/controller/rollout/create.rs", "next_group"),
    },
    Complaint {
        words: "a pod is ready before it can be routed to, or routed to before it is ready",
        reported: "dynamo#13622",
        tests: &[
            "the_pods_services_and_secret_of_the_tiny_model_are_these",
            "a_shard_gets_requests_only_once_it_is_ready",
        ],
        place: ("operator/src/controller/build/pod/container.rs", "worker"),
    },
    Complaint {
        words: "the restart of a group is skipped, or happens twice",
        reported: "lws#998",
        tests: &[
            "a_lost_shard_recreates_its_group_once_and_again_only_after_the_back_off",
            "a_lost_shard_recreates_its_group_once_and_only_its_group",
            "shards_that_fail_together_while_starting_cost_one_epoch",
        ],
        place: ("operator/src/controller/rollout/lose.rs", "recover_lost"),
    },
    Complaint {
        words: "a slow image pull makes a group restart without end",
        reported: "lws#726",
        tests: &[
            "a_group_that_still_starts_waits_for_its_peers_before_it_is_given_up",
            "while_a_peer_pulls_its_image_a_lost_shard_waits_and_then_costs_one_epoch",
        ],
        place: ("operator/src/controller/rollout/lose.rs", "fate"),
    },
    Complaint {
        words: "restarts have no bound",
        reported: "lws PR 877",
        tests: &[
            "a_slot_is_given_up_by_the_loss_beyond_its_budget_until_the_window_that_began_with_the_first_has_passed",
            "a_slot_that_is_lost_more_often_than_its_budget_is_left_alone_until_the_window_has_passed",
        ],
        place: ("operator/src/controller/recover.rs", "after_loss"),
    },
    Complaint {
        words: "groups are half scheduled and starve one another",
        reported: "lws#167",
        tests: &[
            "of_two_that_were_refused_the_first_tries_alone_and_the_other_follows_when_it_is_placed",
            "two_models_that_each_need_all_nodes_do_not_starve_each_other_half_scheduled",
        ],
        place: ("operator/src/controller/queue.rs", "ask"),
    },
    Complaint {
        words: "the operator keeps every pod of the cluster in memory",
        reported: "dynamo#11983",
        tests: &[
            "of_what_the_cluster_holds_only_nodes_and_what_carries_our_label_is_asked_for",
            "only_objects_with_our_label_are_ever_asked_for",
        ],
        place: ("operator/src/controller/dereference/watches.rs", "watch"),
    },
    Complaint {
        words: "a model is ready while its worker is dead",
        reported: "kserve#3845",
        tests: &[
            "a_status_says_what_the_shard_does_and_why",
            "a_model_is_not_ready_while_a_worker_is_dead_in_a_pod_that_runs",
        ],
        place: ("operator/src/controller/dereference/pod/state.rs", "ended"),
    },
    Complaint {
        words: "an autoscaler multiplies groups by pods",
        reported: "aibrix#2780",
        tests: &[
            "the_selector_of_the_scale_subresource_finds_exactly_one_pod_of_a_group",
            "an_autoscaler_at_one_and_a_half_times_the_load_takes_two_groups_of_four_shards_to_three",
        ],
        place: ("operator/src/controller/build.rs", "scale_selector"),
    },
    Complaint {
        words: "what a crashed pod said is gone when it is replaced",
        reported: "aws-do-eks#68",
        tests: &[
            "the_last_words_of_a_lost_shard_outlive_its_pod",
            "a_crashed_shard_leaves_its_exit_code_and_its_last_lines",
        ],
        place: ("operator/src/controller/rollout/lose.rs", "replace"),
    },
    Complaint {
        words: "an upgrade of the operator restarts the fleet",
        reported: "several",
        tests: &[
            "a_new_default_image_touches_no_group_and_a_lost_one_comes_back_with_the_old_one",
            "nodes_that_come_and_go_and_a_new_operator_image_touch_no_pod",
        ],
        place: ("operator/src/controller/revisions.rs", "decide"),
    },
];

const HEAD: &str = "
## Complaints in the field

What users of other operators report, the tests that answer it here, and the place in the code without which the first of
them fails.

| complaint | reported | tests | protected by |
|---|---|---|---|
";

/// The table, under its heading.
pub(super) fn section() -> String {
    let line = |complaint: &Complaint| {
        let (file, function) = complaint.place;
        let tests = listed(complaint.tests);
        format!("| {} | {} | {tests} | `{function}` in `{file}` |\n", complaint.words, complaint.reported)
    };
    HEAD.to_owned() + &ALL.iter().map(line).collect::<String>()
}
