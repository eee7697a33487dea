//! Faults that a test may order. Never set in production: the flag is hidden and its use is logged.

use std::str::FromStr;

/// What is to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `hang-expert-lane-after=N`: peers' rows are not answered after N frames, while heartbeats go on.
    HangExpertLaneAfter(u64),
    /// `hang-stage-after=N`: a stage of a pipeline, not the first, stands still after N steps, while heartbeats go on.
    HangStageAfter(u64),
    /// `zero-partials`: peers get zeros for sums.
    ZeroPartials,
    /// `leave-at-once`: a drain ends as soon as it begins.
    LeaveAtOnce,
}

/// A fault that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown fault {0:?}; known: hang-expert-lane-after=N, hang-stage-after=N, zero-partials, leave-at-once")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        match text {
            "zero-partials" => Ok(Self::ZeroPartials),
            "leave-at-once" => Ok(Self::LeaveAtOnce),
            _ => {
                let (name, count) = text.split_once('=').ok_or_else(unknown)?;
                let count = count.parse().map_err(|_| unknown())?;
                match name {
                    "hang-expert-lane-after" => Ok(Self::HangExpertLaneAfter(count)),
                    "hang-stage-after" => Ok(Self::HangStageAfter(count)),
                    _ => Err(unknown()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_by_name_and_others_are_refused() {
        assert_eq!("hang-expert-lane-after=12".parse(), Ok(Fault::HangExpertLaneAfter(12)));
        assert_eq!("hang-stage-after=3".parse(), Ok(Fault::HangStageAfter(3)));
        assert_eq!("zero-partials".parse(), Ok(Fault::ZeroPartials));
        assert_eq!("leave-at-once".parse(), Ok(Fault::LeaveAtOnce));
        for text in ["", "hang-expert-lane-after=x", "fire"] {
            assert_eq!(text.parse::<Fault>(), Err(UnknownFault(text.to_owned())));
        }
    }
}
