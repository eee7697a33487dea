//! Safetensors files that lie, one lie each.

use std::path::Path;

use shoal_worker::weights::checkpoint::Checkpoint;

const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;

fn file(length: u64, header: &[u8], data: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header, &vec![0; data]].concat()
}

/// The good file with some text of its header replaced.
fn with(from: &str, to: &str) -> Vec<u8> {
    assert!(GOOD.contains(from), "{from} should be in the good header");
    let header = GOOD.replace(from, to);
    file(header.len() as u64, header.as_bytes(), 22)
}

fn whole(header: &str) -> Vec<u8> {
    file(header.len() as u64, header.as_bytes(), 22)
}

fn open(bytes: &[u8], directory: &Path) -> Result<(), String> {
    std::fs::write(directory.join("model.safetensors"), bytes).unwrap();
    let opened = Checkpoint::open(directory).map(drop).map_err(|error| error.to_string());
    opened.map_err(|error| error.rsplit_once("model.safetensors: ").map_or(error.clone(), |(_, it)| it.to_owned()))
}

fn headers() -> Vec<(Vec<u8>, &'static str)> {
    let length = GOOD.len() as u64;
    vec![
        (vec![], "0 bytes are too few for a safetensors file"),
        (vec![0; 7], "7 bytes are too few for a safetensors file"),
        (vec![0; 8], "safetensors header is 0 bytes; allowed: 2 to 16777216"),
        (file(1, b"{}", 0), "safetensors header is 1 bytes; allowed: 2 to 16777216"),
        (file(u64::MAX, GOOD.as_bytes(), 22), "allowed: 2 to 16777216"),
        (file(1 << 62, GOOD.as_bytes(), 22), "allowed: 2 to 16777216"),
        (file((16 << 20) + 1, GOOD.as_bytes(), 22), "safetensors header is 16777217 bytes"),
        (file(16 << 20, GOOD.as_bytes(), 22), "the header claims 16777216 bytes, the file has"),
        (file(length + 23, GOOD.as_bytes(), 22), "the header claims"),
        (file(length - 1, GOOD.as_bytes(), 22), "the header is not valid"),
        (file(length + 1, GOOD.as_bytes(), 22), "the header is not valid"),
        (whole("[]"), "the header is not valid: invalid type: sequence, expected a table of tensors"),
        (whole("17"), "the header is not valid"),
        (whole("null"), "the header is not valid"),
        (whole("{\"a\":"), "EOF while parsing a value"),
        (whole("{\"\u{fffd}"), "the header is not valid"),
        (file(4, b"{\"\xff\"", 22), "the header is not valid"),
        (whole(&"[".repeat(10_000)), "the header is not valid"),
        (whole(&format!("{{\"a\":{}", "[".repeat(10_000))), "the header is not valid"),
        (whole("{}"), "22 bytes after the last tensor belong to none"),
        (whole("{\"__metadata__\":{\"a\":\"b\"}}"), "22 bytes after the last tensor belong to none"),
        (whole("{\"__metadata__\":{\"a\":1}}"), "the header is not valid"),
        (whole("{\"__metadata__\":{},\"__metadata__\":{}}"), "__metadata__ is there twice"),
        (with("\"b\"", "\"a\""), "tensor a is there twice"),
    ]
}

fn tensors() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (with("\"F32\"", "\"F31\""), "tensor a is not described as it should be: unknown variant"),
        (with("\"F32\"", "32"), "tensor a is not described as it should be"),
        (with("\"dtype\":\"F32\",", ""), "tensor a is not described as it should be: missing field `dtype`"),
        (with("\"shape\":[2,2],", ""), "tensor a is not described as it should be: missing field `shape`"),
        (
            with(",\"data_offsets\":[0,16]", ""),
            "tensor a is not described as it should be: missing field `data_offsets`",
        ),
        (with("[2,2]", "[-2,2]"), "tensor a is not described as it should be"),
        (with("[2,2]", "[2.5,2]"), "tensor a is not described as it should be"),
        (with("[2,2]", "\"2\""), "tensor a is not described as it should be"),
        (with("[2,2]", "[1e30]"), "tensor a is not described as it should be"),
        (with("[0,16]", "[0]"), "tensor a is not described as it should be"),
        (with("[0,16]", "[0,16,22]"), "tensor a is not described as it should be"),
        (with("[0,16]", "[-1,16]"), "tensor a is not described as it should be"),
        (with("[2,2]", "[2,3]"), "tensor a has shape [2, 3] of F32, but 16 bytes"),
        (with("[2,2]", "[]"), "tensor a has shape [] of F32, but 16 bytes"),
        (with("[2,2]", "[0]"), "tensor a has shape [0] of F32, but 16 bytes"),
        (with("[2,2]", "[1,1,1,2,2]"), "tensor a has 5 dimensions; at most 4 are allowed"),
        (with("[2,2]", "[9223372036854775807,9223372036854775807]"), "tensor a has shape"),
        (with("[2,2]", "[4294967296,4294967296]"), "tensor a has shape"),
        (with("[2,2]", "[562949953421312]"), "tensor a has shape"),
        (with("\"F32\"", "\"F64\""), "tensor a has shape [2, 2] of F64, but 16 bytes"),
        (with("[16,22]", "[15,21]"), "tensor b overlaps the one before it"),
        (with("[16,22]", "[0,6]"), "overlaps the one before it"),
        (with("[16,22]", "[17,23]"), "1 bytes before tensor b belong to none"),
        (with("[16,22]", "[22,16]"), "tensor b ends at 16, before it begins at 22"),
        (with("[16,22]", "[18446744073709551609,18446744073709551615]"), "past every file"),
        (with("[16,22]", "[16,18446744073709551615]"), "tensor b has shape [3] of BF16, but"),
        (file(GOOD.len() as u64, GOOD.as_bytes(), 21), "it is truncated"),
        (file(GOOD.len() as u64, GOOD.as_bytes(), 23), "1 bytes after the last tensor belong to none"),
    ]
}

#[test]
fn every_lie_in_a_safetensors_file_is_refused_by_what_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(open(&whole(GOOD), directory.path()), Ok(()));
    let lies = [headers(), tensors()].concat();
    assert!(lies.len() >= 40, "{} lies", lies.len());
    let told = |(file, expected): &(Vec<u8>, &'static str)| {
        let found = open(file, directory.path()).err().unwrap_or_default();
        (!found.contains(expected)).then(|| format!("{found:?} does not say {expected:?}"))
    };
    let untold: Vec<String> = lies.iter().filter_map(told).collect();
    assert!(untold.is_empty(), "{untold:#?}");
}
