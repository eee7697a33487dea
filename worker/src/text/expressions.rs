//! What the regular expressions of a tokenizer will cost, before they are compiled. Never compiles one.
//!
//! A class such as `\p{L}` becomes hundreds of states, once for every repetition of what it stands in; a file of some
//! kilobytes can ask for gigabytes.

use std::str::Chars;

use serde_json::Value;

/// So many plain characters cost as much as a class.
const CLASS: usize = 32;

/// One for each expression in a part of a `tokenizer.json`, and its classes, times how often they are repeated.
pub(super) fn classes(part: &Value) -> usize {
    match part {
        Value::Array(values) => values.iter().map(classes).fold(0, usize::saturating_add),
        Value::Object(fields) => {
            let text = |key: &str| fields.get(key).and_then(Value::as_str);
            let own = text("Regex").map_or(0, |expression| 1 + weight(expression) / CLASS);
            // Plain texts are compiled too.
            let plain = text("String").map_or(0, |text| 1 + text.chars().count() / CLASS);
            fields.values().map(classes).fold(own + plain, usize::saturating_add)
        }
        _ => 0,
    }
}

/// In characters. What is repeated is the last class, or after a group everything before it.
fn weight(expression: &str) -> usize {
    // Behind a `#` may be a comment, whose end nobody here knows.
    let is_plain = !expression.contains('#');
    let (mut count, mut last) = (0_usize, 0_usize);
    let mut rest = expression.chars();
    while let Some(c) = rest.next() {
        let own = match c {
            '\\' => escaped(&mut rest),
            '.' => CLASS,
            _ => 1,
        };
        count = count.saturating_add(own);
        match c {
            '\\' | '.' if is_plain => last = own,
            ']' if is_plain => last = 2 * CLASS,
            '{' => {
                let times = repeated(rest.as_str());
                count = count.saturating_add(last.saturating_mul(times - 1));
                last = last.saturating_mul(times);
            }
            ')' => last = count,
            _ if is_plain => last = last.max(1),
            _ => last = count,
        }
    }
    count
}

/// What follows a backslash: a class, or one character.
fn escaped(rest: &mut Chars<'_>) -> usize {
    let Some(c) = rest.next() else { return 1 };
    // The code of a character, or the name of a class.
    if "xuUpP".contains(c) && rest.as_str().starts_with('{') {
        rest.find(|&c| c == '}');
    }
    if c.is_ascii_alphabetic() && !"xuUrnt".contains(c) { CLASS } else { 1 }
}

/// The larger number of `n}`, `n,}` or `n,m}`; 1 for anything else.
fn repeated(rest: &str) -> usize {
    let bounds = rest.split('}').next().unwrap_or_default().split(',');
    let numbers = bounds.map(|bound| bound.split_whitespace().collect::<String>());
    numbers.filter_map(|number| number.parse().ok()).fold(1, usize::max)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_count_as_often_as_they_are_repeated() {
        let counted = [
            ("abc", 0),
            (r"\p{L}+", 1),
            (r"[^\s\p{L}]|.", 3),
            (r"\p{L}\p{N}{1,3}", 4),
            (r"(\p{L}\p{N}){1,3}", 6),
            (r"((\w{4}){ 5 , 6 }){7,}", 178),
            (r"\w (?x) # \w a {9}", 21),
            (r"[\w]{3}", 5),
            (r"a\x{1234}\{9}\p{N}", 1),
            (r"\w{99999999999}{99999999999}{99999999999}", usize::MAX / CLASS),
            (r"\w{x}{99999999999999999999999}", 1),
        ];
        for (expression, count) in counted {
            assert_eq!(weight(expression) / CLASS, count, "{expression}");
        }
    }

    #[test]
    fn expressions_are_found_wherever_they_stand() {
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}});
        let plain = json!({"type": "Replace", "pattern": {"String": " "}, "content": ""});
        let part =
            json!({"type": "Sequence", "pretokenizers": [split(r"\d"), {"type": "Digits"}, split(r"\w\w"), plain]});
        assert_eq!(classes(&part), 6);
    }
}
