//! Loud skips: `SHOAL_REQUIRE` names what this machine must be able to do.

/// Says that a test is skipped and why, or fails it when `SHOAL_REQUIRE` contains `word`.
///
/// Words: `cluster`, `node`, `images`, `python`, `wgpu`, `cuda`.
///
/// # Panics
/// When `word` is required: then a skip is a failure.
pub fn skip_or_fail(word: &str, reason: &str) {
    let required = std::env::var("SHOAL_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|w| w.trim() == word), "{word} is required here, but: {reason}");
    eprintln!("skipped: {reason}");
}
