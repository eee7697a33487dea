//! What `up` says no to, before anything starts.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use shoal_operator::inventory::this_machine;

use crate::{Fixture, tiny_manifest};

#[test]
fn what_cannot_be_served_is_refused_before_anything_starts() -> Result<()> {
    let fixture = Fixture::new()?;
    let tiny = tiny_manifest()?;
    let good = fixture.file("good.yaml", &tiny)?;
    let unknown = fixture.file("unknown.yaml", &tiny.replace("  hardware:", "  hardwear: 1\n  hardware:"))?;
    let other_namespace = fixture.file("other.yaml", &tiny.replace("name: tiny", "name: tiny\n  namespace: other"))?;
    let garbage = fixture.file("garbage.yaml", "spec: [")?;
    let empty = tempfile::tempdir()?;
    let empty = empty.path().display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let publish = format!("tiny/grpc={}", taken.local_addr()?);
    let cases: [(&[&str], &str); 10] = [
        (&["-f", "/nonexistent.yaml"], "cannot read /nonexistent.yaml: No such file"),
        (&["-f", &garbage], "garbage.yaml is not YAML"),
        (&["-f", &unknown], "unknown field \"spec.hardwear\""),
        (&["-f", &good, "-f", &good], "tiny is given twice"),
        (&["-f", &good, "-f", &other_namespace], "two manifests have the name tiny"),
        (&["-f", &good, "--model-root", &empty], "file:///models/tiny is "),
        (&["-f", &good, "--model-root", ".", "--publish", &publish], "cannot listen on 127.0.0.1:"),
        (
            &["-f", &good, "--publish", "tiny/grpc=127.0.0.1:5", "--publish", "tiny/http=127.0.0.1:5"],
            "--publish gives 127.0.0.1:5 to both tiny/grpc and tiny/http",
        ),
        (&["-f", &good, "--model-root", ".", "--publish", "tiny/x=127.0.0.1:0"], "ports: tiny/grpc, tiny/http"),
        (&["-f", "manifests/deepseek-r1-cuda.yaml"], "not supported yet"),
    ];
    for (args, expected) in cases {
        let error = fixture.refusal(args)?;
        ensure!(error.contains(expected), "{args:?}: {expected:?} should be in {error:?}");
    }
    Ok(())
}

#[test]
fn models_that_fit_one_by_one_and_not_together_are_refused_naming_both() -> Result<()> {
    let fixture = Fixture::new()?;
    let tiny = tiny_manifest()?.replace("shards: 2", "shards: 1");
    let most = this_machine().memory_bytes / 5 * 3;
    let large = tiny.replace("{cpu: 250m}", &format!("{{cpu: 250m, memory: \"{most}\"}}"));
    let file =
        |name: &str| fixture.file(&format!("{name}.yaml"), &large.replace("name: tiny", &format!("name: {name}")));
    let (left, right) = (file("left")?, file("right")?);
    let error = fixture.refusal(&["-f", &left, "-f", &right, "--model-root", "."])?;
    ensure!(error.starts_with("error: right: no plan: a shard asks for "), "{error}");
    ensure!(error.contains("; of this machine's ") && error.ends_with(" for left"), "{error}");
    Ok(())
}
