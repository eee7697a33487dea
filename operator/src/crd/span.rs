//! A length of time as users write it.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A whole number with `s`, `m` or `h`, such as `20m`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Span(pub String);

impl Span {
    /// The length; `None` for what the schema refuses.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let (number, unit) = self.0.split_at_checked(self.0.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let number: u64 = number.parse().ok().filter(|number| (1..=99_999).contains(number))?;
        Some(Duration::from_secs(number * seconds))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 6,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[1-9][0-9]{0,4}[smh]$')",
                "message": "a length of time must be a whole number from 1 to 99999 with s, m or h, such as 20m",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_a_unit_and_everything_else_is_none() {
        let of = |text: &str| Span(text.to_owned()).duration().map(|duration| duration.as_secs());
        assert_eq!(["90s", "20m", "2h"].map(of), [Some(90), Some(1200), Some(7200)]);
        assert_eq!(["", "m", "0s", "-1s", "1d", "1.5h", "100000s", "1 m", "２m"].map(of), [None; 9]);
    }
}
