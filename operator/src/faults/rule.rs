//! Which faults are ordered, as text. Pure.
//!
//! ```text
//! RULE [; RULE …]        RULE = FAULT [VERB [RESOURCE [WHICH]]]
//! FAULT     409 429 500 503 504 · reset · truncated · slow=MS · ended=MS · expired=MS · crash-before · crash-after
//! VERB      get list watch create update patch delete · write: all but the first three · *: any
//! RESOURCE  as RBAC names it, such as pods or modeldeployments/status · *: any but leases, whose renewals never rest
//! WHICH     of the calls that match, from 1: N · N-M · N- (the default is 1-)
//! ```

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::call::Call;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server's refusal, without asking it. 429 says when to come back.
    Status(u16),
    /// The connection breaks before anything is answered; nothing is sent.
    Reset,
    /// The answer ends in the middle, and with it the connection.
    Truncated,
    /// The call is sent later.
    Slow(Duration),
    /// A watch ends after that time, as servers end them.
    Ended(Duration),
    /// A watch is told after that time that its place in the history is gone.
    Expired(Duration),
    /// The process is killed instead of the call.
    CrashBefore,
    /// The process is killed once the server has answered, before anyone sees the answer.
    CrashAfter,
}

/// One order: which calls it is about and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    verb: String,
    resource: String,
    which: RangeInclusive<u64>,
}

/// All orders of one process. Of several that are about one call, the first wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFaults(pub Vec<Rule>);

/// An order that nobody understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown API fault {0:?}; known: FAULT [VERB [RESOURCE [N|N-M|N-]]] with FAULT one of 409, 429, 500, 503, 504, reset, \
     truncated, slow=MS, ended=MS, expired=MS, crash-before, crash-after"
)]
pub struct UnknownFault(String);

const VERBS: [&str; 9] = ["*", "write", "get", "list", "watch", "create", "update", "patch", "delete"];

impl FromStr for ApiFaults {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        text.split(';').map(|rule| rule.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Rule {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        let mut words = text.split_whitespace();
        let fault = words.next().and_then(fault).ok_or_else(unknown)?;
        let verb = words.next().unwrap_or("*");
        let resource = words.next().unwrap_or("*");
        let which = words.next().map_or(Some(1..=u64::MAX), range).ok_or_else(unknown)?;
        if words.next().is_some() || !VERBS.contains(&verb) {
            return Err(unknown());
        }
        Ok(Self { fault, verb: verb.to_owned(), resource: resource.to_owned(), which })
    }
}

fn fault(word: &str) -> Option<Fault> {
    let (name, amount) = word.split_once('=').map_or((word, None), |(name, amount)| (name, Some(amount)));
    let millis = || amount?.parse().ok().map(Duration::from_millis);
    match (name, amount) {
        ("409" | "429" | "500" | "503" | "504", None) => name.parse().ok().map(Fault::Status),
        ("reset", None) => Some(Fault::Reset),
        ("truncated", None) => Some(Fault::Truncated),
        ("crash-before", None) => Some(Fault::CrashBefore),
        ("crash-after", None) => Some(Fault::CrashAfter),
        ("slow", Some(_)) => millis().map(Fault::Slow),
        ("ended", Some(_)) => millis().map(Fault::Ended),
        ("expired", Some(_)) => millis().map(Fault::Expired),
        _ => None,
    }
}

fn range(word: &str) -> Option<RangeInclusive<u64>> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
    match word.split_once('-') {
        None => number(word).map(|only| only..=only),
        Some((first, "")) => number(first).map(|first| first..=u64::MAX),
        Some((first, last)) => Some(number(first)?..=number(last)?),
    }
}

impl Rule {
    /// Whether the rule is about calls like this one.
    pub(super) fn is_about(&self, call: &Call) -> bool {
        let verb = match self.verb.as_str() {
            "*" => true,
            "write" => !matches!(call.verb, "get" | "list" | "watch"),
            verb => verb == call.verb,
        };
        let resource = if self.resource == "*" { call.resource != "leases" } else { self.resource == call.resource };
        verb && resource
    }

    /// Whether it strikes the `number`th such call, from 1.
    pub(super) fn strikes(&self, number: u64) -> bool {
        self.which.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use rstest::rstest;

    use super::*;

    fn rule(fault: Fault, verb: &str, resource: &str, which: RangeInclusive<u64>) -> Rule {
        Rule { fault, verb: verb.into(), resource: resource.into(), which }
    }

    #[test]
    fn rules_are_read_by_name_with_every_part_but_the_first_optional() {
        let read =
            "crash-after write * 7; slow=250; 429 create pods 2-; expired=40 watch pods 1-3".parse::<ApiFaults>();
        let all = 1..=u64::MAX;
        let expected = [
            rule(Fault::CrashAfter, "write", "*", 7..=7),
            rule(Fault::Slow(Duration::from_millis(250)), "*", "*", all),
            rule(Fault::Status(429), "create", "pods", 2..=u64::MAX),
            rule(Fault::Expired(Duration::from_millis(40)), "watch", "pods", 1..=3),
        ];
        assert_eq!(read, Ok(ApiFaults(expected.into())));
    }

    #[rstest]
    fn what_is_not_in_the_grammar_is_refused(
        #[values(
            "",
            "418",
            "slow",
            "slow=x",
            "reset=3",
            "500 steal",
            "500 get pods 0",
            "500 get pods 1 2",
            "500;",
            "409 * * x"
        )]
        text: &str,
    ) {
        assert!(text.parse::<ApiFaults>().is_err(), "{text:?}");
    }

    #[test]
    fn any_resource_leaves_the_lease_alone_and_writes_are_all_but_reads() {
        let call = |verb, resource: &str| Call { verb, resource: resource.into() };
        let crash = rule(Fault::CrashBefore, "write", "*", 1..=1);
        assert!(crash.is_about(&call("create", "services")) && crash.is_about(&call("delete", "pods")));
        assert!(!crash.is_about(&call("update", "leases")) && !crash.is_about(&call("list", "pods")));
        let slow = rule(Fault::Slow(Duration::ZERO), "*", "leases", 1..=u64::MAX);
        assert!(slow.is_about(&call("update", "leases")) && !slow.is_about(&call("get", "pods")));
    }
}
