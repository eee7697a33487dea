//! The operator against a real control plane with fake nodes, under its chart's ServiceAccount.

use std::process::ExitCode;

use shoal_tests::inside::{World, main as run};
use shoal_tests::tests;

mod cluster {
    pub(crate) mod bad_input;
    pub(crate) mod bench;
    pub(crate) mod chart;
    pub(crate) mod commands;
    pub(crate) mod crashes;
    pub(crate) mod faults;
    pub(crate) mod harness;
    pub(crate) mod lifecycle;
    pub(crate) mod samples;
    pub(crate) mod scenario;
    pub(crate) mod security;
}
use cluster::{bad_input, chart, commands, crashes, faults, harness, lifecycle, samples, security};

fn main() -> anyhow::Result<ExitCode> {
    run(
        World::ControlPlane,
        tests![
            chart::its_definition_is_what_shoal_crds_prints,
            chart::a_value_it_does_not_know_is_refused,
            chart::its_account_may_do_what_it_needs_and_make_secrets_but_never_read_one,
            harness::fake_nodes_show_their_gpus_as_feature_discovery_does,
            harness::a_restricted_pod_becomes_ready_and_a_privileged_one_is_refused,
            harness::a_failed_pod_stays_failed_and_a_held_one_stays_pending,
            harness::the_audit_log_counts_the_writes_of_one_user,
            security::every_revision_has_a_key_pair_that_the_operator_makes_and_never_reads,
            security::a_pair_that_is_there_already_is_used_and_without_the_right_to_make_one_no_pod_is_made,
            security::the_network_policy_is_kept_right_and_removed_when_it_is_switched_off,
            samples::every_sample_gets_the_status_that_is_committed,
            samples::every_invalid_sample_is_refused_for_its_stated_reason,
            samples::pods_are_workers_that_find_one_another_and_own_every_expert_once,
            commands::shoal_status_tells_what_kubectl_tells_and_why,
            commands::shoal_restart_replaces_every_group_by_a_rollout,
            lifecycle::without_nodes_a_model_is_served_and_its_plan_says_that_nothing_was_compared,
            lifecycle::an_edit_surges_by_one_group_and_never_drops_below_the_wished_number,
            lifecycle::a_revert_in_mid_rollout_touches_no_serving_pod,
            lifecycle::kubectl_scale_changes_the_number_of_groups_and_zero_is_ready,
            lifecycle::a_deleted_model_leaves_nothing,
            lifecycle::a_service_of_somebody_else_is_not_touched_and_the_status_says_so,
            lifecycle::a_service_that_was_changed_or_deleted_is_made_right_again,
            faults::a_lost_shard_recreates_its_group_once_and_only_its_group,
            faults::a_drained_pod_takes_its_group_along_and_the_next_epoch_comes_at_once,
            faults::a_restarted_operator_touches_no_pod,
            faults::a_settled_object_costs_no_write_in_a_hundred_passes,
            faults::a_second_operator_stands_by_and_takes_over_from_a_killed_one,
            crashes::killed_before_or_after_any_write_it_leaves_the_same_as_undisturbed,
            bad_input::every_field_wrong_in_every_way_is_refused_planned_or_answered,
            crashes::with_all_pods_and_the_operator_gone_at_once_epochs_only_rise,
        ],
    )
}
