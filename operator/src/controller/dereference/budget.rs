//! What we own of a PodDisruptionBudget.

use std::collections::BTreeMap;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::object::{Applied, ObjectView};

/// A PodDisruptionBudget as a pass sees it.
pub type BudgetView = ObjectView<PodDisruptionBudget>;

#[derive(Serialize)]
struct Fields {
    least: Option<IntOrString>,
    most_missing: Option<IntOrString>,
    unhealthy: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    expressions: Option<Vec<LabelSelectorRequirement>>,
}

impl Applied for PodDisruptionBudget {
    fn fields(&self) -> impl Serialize {
        let spec = self.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        Fields {
            least: spec.min_available,
            most_missing: spec.max_unavailable,
            unhealthy: spec.unhealthy_pod_eviction_policy,
            labels: selector.match_labels,
            expressions: selector.match_expressions.filter(|list| !list.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Owned;
    use super::*;

    fn owned(change: impl FnOnce(&mut Value)) -> Owned {
        let mut budget = json!({
            "metadata": {"labels": {"inference.shoal.dev/model": "m"}},
            "spec": {
                "minAvailable": 3,
                "selector": {"matchLabels": {"a": "b"}},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        });
        change(&mut budget);
        Owned::of::<PodDisruptionBudget>(&serde_json::from_value(budget).unwrap())
    }

    #[test]
    fn what_the_controller_reports_is_no_drift_but_every_owned_field_is() {
        let built = owned(|_| {});
        assert_eq!(
            built,
            owned(|budget| budget["status"] = json!({"currentHealthy": 4, "desiredHealthy": 3,
            "disruptionsAllowed": 1, "expectedPods": 4}))
        );
        assert_ne!(built, owned(|budget| budget["spec"]["minAvailable"] = json!(2)));
        assert_ne!(built, owned(|budget| budget["spec"]["minAvailable"] = json!("3")));
        assert_ne!(built, owned(|budget| budget["spec"]["maxUnavailable"] = json!(1)));
        assert_ne!(built, owned(|budget| budget["spec"]["selector"]["matchLabels"]["a"] = json!("c")));
        assert_ne!(built, owned(|budget| budget["spec"]["unhealthyPodEvictionPolicy"] = json!("IfHealthyBudget")));
        assert_ne!(built, owned(|budget| budget["metadata"]["labels"] = json!({})));
    }
}
