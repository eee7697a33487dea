//! Texts within inputs: between quotes as JSON has them, behind their length as GGUF has them.

use std::collections::BTreeSet;
use std::ops::Range;

const MOST_BYTES: usize = 128;
const MOST_WORDS: usize = 4096;

/// A text and what holds it.
pub(crate) struct Text {
    /// Its bytes.
    pub(crate) place: Range<usize>,
    /// Eight bytes before it say how long it is.
    pub(crate) counted: bool,
}

/// The first text that begins in `places`.
pub(crate) fn next(input: &[u8], places: Range<usize>) -> Option<Text> {
    (places.start..places.end.min(input.len())).find_map(|at| quoted(input, at).or_else(|| counted(input, at)))
}

fn quoted(input: &[u8], at: usize) -> Option<Text> {
    let opens = input[at] == b'"' && at > 0 && b"{[,: \n".contains(&input[at - 1]);
    let rest = opens.then(|| &input[at + 1..])?;
    let len = rest.iter().take(MOST_BYTES).position(|&byte| byte == b'"')?;
    Some(Text { place: at + 1..at + 1 + len, counted: false })
}

fn counted(input: &[u8], at: usize) -> Option<Text> {
    let (len, rest) = input[at..].split_first_chunk()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok().filter(|len| (1..=MOST_BYTES).contains(len))?;
    let is_text = rest.get(..len)?.iter().all(|&byte| byte >= b' ' && byte != 127);
    is_text.then(|| Text { place: at + 8..at + 8 + len, counted: true })
}

/// Every text of some inputs, once.
pub(crate) fn all(inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut words = BTreeSet::new();
    for input in inputs {
        let mut at = 0;
        while let Some(Text { place, counted }) = next(input, at..input.len()) {
            at = place.end + usize::from(!counted);
            words.insert(input[place].to_vec());
        }
    }
    words.into_iter().take(MOST_WORDS).collect()
}

/// Puts `word` in the place of a text, and its length before it.
pub(crate) fn replace(input: &mut Vec<u8>, text: Text, word: &[u8]) {
    let Text { place, counted } = text;
    if counted {
        input[place.start - 8..place.start].copy_from_slice(&(word.len() as u64).to_le_bytes());
    }
    input.splice(place, word.iter().copied());
}
