//! The sums that `models/tiny` has never seen, by the rule of its card.
//!
//! Never asks a model.

use rand::Rng;

/// Two numbers of up to three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// First number, 0 to 999.
    pub a: u32,
    /// Second number, 0 to 999.
    pub b: u32,
}

impl Sum {
    /// A random one that was held out of the training.
    pub fn unseen(random: &mut impl Rng) -> Self {
        loop {
            let sum = Self { a: random.random_range(0..=999), b: random.random_range(0..=999) };
            if sum.is_held_out() {
                return sum;
            }
        }
    }

    /// Whether training never saw it: FNV-1a (64 bits) of `MIN+MAX` is divisible by 11.
    #[must_use]
    pub fn is_held_out(self) -> bool {
        let text = format!("{}+{}", self.a.min(self.b), self.a.max(self.b));
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        hash.is_multiple_of(11)
    }

    /// As a question of the training's kind.
    #[must_use]
    pub fn question(self) -> String {
        format!("What is {}+{}?", self.a, self.b)
    }

    /// Whether `answer`, with its reasoning, ends with the right number.
    #[must_use]
    pub fn is_answered_by(self, answer: &str) -> bool {
        answer.split_once("</think>").is_some_and(|(_, number)| number.trim() == (self.a + self.b).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_agrees_with_the_card() {
        let held_out: Vec<_> = (0..50).filter(|&b| Sum { a: 0, b }.is_held_out()).take(5).collect();
        assert_eq!(held_out, [1, 12, 20, 32, 39]);
        assert!(Sum { a: 456, b: 123 }.is_held_out());
        assert!(!Sum { a: 17, b: 25 }.is_held_out());
    }

    #[test]
    fn only_the_number_after_the_reasoning_counts() {
        let sum = Sum { a: 17, b: 25 };
        assert!(sum.is_answered_by("<think>7+5+0=12, 1+2+1=04\n42</think>42\n"));
        assert!(!sum.is_answered_by("<think>42</think>43"));
        assert!(!sum.is_answered_by("42"));
    }
}
