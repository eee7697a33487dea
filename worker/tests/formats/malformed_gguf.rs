//! Files that lie, one lie each.

use std::path::Path;

use shoal_worker::model::config::ModelConfig;
use shoal_worker::program::Dtype;
use shoal_worker::weights::checkpoint::Checkpoint;

use super::gguf::{Tensor, Writer, string};

/// Two tensors and some keys; what is said about it stays true whatever is spoiled elsewhere.
fn good() -> Writer {
    let mut writer = Writer::new("qwen3moe");
    writer.whole("qwen3moe.block_count", 1);
    writer.tensor("token_embd.weight", &[4, 32], Dtype::F32, vec![0; 512]);
    writer.tensor("output.weight", &[4, 32], Dtype::Q8_0, vec![0; 136]);
    writer
}

fn open(bytes: &[u8], directory: &Path) -> Result<(), String> {
    let path = directory.join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let opened = Checkpoint::open(&path).map(drop).map_err(|error| error.to_string());
    opened.map_err(|error| error.rsplit_once("model.gguf: ").map_or(error.clone(), |(_, problem)| problem.to_owned()))
}

/// The good file with one thing changed.
fn with(change: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = good();
    change(&mut writer);
    writer.bytes()
}

fn tensor(change: impl FnOnce(&mut Tensor)) -> Vec<u8> {
    with(|writer| change(&mut writer.tensors[1]))
}

fn raw(kind: u32, value: &[u8]) -> Vec<u8> {
    with(|writer| writer.raw("x", kind, value))
}

fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    raw(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat())
}

/// The good file with some bytes replaced.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = good().bytes();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn cut(len: usize) -> Vec<u8> {
    let mut file = good().bytes();
    file.truncate(len);
    file
}

fn headers() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (vec![], "0 bytes are too few for a GGUF file"),
        (b"GGUF".to_vec(), "4 bytes are too few for a GGUF file"),
        (cut(23), "23 bytes are too few for a GGUF file"),
        (patched(0, b"GGML"), "it does not begin with \"GGUF\""),
        (patched(0, b"FUGG"), "it does not begin with \"GGUF\""),
        (patched(4, &0_u32.to_le_bytes()), "version 0 is not supported; supported: 2, 3"),
        (patched(4, &1_u32.to_le_bytes()), "version 1 is not supported; supported: 2, 3"),
        (patched(4, &4_u32.to_le_bytes()), "version 4 is not supported; supported: 2, 3"),
        (patched(4, &3_u32.to_be_bytes()), "big-endian files are not supported"),
        (patched(8, &u64::MAX.to_le_bytes()), "GGUF tensors is 18446744073709552000; allowed: 0 to 65536"),
        (patched(16, &u64::MAX.to_le_bytes()), "GGUF metadata keys is 18446744073709552000; allowed: 0 to 65536"),
        (patched(8, &60_000_u64.to_le_bytes()), "tensors: 60000 do not fit the"),
        (patched(16, &60_000_u64.to_le_bytes()), "metadata keys: 60000 do not fit the"),
        (with(|writer| writer.counts = (None, Some(3))), "GGUF name is 0 bytes; allowed: 1 to 256"),
        (cut(60), "tensors: 2 do not fit the 36 bytes"),
        (cut(200), "ends"),
    ]
}

fn keys() -> Vec<(Vec<u8>, &'static str)> {
    let twice = |writer: &mut Writer| writer.keys.push(writer.keys[1].clone());
    let named = |name: &str| with(|writer| writer.keys.push((name.to_owned(), [4, 0, 0, 0, 1, 0, 0, 0].to_vec())));
    vec![
        (with(twice), "key qwen3moe.block_count is there twice"),
        (named(""), "GGUF name is 0 bytes; allowed: 1 to 256"),
        (named(&"k".repeat(257)), "GGUF name is 257 bytes; allowed: 1 to 256"),
        (patched(32, &[0xff, 0xfe]), "a metadata key is not UTF-8"),
        (patched(24, &u64::MAX.to_le_bytes()), "GGUF name is 18446744073709552000 bytes; allowed: 1 to 256"),
        (raw(13, &[0; 8]), "key x is of type 13; 0 to 12 are known"),
        (raw(u32::MAX, &[0; 8]), "key x is of type 4294967295; 0 to 12 are known"),
        (raw(7, &[2]), "key x: a truth value is 2; allowed: 0, 1"),
        (raw(8, &u64::MAX.to_le_bytes()), "bytes of key x: 18446744073709551615 do not fit the"),
        (raw(8, &(1_u64 << 40).to_le_bytes()), "bytes of key x: 1099511627776 do not fit the"),
        (array(9, 1, &[0; 64]), "key x is an array of arrays, which no model needs"),
        (array(13, 1, &[0; 64]), "key x is an array of type 13; 0 to 12 are known"),
        (array(0, u64::MAX, &[]), "elements of key x: 18446744073709551615 do not fit the"),
        (array(10, 1 << 61, &[]), "elements of key x: 2305843009213693952 do not fit the"),
        (array(8, 1 << 40, &[]), "elements of key x: 1099511627776 do not fit the"),
        (array(8, 2, &[&string("a")[..], &u64::MAX.to_le_bytes()].concat()), "elements of key x: 18446744073709551615"),
        (with(|writer| writer.whole("general.alignment", 0)), "GGUF alignment is 0 bytes; allowed: 8 to 65536"),
        (with(|writer| writer.whole("general.alignment", 48)), "general.alignment is 48; a power of two is allowed"),
        (with(|writer| writer.whole("general.alignment", 1 << 30)), "GGUF alignment is 1073741824 bytes"),
        (with(|writer| writer.text("general.alignment", "32")), "key general.alignment is no whole number"),
        (
            with(|writer| writer.whole("general.architecture", 1)),
            "key general.architecture is a whole number; needed: a string",
        ),
        (
            with(|writer| writer.text("general.architecture", "gemma")),
            "architecture \"gemma\" is not supported; supported: deepseek2, qwen3moe, olmoe, llama, gpt-oss",
        ),
        (with(|writer| drop(writer.keys.remove(0))), "key general.architecture is missing"),
        (
            with(|writer| writer.text("qwen3moe.block_count", "1")),
            "key qwen3moe.block_count is a string; needed: a whole number",
        ),
        (
            with(|writer| writer.raw("qwen3moe.block_count", 5, &(-1_i32).to_le_bytes())),
            "key qwen3moe.block_count is -1; 0 or more is allowed",
        ),
        (with(|writer| writer.raw("split.count", 2, &[3, 0])), "key split.count is 3; its name says 1"),
        (with(|writer| writer.raw("split.no", 2, &[3, 0])), "key split.no is 3; its name says 0"),
        (with(|writer| writer.whole("split.tensors.count", 9)), "key split.tensors.count is 9; the files hold 2"),
    ]
}

fn tensors() -> Vec<(Vec<u8>, &'static str)> {
    let shaped = |shape: &[u64]| tensor(|tensor| tensor.shape = shape.to_vec());
    vec![
        (tensor(|tensor| tensor.name = "token_embd.weight".into()), "tensor token_embd.weight is there twice"),
        (tensor(|tensor| tensor.name.clear()), "GGUF name is 0 bytes; allowed: 1 to 256"),
        (tensor(|tensor| tensor.name = "t".repeat(300)), "GGUF name is 300 bytes; allowed: 1 to 256"),
        (
            tensor(|tensor| tensor.name = "rope_freqs.weight".into()),
            "tensor rope_freqs.weight is not known in files of qwen3moe",
        ),
        (
            tensor(|tensor| tensor.name = "blk.0.attn_q.bias".into()),
            "tensor blk.0.attn_q.bias is not known in files of qwen3moe",
        ),
        (tensor(|tensor| tensor.name = "blk.x.attn_q.weight".into()), "tensor blk.x.attn_q.weight is not known"),
        (shaped(&[]), "tensor output.weight has 0 dimensions; 1 to 4 are allowed"),
        (shaped(&[1, 1, 1, 4, 32]), "tensor output.weight has 5 dimensions; 1 to 4 are allowed"),
        (shaped(&[0, 32]), "tensor output.weight has a dimension of 0; 1 to 2^48 elements are allowed in all"),
        (shaped(&[u64::MAX, 32]), "tensor output.weight has a dimension of 18446744073709551615"),
        (shaped(&[1 << 40, 1 << 30]), "tensor output.weight has a dimension of 1099511627776"),
        (shaped(&[1 << 32, 1 << 16]), "it is truncated"),
        (shaped(&[4, 31]), "tensor output.weight of Q8_0 has rows of 31, which are no whole blocks of 32"),
        (shaped(&[5, 32]), "it is truncated"),
        (tensor(|tensor| tensor.kind = 4), "tensor output.weight is of type 4, which is unknown"),
        (tensor(|tensor| tensor.kind = u32::MAX), "tensor output.weight is of type 4294967295, which is unknown"),
        (
            tensor(|tensor| tensor.kind = 12),
            "tensor output.weight of Q4_K has rows of 32, which are no whole blocks of 256",
        ),
        (tensor(|tensor| tensor.offset = Some(513)), "tensor output.weight begins at 513, which is no multiple of 32"),
        (tensor(|tensor| tensor.offset = Some(480)), "tensor output.weight overlaps the one before it"),
        (tensor(|tensor| tensor.offset = Some(0)), "overlaps the one before it"),
        (tensor(|tensor| tensor.offset = Some(1 << 20)), "it is truncated"),
        (tensor(|tensor| tensor.offset = Some(u64::MAX - 31)), "past every file"),
        (with(|writer| writer.tensors[1].data.truncate(135)), "it is truncated"),
    ]
}

#[test]
fn every_lie_in_a_gguf_file_is_refused_by_what_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(open(&good().bytes(), directory.path()), Ok(()));
    let lies = [headers(), keys(), tensors()].concat();
    assert!(lies.len() >= 40, "{} lies", lies.len());
    let told = |(file, expected): &(Vec<u8>, &'static str)| {
        let found = open(file, directory.path()).err().unwrap_or_default();
        (!found.contains(expected)).then(|| format!("{found:?} does not say {expected:?}"))
    };
    let untold: Vec<String> = lies.iter().filter_map(told).collect();
    assert!(untold.is_empty(), "{untold:#?}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = good().bytes();
    for len in 0..file.len() {
        assert!(open(&file[..len], directory.path()).is_err(), "cut at {len}");
    }
}

#[test]
fn version_2_is_read_as_version_3_is() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(open(&with(|writer| writer.version = 2), directory.path()), Ok(()));
}

#[test]
fn a_tensor_in_a_format_that_no_op_reads_is_refused_when_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, tensor(|tensor| (tensor.kind, tensor.data) = (3, vec![0; 80]))).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensor("model.embed_tokens.weight", &[4, 32]).unwrap(), Dtype::F32);
    let refused = checkpoint.tensor("lm_head.weight", &[4, 32]).unwrap_err().to_string();
    assert!(refused.starts_with("tensor lm_head.weight is stored as Q4_1; supported: F32,"), "{refused}");
}

#[test]
fn a_directory_with_two_models_asks_which() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::write(directory.path().join(name), good().bytes()).unwrap();
    }
    let refused = Checkpoint::open(directory.path()).unwrap_err().to_string();
    assert!(refused.ends_with("it holds several models, such as a.gguf and b.gguf; name one"), "{refused}");
}

#[test]
fn a_config_that_a_file_cannot_give_is_refused_by_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut writer = Writer::new("deepseek2");
    writer.whole("deepseek2.block_count", 1);
    std::fs::write(&path, writer.bytes()).unwrap();
    let refused = ModelConfig::read(&path).unwrap_err().to_string();
    assert!(refused.ends_with("key deepseek2.embedding_length is missing"), "{refused}");
}
