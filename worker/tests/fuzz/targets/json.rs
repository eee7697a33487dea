//! Configs, headers of safetensors files, and the index that names several.

use std::path::Path;

use shoal_worker::model::config::ModelConfig;
use shoal_worker::weights::WeightsError;
use shoal_worker::weights::checkpoint::Checkpoint;
use shoal_worker::weights::safetensors::parse_header;

use super::{fixture, place};

/// Data behind a header.
const DATA: usize = 64;
const WANTED: [&str; 4] = ["a", "b", "e8", "m.experts.0.gate_proj.weight"];

pub(super) fn read_config(input: &[u8]) -> Result<(), String> {
    let config = ModelConfig::parse(input)?;
    // What the recipes make of its rope.
    let table = config.decoder.rope.table(8);
    if table.inv_freq.len() == 4 { Ok(()) } else { Err("a table of another width".to_owned()) }
}

pub(super) fn configs() -> Vec<Vec<u8>> {
    let names: [&str; 15] = include!("../../../../tests/fixtures/names.rs");
    let mut configs: Vec<Vec<u8>> =
        names.iter().map(|name| fixture(&format!("tests/fixtures/{name}/config.json"))).collect();
    let plain = |name: &str| String::from_utf8(fixture(&format!("tests/fixtures/{name}/config.json"))).expect("UTF-8");
    // The first brace opens the config.
    let with = |name: &str, fields: &str| plain(name).replacen('{', &format!("{{{fields},"), 1).into_bytes();
    configs.extend([
        with(
            "v3-plain",
            r#""quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[128,128],
            "activation_scheme":"dynamic","scale_fmt":"ue8m0"}"#,
        ),
        with("gpt-oss-small", r#""quantization_config":{"quant_method":"mxfp4"},"swiglu_alpha":1.5"#),
        with("mixtral-full", r#""rope_interleave":true,"partial_rotary_factor":1.0,"mlp_bias":false"#),
        with(
            "mixtral-window",
            r#""rope_scaling":{"rope_type":"yarn","rope_theta":10000.0,"factor":2.0,"truncate":false,"mscale":0.7,
            "original_max_position_embeddings":64,"attention_factor":1.1,"beta_fast":16.0,"beta_slow":2.0}"#,
        ),
    ]);
    configs
}

/// The header of one file, or an index of two, or a whole file.
pub(super) fn read_safetensors(input: &[u8]) -> Result<(), String> {
    let directory = place::directory("safetensors")?;
    if input.windows(10).any(|bytes| bytes == b"weight_map") {
        return read_index(input);
    }
    if input.first().is_none_or(|&byte| byte != b'{') {
        place::write(&directory.join("model.safetensors"), input)?;
        return open(&directory);
    }
    let len = 8 + input.len() + DATA;
    parse_header(input, len as u64)?;
    place::write(&directory.join("model.safetensors"), &file(input))?;
    open(&directory)
}

fn read_index(input: &[u8]) -> Result<(), String> {
    let directory = place::directory("index")?;
    for (name, header) in [("one.safetensors", SMALL), ("two.safetensors", PAIRED)] {
        let path = directory.join(name);
        if !path.is_file() {
            place::write(&path, &file(header.as_bytes()))?;
        }
    }
    place::write(&directory.join("model.safetensors.index.json"), input)?;
    open(&directory)
}

fn file(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &[1; DATA]].concat()
}

fn open(directory: &Path) -> Result<(), String> {
    let said = |error: WeightsError| error.to_string().replace(&*directory.to_string_lossy(), "");
    let checkpoint = Checkpoint::open(directory).map_err(said)?;
    for name in WANTED.into_iter().filter(|name| checkpoint.has(name)) {
        let _ = checkpoint.tensor(name, &[2, 6]);
        let _ = checkpoint.read(name, |_, _| Ok::<_, WeightsError>(()));
    }
    Ok(())
}

const SMALL: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,6],"data_offsets":[0,48]},
    "b":{"dtype":"F8_E4M3","shape":[2,8],"data_offsets":[48,64]}}"#;
/// One expert of two rows and a block each, as gpt-oss stores them.
const PAIRED: &str = r#"{"m.experts.gate_up_proj_blocks":{"dtype":"U8","shape":[1,2,1,16],"data_offsets":[0,32]},
    "m.experts.gate_up_proj_scales":{"dtype":"U8","shape":[1,2,1],"data_offsets":[32,34]},
    "c":{"dtype":"BF16","shape":[5],"data_offsets":[34,44]},"d":{"dtype":"F16","shape":[],"data_offsets":[44,46]},
    "e8":{"dtype":"F8_E8M0","shape":[18,1],"data_offsets":[46,64]}}"#;

pub(super) fn safetensors() -> Vec<Vec<u8>> {
    let whole = fixture("tests/fixtures/formats.safetensors");
    let header = whole[8..].split(|&byte| byte == b' ').next().unwrap_or_default().to_vec();
    let index = r#"{"metadata":{"total_size":128},"weight_map":{"a":"one.safetensors","b":"one.safetensors",
        "m.experts.gate_up_proj_blocks":"two.safetensors","m.experts.gate_up_proj_scales":"two.safetensors"}}"#;
    let small = file(SMALL.as_bytes());
    vec![header, SMALL.as_bytes().to_vec(), PAIRED.as_bytes().to_vec(), index.as_bytes().to_vec(), small]
}
