//! Models in every format have the bits of the F32 models of the same numbers, as the page says.

use std::sync::Mutex;

use shoal_worker::program::Dtype;

use super::fp8::ScaleKind;
use super::{fp8, mxfp4, page, parity};

type Answers = Vec<Vec<(u32, f32)>>;
type Twins = Box<dyn Fn() -> [Answers; 2] + Send + Sync>;

/// Formats of GGUF files.
const GGUF: [(&str, Dtype); 11] = [
    ("F16", Dtype::F16),
    ("BF16", Dtype::Bf16),
    ("Q8_0", Dtype::Q8_0),
    ("Q4_0", Dtype::Q4_0),
    ("Q5_0", Dtype::Q5_0),
    ("Q5_1", Dtype::Q5_1),
    ("IQ4_NL", Dtype::Iq4Nl),
    ("MXFP4", Dtype::Mxfp4),
    ("Q4_K", Dtype::Q4K),
    ("Q5_K", Dtype::Q5K),
    ("Q6_K", Dtype::Q6K),
];

/// Model, file and format, and how to ask both.
fn cases() -> Vec<(String, Twins)> {
    let mut cases: Vec<(String, Twins)> = Vec::new();
    for name in ["uneven", "v3-yarn", "v2-lite"] {
        for (scales, kind) in [("F32", ScaleKind::F32), ("BF16", ScaleKind::Bf16), ("E8M0", ScaleKind::E8m0)] {
            let what = format!("{name} | safetensors | FP8, scales in {scales}");
            cases.push((what, Box::new(move || fp8::twins(name, kind))));
        }
    }
    cases.push(("gpt-oss | safetensors | MXFP4 experts".to_owned(), Box::new(mxfp4::twins)));
    for (format, dtype) in GGUF {
        for (third, model) in [(false, "DeepSeek V2"), (true, "DeepSeek V3")] {
            let what = format!("{model} | GGUF | {format}");
            cases.push((what, Box::new(move || parity::twins(dtype, third))));
        }
    }
    cases
}

/// 0 when every bit is the same; infinite when other tokens are among the likeliest.
fn worst(twins: &[Answers; 2]) -> String {
    let [ours, meant] = twins;
    assert_eq!(ours.len(), meant.len());
    let tokens = || ours.iter().flatten().zip(meant.iter().flatten());
    if tokens().all(|((id, a), (same, b))| id == same && a.to_bits() == b.to_bits()) {
        return "0".to_owned();
    }
    let off = tokens().map(|((id, a), (same, b))| if id == same { (a - b).abs() } else { f32::INFINITY });
    page::up(off.fold(0.0, f32::max))
}

#[test]
fn a_model_in_any_format_has_the_bits_of_the_f32_model_of_its_numbers_as_the_page_says() {
    let cases = cases();
    let (left, found) = (Mutex::new(cases.iter().enumerate()), Mutex::new(vec![String::new(); cases.len()]));
    let work = || loop {
        let next = left.lock().unwrap().next();
        let Some((index, (_, twins))) = next else { break };
        let off = worst(&twins());
        found.lock().unwrap()[index] = off;
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let mut section = "| model | file | format | largest |\n|---|---|---|---|\n".to_owned();
    let mut wrong = Vec::new();
    for ((what, _), off) in cases.iter().zip(found.into_inner().unwrap()) {
        section.push_str(&format!("| {what} | {off} |\n"));
        if off != "0" {
            wrong.push(format!("{what}: {off}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    page::check("formats", &section);
}
