//! Every format against the code of others: `tests/gen/blocks.py` wrote what they make of random blocks.

use safetensors::SafeTensors;

use super::mxfp4;
use crate::program::Dtype;

const BLOCKED: [(&str, Dtype); 10] = [
    ("q8_0", Dtype::Q8_0),
    ("q4_0", Dtype::Q4_0),
    ("q5_0", Dtype::Q5_0),
    ("q5_1", Dtype::Q5_1),
    ("iq4_nl", Dtype::Iq4Nl),
    ("q4_k", Dtype::Q4K),
    ("q5_k", Dtype::Q5K),
    ("q6_k", Dtype::Q6K),
    ("mxfp4", Dtype::Mxfp4),
    ("e4m3", Dtype::E4m3),
];

fn file() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/formats.safetensors")).unwrap()
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    super::f32::read(file.tensor(name).unwrap().data()).collect()
}

#[test]
fn every_format_has_the_bits_that_its_reference_implementation_gives() {
    let bytes = file();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, dtype) in BLOCKED {
        let blocks = file.tensor(&format!("{name}.blocks")).unwrap();
        let expected = numbers(&file, &format!("{name}.expected"));
        assert_eq!(dtype.checked_bytes(expected.len()), Some(blocks.data().len()), "{name}");
        let mut ours = vec![f32::INFINITY; expected.len()];
        dtype.widen(blocks.data(), &mut ours);
        for (at, (ours, meant)) in ours.iter().zip(&expected).enumerate() {
            let same = ours.to_bits() == meant.to_bits() || (ours.is_nan() && meant.is_nan());
            assert!(same, "{name}: number {at} is {ours:?}, not {meant:?}");
        }
    }
}

#[test]
fn a_block_is_refused_exactly_when_a_number_of_it_is_not_finite() {
    let bytes = file();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, dtype) in BLOCKED.into_iter().filter(|(name, _)| *name != "e4m3") {
        let (numbers, size) = dtype.block();
        let mut blocks = file.tensor(&format!("{name}.blocks")).unwrap().data().to_vec();
        assert_eq!(dtype.first_not_finite(&blocks), None, "{name}");
        let at = match dtype {
            Dtype::Q6K => size - 1,
            Dtype::Mxfp4 => 0,
            _ => 1,
        };
        blocks[5 * size + at] = if dtype == Dtype::Mxfp4 { 253 } else { 0x7c };
        let mut widened = vec![0.0; blocks.len() / size * numbers];
        // The largest code of MXFP4, whose scale alone is finite.
        blocks[5 * size + 8..][..8].fill(0x77);
        dtype.widen(&blocks, &mut widened);
        let first = widened.iter().position(|x| !x.is_finite());
        assert_eq!(first.map(|at| at / numbers), Some(5), "{name}");
        assert_eq!(dtype.first_not_finite(&blocks), Some(5 * numbers), "{name}");
    }
}

#[test]
fn gpt_oss_blocks_are_repacked_into_ggufs_layout_without_changing_a_number() {
    let bytes = file();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (paired, scales) = (file.tensor("gpt_oss.blocks").unwrap(), file.tensor("gpt_oss.scales").unwrap());
    let expected = numbers(&file, "gpt_oss.expected");
    let mut repacked = Vec::new();
    for (&scale, paired) in scales.data().iter().zip(paired.data().as_chunks().0) {
        repacked.extend(mxfp4::from_paired(scale, paired));
    }
    let mut ours = vec![f32::NAN; expected.len()];
    Dtype::Mxfp4.widen(&repacked, &mut ours);
    // By value: the reference keeps −0 where GGUF has 0.
    assert_eq!(ours, expected);
}

#[test]
fn widths_that_are_no_whole_blocks_have_no_size() {
    assert_eq!(Dtype::Q4K.checked_bytes(512), Some(288));
    assert_eq!(Dtype::Q4K.checked_bytes(511), None);
    assert_eq!(Dtype::Q8_0.checked_bytes(usize::MAX / 32 * 32), None);
}
