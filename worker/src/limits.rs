//! Every limit on what comes from outside, in one table that the checks, the flags and the documents share.
//!
//! Never holds a limit that depends on the model: those are compared where the model is known, beneath these.

mod table;

pub use table::*;

/// A closed range of numbers with a name and a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The field or flag, as the user writes it.
    pub name: &'static str,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// What is counted; empty for a bare number.
    pub unit: &'static str,
}

/// A value outside its [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{} is {}{}; allowed: {}", .limit.name, plain(*.value), .limit.spaced_unit(), .limit.range())]
pub struct OutOfLimit {
    /// What was exceeded.
    pub limit: Limit,
    /// What was given.
    pub value: f64,
}

impl Limit {
    /// Whether `value` lies within; a NaN never does.
    ///
    /// # Errors
    /// [`OutOfLimit`], naming the value and the range.
    pub fn check(self, value: impl Into<f64>) -> Result<(), OutOfLimit> {
        let value = value.into();
        if (self.min..=self.max).contains(&value) { Ok(()) } else { Err(OutOfLimit { limit: self, value }) }
    }

    /// [`Self::check`] for a count of things in memory.
    ///
    /// # Errors
    /// [`OutOfLimit`], naming the value and the range.
    pub fn check_count(self, count: usize) -> Result<(), OutOfLimit> {
        // Exact below 2⁵³, and no limit is near that.
        self.check(count as f64)
    }

    fn range(self) -> String {
        format!("{} to {}", plain(self.min), plain(self.max))
    }

    fn spaced_unit(self) -> String {
        if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) }
    }
}

/// A fraction that came from F32 is written as the user wrote it, not with the digits that F64 adds.
fn plain(value: f64) -> String {
    let single = value as f32;
    if value.fract() != 0.0 && f64::from(single) == value { single.to_string() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn every_limit_of_the_table_holds_at_its_edges_and_nowhere_beyond() {
        for &limit in ALL {
            let allowed = |value: f64| limit.check(value).is_ok();
            let verdicts = [limit.min - 1.0, limit.min, limit.max, limit.max + 1.0, f64::NAN, 1e300, f64::INFINITY];
            assert_eq!(verdicts.map(allowed), [false, true, true, false, false, false, false], "{limit:?}");
        }
    }

    #[test]
    fn the_documents_show_this_table() {
        let mut page = String::from(
            "# Limits\n\nWhat a worker accepts; anything else is refused by name. This page is generated from the table that the\n\
             checks use (`SHOAL_BLESS=1 cargo test -p shoal-worker limits`).\n\n| name | smallest | largest | unit |\n|---|---|---|---|\n",
        );
        for Limit { name, min, max, unit } in ALL {
            page.push_str(&format!("| `{name}` | {} | {} | {unit} |\n", plain(*min), plain(*max)));
        }
        page.push_str(&format!("| a received message | 0 | {RECEIVE_BYTES} | bytes |\n"));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md");
        if std::env::var_os("SHOAL_BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page);
    }

    #[test]
    fn names_are_unique_and_ranges_are_not_empty() {
        let mut names: Vec<_> = ALL.iter().map(|limit| limit.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|limit| limit.min <= limit.max));
    }

    #[test]
    fn a_refusal_names_the_field_the_value_and_the_range() {
        let text = |error: Result<(), OutOfLimit>| error.unwrap_err().to_string();
        assert_eq!(text(STOP_BYTES.check(1_000_000)), "stop[] is 1000000 bytes; allowed: 1 to 256");
        assert_eq!(text(TOP_P.check(1.1_f32)), "sampling.top_p is 1.1; allowed: 0.000001 to 1");
        assert_eq!(text(TEMPERATURE.check(f32::NAN)), "sampling.temperature is NaN; allowed: 0 to 2");
    }
}
