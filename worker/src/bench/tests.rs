//! Flags that are refused, and a measurement whose counts can be said beforehand.

use std::path::Path;
use std::time::Instant;

use pretty_assertions::assert_eq;
use rstest::rstest;

use super::*;

fn check(line: &str) -> Result<Bench, ConfigError> {
    BenchArgs::parse_from_words(line.split_whitespace().map(ToOwned::to_owned))?.check()
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).display().to_string()
}

#[rstest]
#[case("--model /m --batch 1,0", "--batch[] is 0 sequences; allowed: 1 to 2048")]
#[case("--model /m --batch 1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "--batch is 17 batches; allowed: 1 to 16")]
#[case("--model /m --prefill 0", "--prefill is 0 tokens; allowed: 1 to 1000000")]
#[case("--model /m --decode 0", "--decode is 0 tokens; allowed: 1 to 1000000")]
#[case("--model /m --shards 65", "--size is 65 shards; allowed: 1 to 64")]
#[case("--model /m --threads 0", "--threads is 0 threads; allowed: 1 to 1024")]
#[case("--model /m --step-tokens 0", "--step-tokens is 0")]
#[case("--model /m --backend metal", "--backend metal: unknown; allowed: auto, cpu, wgpu, cuda")]
#[case("--model s3://m", "--model s3://m")]
#[case("--model /m --prefill 9 --decode 9 --context 18", "--context of 18 tokens is less")]
fn what_cannot_be_measured_is_refused_by_the_flag(#[case] line: &str, #[case] part: &str) {
    let error = check(line).map(drop).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn no_two_sequences_and_no_two_batches_share_tokens_and_a_seed_says_which() {
    let bench = check("--model /m --prefill 40 --decode 8 --batch 2,3").unwrap();
    let (two, three) = (Drawn::new(&bench, 2, 1000), Drawn::new(&bench, 3, 1000));
    assert_eq!(two, Drawn::new(&bench, 2, 1000));
    let mut prompts = [two.prompts, three.prompts].concat();
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!(prompts.len(), 5);
    assert!(prompts.iter().flatten().all(|&id| id < 1000));
    let other = check("--model /m --prefill 40 --decode 8 --seed 2").unwrap();
    assert_ne!(Drawn::new(&other, 3, 1000).prompts, three.answers.iter().map(|ids| ids.to_vec()).collect::<Vec<_>>());
    assert_ne!(Drawn::new(&other, 3, 1000), Drawn::new(&bench, 3, 1000));
}

/// Two sequences over two stages are two steps under way, each of one sequence.
#[rstest]
#[case::one_process("")]
#[case::two_stages("--shards 2 --strategy pipeline")]
#[case::two_sequences_over_two_stages("--shards 2 --strategy pipeline --batch 2")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_one_sequence_reads_its_chosen_experts_and_the_dense_part(#[case] shards: &str) {
    let line = format!("--model {} --prefill 70 --decode 400 --threads 1 {shards}", fixture("v2-lite"));
    let bench = check(&line).unwrap();
    let run = run(&bench, Instant::now()).await.unwrap().remove(0);
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(&fixture("v2-lite")).join("config.json")).unwrap()).unwrap();
    let of = |key: &str| config[key].as_f64().unwrap();
    let figures = &run.figures;
    // The counters may be looked at a step early or late.
    let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.05, "{found} is not {wanted}");
    near(figures.distinct_experts_per_layer, of("num_experts_per_tok"));
    let layers = of("num_hidden_layers") - of("first_k_dense_replace");
    let expert = 3.0 * of("hidden_size") * of("moe_intermediate_size") * 4.0;
    let idle = layers * (of("n_routed_experts") - of("num_experts_per_tok")) * expert;
    let table = of("vocab_size") * of("hidden_size") * 4.0;
    near(figures.weight_bytes_per_step, figures.weight_bytes as f64 - idle - table);
    assert_eq!(run.answers[0].len(), 401);
    let positive = [figures.prefill_tokens_per_second, figures.decode_tokens_per_second, figures.read_gbps_before];
    assert!(positive.iter().all(|&figure| figure > 0.0 && figure.is_finite()), "{figures:?}");
    let json: serde_json::Value = serde_json::from_str(&json(std::slice::from_ref(figures)).unwrap()).unwrap();
    assert_eq!(json["batch"], run.answers.len());
}
