//! Spoils good inputs.

use super::texts;

/// How far away a text to replace may be.
const TEXT_REACH: usize = 256;

/// SplitMix64. Steele, Lea and Flood 2014.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(name.bytes().fold(seed, |state, byte| state.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Numbers at which checks turn.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    4,
    7,
    8,
    9,
    31,
    127,
    255,
    256,
    65_535,
    1 << 24,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 48,
    i64::MAX as u64,
    u64::MAX,
];
const WORDS: [&str; 16] = [
    "0",
    "-1",
    "1e999",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "18446744073709551615",
    "0.5",
    "[[[[",
    "\\u0000",
    "\u{fffd}",
    "9",
    "}",
    ",",
];
/// Changes one thing; `other` is an input to copy from, `words` are texts to put in the place of texts.
pub(crate) fn change(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    // Headers are where the lies matter.
    let at = if random.below(2) == 0 { at.min(random.below(256)) } else { at };
    let rest = input.len() - at;
    let span = (1 + random.below(32)).min(rest);
    match random.below(13) {
        0 if rest > 0 => input[at] ^= 1 << random.below(8),
        1 if rest > 0 => input[at] = random.next() as u8,
        2 => drop(input.drain(at..at + span)),
        3 => {
            let copy = input[at..at + span].to_vec();
            input.splice(at..at, copy);
        }
        4 => input.truncate(at),
        5 if rest >= 8 => input[at..at + 8].copy_from_slice(&EDGES[random.below(EDGES.len())].to_le_bytes()),
        6 if rest >= 4 => input[at..at + 4].copy_from_slice(&(EDGES[random.below(EDGES.len())] as u32).to_le_bytes()),
        7 => {
            let from = random.below(other.len());
            let to = (from + 1 + random.below(64)).min(other.len());
            input.splice(at..at + span, other[from..to].iter().copied());
        }
        8 => {
            let word = WORDS[random.below(WORDS.len())].bytes();
            // In place of a number, or anywhere.
            let digits = input[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.splice(at..at + digits, word);
        }
        9..12 if !words.is_empty() => {
            let word = &words[random.below(words.len())];
            if let Some(text) = texts::next(input, at..at + TEXT_REACH) {
                texts::replace(input, text, word);
            }
        }
        _ => {
            let byte = random.next() as u8;
            input.splice(at..at, std::iter::repeat_n(byte, span));
        }
    }
}
