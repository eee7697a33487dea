//! Metadata of a file: typed values by key, in place.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Problem;
use super::cursor::Cursor;

/// Types of values, by their number in the file.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(i128),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    /// Kind and count of its elements, and their bytes.
    Array(u32, usize, Range<usize>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Whole(_) => "a whole number",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::Text(_) => "a string",
            Self::Array(STRING, ..) => "an array of strings",
            Self::Array(..) => "an array of numbers",
        }
    }
}

/// Smallest size of an element of an array, in bytes; `None` for a kind that does not exist.
fn least_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        STRING | 10..=12 => Some(8),
        _ => None,
    }
}

fn scalar(cursor: &mut Cursor<'_>, kind: u32) -> Result<Option<Value>, Problem> {
    let value = match kind {
        0 => Value::Whole(cursor.u8()?.into()),
        1 => Value::Whole((cursor.u8()? as i8).into()),
        2 => Value::Whole(cursor.u16()?.into()),
        3 => Value::Whole((cursor.u16()? as i16).into()),
        4 => Value::Whole(cursor.u32()?.into()),
        5 => Value::Whole((cursor.u32()? as i32).into()),
        6 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        7 => match cursor.u8()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(Problem::Bad(format!("a truth value is {other}; allowed: 0, 1"))),
        },
        10 => Value::Whole(cursor.u64()?.into()),
        11 => Value::Whole((cursor.u64()? as i64).into()),
        12 => Value::Float(f64::from_bits(cursor.u64()?)),
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Reads the value of `key`.
pub(super) fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, Problem> {
    let named = |problem: Problem| match problem {
        Problem::Bad(problem) => Problem::Bad(format!("key {key}: {problem}")),
        Problem::Short => Problem::Short,
    };
    let kind = cursor.u32()?;
    match kind {
        STRING => Ok(Value::Text(cursor.string(&format!("bytes of key {key}"))?)),
        ARRAY => array(cursor, key),
        _ => scalar(cursor, kind)
            .map_err(named)?
            .ok_or_else(|| Problem::Bad(format!("key {key} is of type {kind}; 0 to 12 are known"))),
    }
}

fn array(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, Problem> {
    let kind = cursor.u32()?;
    if kind == ARRAY {
        return Err(Problem::Bad(format!("key {key} is an array of arrays, which no model needs")));
    }
    let size = least_size(kind)
        .ok_or_else(|| Problem::Bad(format!("key {key} is an array of type {kind}; 0 to 12 are known")))?;
    let count = cursor.u64()?;
    let what = format!("elements of key {key}");
    cursor.check_room(&what, count, size)?;
    let count = usize::try_from(count).map_err(|_| Problem::Short)?;
    let start = cursor.at();
    if kind == STRING {
        for _ in 0..count {
            cursor.string(&what)?;
        }
    } else {
        cursor.take(count * size as usize)?;
    }
    Ok(Value::Array(kind, count, start..cursor.at()))
}

/// Every key of a file with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    bytes: Vec<u8>,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(bytes: Vec<u8>, values: BTreeMap<String, Value>) -> Self {
        Self { bytes, values }
    }

    /// Every key, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn wrong<T>(&self, key: &str, needed: &str) -> Result<T, String> {
        let found = self.values.get(key).map_or("missing", Value::kind);
        Err(format!("key {key} is {found}; needed: {needed}"))
    }

    /// A string, if the key is there.
    ///
    /// # Errors
    /// When it is of another type or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => {
                let text = std::str::from_utf8(&self.bytes[range.clone()]);
                text.map(Some).map_err(|_| format!("key {key} is not UTF-8"))
            }
            Some(_) => self.wrong(key, "a string"),
        }
    }

    /// A whole number that is not negative, if the key is there.
    ///
    /// # Errors
    /// When it is of another type or negative.
    pub fn whole(&self, key: &str) -> Result<Option<u64>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) => {
                u64::try_from(*number).map(Some).map_err(|_| format!("key {key} is {number}; 0 or more is allowed"))
            }
            Some(_) => self.wrong(key, "a whole number"),
        }
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(Value::Whole(number)) => Ok(Some(*number as f64)),
            Some(_) => self.wrong(key, "a number"),
        }
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(_) => self.wrong(key, "a truth value"),
        }
    }

    /// An array of strings, if the key is there.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn texts(&self, key: &str) -> Result<Option<Texts<'_>>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(STRING, count, range)) => {
                Ok(Some(Texts { bytes: &self.bytes[range.clone()], left: *count }))
            }
            Some(_) => self.wrong(key, "an array of strings"),
        }
    }

    /// An array of numbers, if the key is there.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, String> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(kind, count, range)) if *kind != STRING => {
                let bytes = &self.bytes[range.clone()];
                let mut cursor = Cursor::new(bytes, bytes.len() as u64);
                let mut number = || match scalar(&mut cursor, *kind) {
                    Ok(Some(Value::Whole(number))) => Some(number as f64),
                    Ok(Some(Value::Float(number))) => Some(number),
                    Ok(Some(Value::Bool(truth))) => Some(f64::from(u8::from(truth))),
                    _ => None,
                };
                (0..*count)
                    .map(|_| number())
                    .collect::<Option<_>>()
                    .map_or_else(|| self.wrong(key, "numbers"), |all| Ok(Some(all)))
            }
            Some(_) => self.wrong(key, "an array of numbers"),
        }
    }
}

/// The strings of an array, in place.
#[derive(Debug, Clone)]
pub struct Texts<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Texts<'a> {
    /// Or the bytes of one that is not UTF-8.
    type Item = Result<&'a str, &'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        self.bytes = rest;
        Some(std::str::from_utf8(text).map_err(|_| text))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
