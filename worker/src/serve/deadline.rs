//! The client's patience, as `grpc-timeout` states it. Never reads the clock.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// No request lives longer: its connection would not either.
const LONGEST: Duration = Duration::from_secs(3600);

/// The time that the client gives, at most an hour; `None` where it says nothing, or nothing legible.
pub(super) fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    parse(text).map(|timeout| timeout.min(LONGEST))
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_protocol_is_understood_and_nothing_else() {
        let hour = Some(Duration::from_secs(3600));
        let read = ["1H", "60M", "3600S", "3600000m", "2u", "3n"].map(parse);
        assert_eq!(read, [hour, hour, hour, hour, Some(Duration::from_micros(2)), Some(Duration::from_nanos(3))]);
        assert_eq!(["", "S", "1", "1x", "-1S", "123456789S", "1é"].map(parse), [None; 7]);
    }

    #[test]
    fn patience_is_cut_to_an_hour() {
        let mut metadata = MetadataMap::new();
        assert_eq!(timeout(&metadata), None);
        metadata.insert("grpc-timeout", "99999999H".parse().unwrap());
        assert_eq!(timeout(&metadata), Some(LONGEST));
    }
}
