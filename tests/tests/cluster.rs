//! The operator against a real control plane with fake nodes, under its chart's ServiceAccount.

use std::process::ExitCode;

use shoal_tests::inside::{World, main_and_then as run};
use shoal_tests::tests;

mod cluster {
    pub(crate) mod api_faults;
    pub(crate) mod bad_input;
    pub(crate) mod bench;
    pub(crate) mod chart;
    pub(crate) mod commands;
    pub(crate) mod crashes;
    pub(crate) mod crowd;
    pub(crate) mod disruption;
    pub(crate) mod edits;
    pub(crate) mod faults;
    pub(crate) mod harness;
    pub(crate) mod lifecycle;
    pub(crate) mod losses;
    pub(crate) mod newer;
    pub(crate) mod operations;
    pub(crate) mod renders;
    pub(crate) mod rights;
    pub(crate) mod samples;
    pub(crate) mod scenario;
    pub(crate) mod scheduling;
    pub(crate) mod security;
    pub(crate) mod serving;
    pub(crate) mod tampering;
    pub(crate) mod tasks;
}
use cluster::{
    api_faults, bad_input, chart, commands, crashes, crowd, disruption, edits, faults, harness, lifecycle, losses,
    newer, operations, renders, rights, samples, scheduling, security, serving, tampering, tasks,
};

fn main() -> anyhow::Result<ExitCode> {
    run(
        World::ControlPlane,
        tests![
            chart::its_definition_is_what_shoal_crds_prints,
            chart::a_value_it_does_not_know_is_refused,
            chart::its_gpu_catalogue_reaches_the_operator_as_json,
            chart::its_account_may_do_what_it_needs_and_make_secrets_but_never_read_one,
            renders::every_render_is_the_committed_one,
            renders::everything_on_sets_every_value,
            renders::its_schema_knows_every_key_at_every_depth,
            renders::no_role_has_a_wildcard_and_none_reads_secrets,
            renders::kinds_of_the_prometheus_operator_are_rendered_only_where_they_exist,
            renders::an_api_server_takes_every_render_and_the_operators_pod_is_restricted,
            renders::the_definition_is_rendered_with_a_policy_that_keeps_it,
            renders::what_rules_and_dashboard_look_at_is_exported_by_a_running_operator,
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
            commands::a_restart_that_cannot_go_on_says_why_and_fails,
            commands::shoal_logs_keeps_the_last_words_of_a_lost_group,
            operations::a_claim_and_an_image_are_mounted_read_only_for_every_shard,
            operations::groups_spread_over_zones_and_their_shards_pack_on_a_host,
            operations::packing_and_spreading_give_way_where_there_is_no_room,
            operations::a_headless_client_service_resolves_to_every_pod_and_changes_without_touching_one,
            operations::helm_waits_for_a_model_and_fails_with_a_broken_one,
            operations::helm_does_not_take_an_unseen_model_for_a_finished_one,
            operations::a_model_whose_status_was_lost_keeps_its_pods_and_counts_its_epochs_on,
            operations::a_rollout_whose_status_was_lost_goes_on_and_touches_no_serving_pod,
            tasks::the_comparison_takes_wildcards_and_nothing_else,
            tasks::every_command_of_the_page_prints_what_the_page_shows,
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
            disruption::two_groups_get_a_budget_that_follows_them_and_a_single_one_gets_none,
            disruption::a_budget_of_somebody_else_is_not_touched_and_the_status_says_so,
            disruption::of_two_groups_evicted_back_to_back_the_second_waits_until_the_first_is_ready,
            disruption::a_rollout_that_is_stuck_keeps_no_node_from_being_emptied,
            disruption::kubectl_drain_of_a_node_with_two_shards_of_one_group_finishes,
            losses::a_shard_killed_for_its_memory_is_told_from_a_crash,
            losses::a_crashed_shard_leaves_its_exit_code_and_its_last_lines,
            losses::a_shard_evicted_by_its_kubelet_says_what_the_node_was_short_of,
            losses::an_image_that_cannot_be_pulled_is_its_own_reason,
            losses::while_a_peer_pulls_its_image_a_lost_shard_waits_and_then_costs_one_epoch,
            losses::a_shard_that_makes_room_for_a_higher_priority_is_preempted,
            losses::a_silent_node_loses_its_shards_at_its_taint_and_no_pod_is_forced,
            losses::a_deleted_node_loses_its_shards_at_once,
            losses::without_nodes_a_lost_node_shows_by_its_pods,
            losses::shards_that_fail_together_while_starting_cost_one_epoch,
            losses::a_model_is_not_ready_while_a_worker_is_dead_in_a_pod_that_runs,
            serving::a_shard_gets_requests_only_once_it_is_ready,
            serving::an_autoscaler_at_one_and_a_half_times_the_load_takes_two_groups_of_four_shards_to_three,
            scheduling::a_group_without_room_is_withdrawn_whole_and_comes_with_the_next_node,
            scheduling::two_models_that_each_need_all_nodes_do_not_starve_each_other_half_scheduled,
            scheduling::a_model_that_fits_nowhere_keeps_no_other_from_coming_back,
            crowd::sixty_models_at_once_are_served_though_pods_are_refused_and_one_can_never_be,
            crashes::killed_before_or_after_any_write_it_leaves_the_same_as_undisturbed,
            api_faults::any_error_at_any_verb_leaves_the_same_as_undisturbed,
            api_faults::while_its_calls_fail_an_object_asks_at_most_ten_times_a_second,
            api_faults::a_watch_that_ends_resumes_and_one_that_expired_lists_once,
            api_faults::pods_that_no_watch_shows_for_long_are_asked_for_and_never_taken_for_lost,
            api_faults::a_slow_call_for_one_object_does_not_hold_up_another,
            api_faults::a_leader_that_cannot_renew_ends_and_its_successor_touches_no_pod,
            api_faults::what_a_paused_leader_still_sends_has_no_effect,
            api_faults::a_right_taken_away_is_named_in_the_status_and_given_back_is_enough,
            api_faults::a_quota_that_refuses_a_pod_leaves_no_partial_group,
            api_faults::a_namespace_deleted_under_the_operator_is_soon_forgotten,
            newer::what_a_newer_version_stored_is_kept_named_and_in_nobodys_way,
            tampering::a_pod_whose_labels_or_owner_were_changed_is_replaced_and_holds_nothing_that_is_ours,
            edits::quick_edits_end_in_the_newest_with_one_group_more_than_wished_at_most,
            edits::a_scaler_and_an_editor_never_fight_and_the_operator_never_writes_the_spec,
            edits::a_model_deleted_while_its_pods_are_made_leaves_nothing,
            edits::a_model_deleted_without_an_operator_leaves_nothing_and_comes_back_whole,
            edits::nodes_that_come_and_go_and_a_new_operator_image_touch_no_pod,
            edits::helm_waits_for_a_model_and_fails_with_one_that_cannot_be_served,
            rights::what_happens_rarely_needs_the_same_rights_in_both_modes,
            bad_input::every_field_wrong_in_every_way_is_refused_planned_or_answered,
            crashes::with_all_pods_and_the_operator_gone_at_once_epochs_only_rise,
        ],
        tests![
            rights::only_objects_with_our_label_are_ever_asked_for,
            rights::every_right_of_the_chart_is_used_and_no_other_is_wanted,
        ],
    )
}
