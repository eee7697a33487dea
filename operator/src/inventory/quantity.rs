//! Kubernetes quantities as integers. Never rounds down what a pod needs.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount in thousandths, rounded up; `None` if it is no non-negative quantity or does not fit.
#[must_use]
pub fn millis(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let too_long = whole.len() > 19 || fraction.len() > 9;
    if (whole.is_empty() && fraction.is_empty()) || too_long || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let below = 10_u128.pow(u32::try_from(fraction.len()).ok()?).checked_mul(divisor)?;
    let scaled = digits.checked_mul(multiplier)?.checked_mul(1000)?;
    u64::try_from(scaled.div_ceil(below)).ok()
}

/// The amount in whole units, rounded up.
#[must_use]
pub fn units(quantity: &Quantity) -> Option<u64> {
    millis(quantity).map(|amount| amount.div_ceil(1000))
}

/// Multiplier and divisor of a suffix.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_u128.pow(3 * power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "" => Some((1, 1)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            Some((10_u128.pow(power), 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_amount_is_read() {
        let table = [
            ("100m", Some(100)),
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("2Gi", Some((2 << 30) * 1000)),
            ("1500M", Some(1_500_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("1n", Some(1)),
            (".5", Some(500)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1 Gi", None),
            ("1GiB", None),
            ("1.2.3", None),
            ("1e99", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(millis(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}
