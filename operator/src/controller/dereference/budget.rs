//! What we own of a PodDisruptionBudget.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::object::{Applied, ObjectView};

/// A PodDisruptionBudget as a pass sees it.
pub type BudgetView = ObjectView<PodDisruptionBudget>;

impl Applied for PodDisruptionBudget {
    const FIELDS: &'static [&'static str] =
        &["minAvailable", "maxUnavailable", "selector", "unhealthyPodEvictionPolicy"];
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
