//! A real kubelet, containerd, kube-proxy and CoreDNS: the chart, a manifest, right answers, losses and rollouts.

use std::process::ExitCode;

use shoal_tests::inside::{World, main as run};
use shoal_tests::tests;

mod node {
    pub(crate) mod harness;
    pub(crate) mod one_manifest;
    pub(crate) mod pipeline;
    pub(crate) mod rollouts;
}
use node::{one_manifest, pipeline, rollouts};

fn main() -> anyhow::Result<ExitCode> {
    run(
        World::Node,
        tests![
            // The next one finds its chart and takes it away.
            pipeline::it_answers_through_a_service_that_leads_to_its_first_stage_alone,
            one_manifest::it_answers_through_dns_survives_a_killed_worker_and_outlives_the_chart,
            rollouts::a_wrong_image_its_revert_and_a_restart_fail_no_request_of_a_client_without_retries,
        ],
    )
}
