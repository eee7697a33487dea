//! Arguments that are right, and one refusal for each way of being wrong.

use pretty_assertions::assert_eq;
use rstest::rstest;

use super::*;

fn parse(line: &str) -> Result<Config, ConfigError> {
    parse_with(line, &[])
}

fn parse_with(line: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let placement = Placement::even(10, 2).unwrap().to_base64();
    let args = line.split_whitespace().map(|word| word.replace("PLACEMENT2", &placement));
    let environment =
        |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
    Config::from_args(args, &environment)
}

const PAIR: &str =
    "--model /m/tiny --size 2 --rank 1 --peers a:1,b:2 --shard-listen 127.0.0.1:2 --placement PLACEMENT2";

#[test]
fn a_directory_is_all_that_a_lone_worker_needs() {
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(
        parse("--model file:///models/tiny").unwrap(),
        Config {
            model: PathBuf::from("/models/tiny"),
            model_name: "tiny".into(),
            listen: Listeners { grpc: loopback(50051), http: None, health: loopback(50052) },
            group: Group { rank: 0, size: 1, epoch: 1, shards: None },
            compute: Compute { backend: BackendKind::Cpu, numerics: Numerics::Exact, threads: None, level: None },
            capacity: Capacity {
                context_tokens: None,
                max_concurrent_sequences: 16,
                kv_cache_tokens: None,
                step_tokens: 512,
                queue: 256,
            },
            log: Log { filter: "info".into(), format: LogFormat::Json },
            fault: None,
            die_with_parent: None,
        }
    );
}

#[test]
fn a_shard_knows_its_peers_and_its_experts() {
    let group = parse(&format!("{PAIR} --epoch 7")).unwrap().group;
    assert_eq!(
        group,
        Group {
            rank: 1,
            size: 2,
            epoch: 7,
            shards: Some(Shards {
                listen: SocketAddr::from(([127, 0, 0, 1], 2)),
                tls: None,
                peers: vec!["a:1".into(), "b:2".into()],
                placement: Placement::even(10, 2).unwrap(),
            }),
        }
    );
}

#[test]
fn a_variable_stands_for_an_absent_flag_and_loses_to_a_present_one() {
    let variables = [("SHOAL_MODEL", "/m/tiny"), ("SHOAL_MODEL_NAME", "sums"), ("SHOAL_QUEUE", "9")];
    let config = parse_with("--queue 5", &variables).unwrap();
    assert_eq!((config.model_name.as_str(), config.capacity.queue), ("sums", 5));
}

#[test]
fn a_switch_can_be_a_variable() {
    let line = PAIR.replace("127.0.0.1:2", "0.0.0.0:2");
    assert!(parse_with(&line, &[("SHOAL_INSECURE_SHARD_TRAFFIC", "true")]).is_ok());
    assert!(parse_with(&line, &[("SHOAL_INSECURE_SHARD_TRAFFIC", "false")]).is_err());
    let error = parse_with(&line, &[("SHOAL_INSECURE_SHARD_TRAFFIC", "maybe")]).unwrap_err().to_string();
    assert!(error.contains("SHOAL_INSECURE_SHARD_TRAFFIC is \"maybe\"; allowed: true, 1, false, 0"), "{error}");
}

#[test]
fn a_certificate_allows_every_address() {
    let line = PAIR.replace("127.0.0.1:2", "0.0.0.0:2");
    let shards = parse(&format!("{line} --shard-tls /certs")).unwrap().group.shards.unwrap();
    assert_eq!(shards.tls, Some(PathBuf::from("/certs")));
}

#[test]
fn a_list_of_peers_in_a_variable_is_replaced_whole_by_the_flag() {
    let config = parse_with(PAIR, &[("SHOAL_PEERS", "x:1,y:2,z:3")]).unwrap();
    assert_eq!(config.group.shards.unwrap().peers, ["a:1", "b:2"]);
}

#[rstest]
#[case("--model hf://deepseek-ai/x@main", "--model hf://deepseek-ai/x@main: a worker reads file:///DIR or a directory")]
#[case("--model file://host/x", "--model file://host/x: a worker reads file:///DIR")]
#[case("--model /", "--model-name is missing: the directory's own name cannot be used")]
#[case("--model /m --size 0", "--size is 0 shards; allowed: 1 to 64")]
#[case("--model /m --size 65", "--size is 65 shards; allowed: 1 to 64")]
#[case("--model /m --rank 1", "--rank 1: allowed: 0 to 0")]
#[case("--model /m --epoch 0", "--epoch is 0; allowed: 1 to 9007199254740991")]
#[case("--model /m --context-tokens 1", "--context-tokens is 1 tokens; allowed: 2 to 1048576")]
#[case("--model /m --max-concurrent-sequences 0", "--max-concurrent-sequences is 0 sequences; allowed: 1 to 4096")]
#[case("--model /m --kv-cache-tokens 1", "--kv-cache-tokens is 1 tokens; allowed: 2 to 2147483648")]
#[case("--model /m --step-tokens 0", "--step-tokens is 0 tokens; allowed: 1 to 65536")]
#[case("--model /m --queue 0", "--queue is 0 requests; allowed: 1 to 65536")]
#[case("--model /m --threads 0", "--threads is 0 threads; allowed: 1 to 1024")]
#[case("--model /m --backend cuda", "--backend cuda: not in this build; allowed: auto, cpu")]
#[case("--model /m --cpu-level sse9", "--cpu-level sse9: unknown; allowed: scalar, avx2, avx512")]
#[case("--model /m --backend tpu", "--backend tpu: unknown; allowed: auto, cpu, wgpu, cuda")]
#[case(
    "--model /m --shard-tls /certs --insecure-shard-traffic",
    "--shard-tls /certs: not together with --insecure-shard-traffic"
)]
#[case("--model /m --shard-listen 0.0.0.0:1", "--shard-listen 0.0.0.0:1: not loopback")]
#[case(
    "--model /m --size 2 --placement PLACEMENT2 --peers a:1,b:2",
    "--shard-listen is missing: needed because --size"
)]
#[case(
    "--model /m --size 2 --shard-listen [::1]:1 --peers a:1,b:2",
    "--placement is missing: needed because --size is 2"
)]
#[case(
    "--model /m --size 2 --shard-listen [::1]:1 --placement PLACEMENT2 --peers a:1",
    "--peers names 1 shards: allowed: host:port of all 2, by rank"
)]
#[case(
    "--model /m --size 2 --shard-listen [::1]:1 --placement PLACEMENT2 --peers a:1,b",
    "--peers b: allowed: host:port"
)]
#[case("--model /m --placement PLACEMENT2", "--placement is for 2 shards: --size is 1")]
#[case("--model /m --placement ???", "--placement: placement is not a base64 Placement message")]
fn a_wrong_argument_is_refused_by_its_name(#[case] line: &str, #[case] expected: &str) {
    let error = parse(line).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[rstest]
#[case("", "--model <URI>")]
#[case("--model /m --turbo", "--turbo")]
#[case("--model /m --listen here", "--listen <ADDR>")]
#[case("--model /m --queue=-1", "--queue")]
#[case("--model /m --numerics sloppy", "exact, default")]
fn a_malformed_line_is_refused_with_the_flag_at_fault(#[case] line: &str, #[case] part: &str) {
    let error = parse(line).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}
