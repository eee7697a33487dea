//! `shoal-worker bench` as a process, on a file that has neither a tokenizer nor a vocabulary's size.

use std::process::Command;

use shoal_worker::program::Dtype;

use super::tiny::{Deepseek, deepseek, only};

#[test]
fn bench_needs_no_tokenizer_and_prints_an_object_or_a_list() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let dims = Deepseek { layers: 2, formats: only(Dtype::Q8_0), third: false, split: false, seed: 3 };
    std::fs::write(&path, deepseek(dims).bytes()).unwrap();
    let bench = |batch: &str| -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-worker"));
        command.args(["bench", "--prefill=20", "--decode=4", "--json", "--model"]).arg(&path).args(["--batch", batch]);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let one = bench("2");
    assert_eq!((&one["batch"], &one["prefill"], &one["decode"]), (&2.into(), &20.into(), &4.into()));
    let figures = [
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "weight_bytes_per_step",
        "distinct_experts_per_layer",
        "read_gbps_before",
        "read_gbps_after",
        "start_to_first_token_seconds",
    ];
    for figure in figures {
        assert!(one[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} of {one}");
    }
    assert!(one["numerics_id"].as_str().is_some_and(|id| id.starts_with("cpu/")), "{one}");
    let list = bench("1,3");
    let batches: Vec<_> = list.as_array().unwrap().iter().map(|one| one["batch"].clone()).collect();
    assert_eq!(batches, [1, 3]);
}
