//! Stop strings in a stream. Never decodes tokens.

/// What a piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// This much is certain and may be sent.
    No(String),
    /// A stop string is complete; this much stands before it.
    Yes(String),
}

/// Watches one answer for its stop strings. The string that is complete first ends the answer (of several complete at
/// once the one that began first), however the text is cut into pieces.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string; shorter than the longest of them.
    held: String,
}

impl StopMatcher {
    /// `stops` are not empty strings.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds text and says what is certain now.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stops.is_empty() {
            return Stopped::No(text.to_owned());
        }
        self.held.push_str(text);
        if let Some(begin) = self.first_match() {
            self.held.truncate(begin);
            return Stopped::Yes(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - keep);
        Stopped::No(std::mem::replace(&mut self.held, held))
    }

    /// Whether text is being held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The answer is over: what was held back was no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string begins that ends first.
    fn first_match(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|begin| (begin + stop.len(), begin)));
        found.min().map(|(_, begin)| begin)
    }
}

/// The length of the longest end of `text` that is a true beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..n]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&s| s.to_owned()).collect());
        let mut sent = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Stopped::No(text) => sent.push_str(&text),
                Stopped::Yes(text) => return (sent + &text, true),
            }
        }
        (sent + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_string_across_pieces_ends_the_answer_before_it() {
        assert_eq!(run(&["END"], &["so E", "N", "D and more"]), ("so ".into(), true));
        assert_eq!(run(&["END"], &["so E", "N", "Dless"]), ("so ".into(), true));
        assert_eq!(run(&["END"], &["so EN", "ough EN"]), ("so ENough EN".into(), false));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["é"], &["caf", "é"]), ("caf".into(), true));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn the_string_that_is_complete_first_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".into(), true));
        assert_eq!(run(&["c", "abc"], &["xabc"]), ("x".into(), true));
    }

    proptest! {
        #[test]
        fn cutting_the_text_otherwise_changes_nothing(
            text in "[abé]{0,40}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(1_usize..5, 0..40),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut pieces = Vec::new();
            let chars: Vec<char> = text.chars().collect();
            let mut rest = chars.as_slice();
            let mut sizes = cuts.iter().copied().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                pieces.push(piece.iter().collect::<String>());
                rest = tail;
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &pieces), run(&stops, &[text.as_str()]));
        }
    }
}
