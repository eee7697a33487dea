//! What `shoal plan` answers: as text, or as data for programs. Pure.

use std::fmt;

use serde::Serialize;

use crate::controller::plan::{Plan, plan};
use crate::controller::validate::{Rejection, validate};
use crate::crd::{ModelDeployment, PlanStatus};
use crate::inventory::Inventory;

/// Everything that was planned.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Which nodes were looked at.
    pub(super) nodes: String,
    pub(super) models: Vec<ModelAnswer>,
}

/// One model: the conditions Accepted and Planned as the operator would set them, and the plan of its status.
#[derive(Debug, Serialize)]
pub(super) struct ModelAnswer {
    name: String,
    accepted: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    planned: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanStatus>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn accepted(answer: Result<(), &Rejection>) -> Self {
        match answer {
            Ok(()) => Self { status: true, reason: "Accepted", message: String::new() },
            Err(no) => Self { status: false, reason: no.reason(), message: no.to_string() },
        }
    }

    fn planned(plan: &Plan) -> Self {
        let reason = plan.verdict.reason;
        Self { status: reason.permits_pods(), reason: reason.as_str(), message: plan.verdict.message.clone() }
    }
}

impl ModelAnswer {
    /// Validates and plans one object.
    pub(super) fn of(object: &ModelDeployment, inventory: &Inventory) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        match validate(object) {
            Ok(spec) => Self::planned(name, spec.supported(), &plan(&spec, inventory)),
            Err(no) => Self { name, accepted: Verdict::accepted(Err(&no)), planned: None, plan: None },
        }
    }

    fn planned(name: String, supported: Result<(), Rejection>, plan: &Plan) -> Self {
        let accepted = Verdict::accepted(supported.as_ref().copied());
        Self { name, accepted, planned: Some(Verdict::planned(plan)), plan: Some(plan.to_status()) }
    }

    /// Whether the operator would make pods.
    pub(super) fn can_run(&self) -> bool {
        self.accepted.status && self.planned.as_ref().is_some_and(|planned| planned.status)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nodes: {}", self.nodes)?;
        self.models.iter().try_for_each(|model| write!(f, "{model}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = if self.status { "True" } else { "False" };
        write!(f, "{status}/{}: {}", self.reason, self.message)
    }
}

/// The summary, then the reasons; each term of the arithmetic under the other.
impl fmt::Display for ModelAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, accepted, planned, plan } = self;
        let Some(plan) = plan else { return writeln!(f, "\n{name}: Accepted={accepted}") };
        writeln!(f, "\n{name}: {}", plan.summary)?;
        if !accepted.status {
            writeln!(f, "  Accepted={accepted}")?;
        }
        if let Some(planned) = planned {
            writeln!(f, "  Planned={planned}")?;
        }
        plan.arithmetic.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        plan.rejected.iter().try_for_each(|other| writeln!(f, "  not {}: {}", other.layout, other.reason))?;
        plan.better.iter().try_for_each(|better| writeln!(f, "  better: {better}"))
    }
}

/// One plan as text: its summary, then its reasons.
pub(in crate::cli) fn describe(name: &str, supported: Result<(), Rejection>, plan: &Plan) -> String {
    ModelAnswer::planned(name.to_owned(), supported, plan).to_string()
}
