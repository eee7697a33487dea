use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;

/// What the operator makes for one rank, in short.
fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"inference.shoal.dev/epoch": "3"}},
        "spec": {
            "restartPolicy": "Never", "hostname": name, "subdomain": "tiny-shards",
            "terminationGracePeriodSeconds": 120, "serviceAccountName": "default",
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "shard-tls", "secret": {"secretName": "tiny-tls"}}],
            "containers": [{
                "name": "worker", "image": "shoal/worker:1",
                "args": [
                    "--model=file:///models/tiny", "--listen=0.0.0.0:50051", "--health-listen=$(POD_IP):50052",
                    "--peers=tiny-r0.tiny-shards:50053,tiny-r1.tiny-shards:50053", "--epoch=$(EPOCH)",
                    "--cache=/tmp/cache", "--other=10.0.0.7:50051", "--model-name=a:b",
                    "--shard-tls", "/etc/shoal/shard-tls", "--rank=1",
                ],
                "env": [
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "EPOCH", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['inference.shoal.dev/epoch']"}}},
                    {"name": "SHOAL_RANK", "value": "1"},
                ],
                "ports": [
                    {"name": "grpc", "containerPort": 50051}, {"name": "health", "containerPort": 50052},
                    {"name": "shard", "containerPort": 50053},
                ],
                "resources": {"limits": {"memory": "1Gi"}},
                "readinessProbe": {"grpc": {"port": 50052, "service": "group"}, "periodSeconds": 2},
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "shard-tls", "mountPath": "/etc/shoal/shard-tls", "readOnly": true},
                ],
            }],
        },
    })
}

fn read(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn table() -> Table {
    let ports = ["tiny-r0", "tiny-r1"].into_iter().zip([1000, 2000]);
    let ports =
        ports.flat_map(|(host, base)| (50051..=50053).map(move |port| ((host.to_owned(), port), base + port - 50000)));
    Table {
        worker: "/bin/shoal-worker".into(),
        model_root: Some("/repo".into()),
        volumes: "/run/volumes".into(),
        ports: ports.collect(),
        threads: None,
    }
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.map(str::to_owned).into()
}

#[test]
fn every_substitution_of_the_table_is_made_and_named() {
    let command = substitute(&read(pod("tiny-r1")), &table()).unwrap();
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let local = |name: &str, container, port| LocalPort { name: name.to_owned(), container, address: address(port) };
    let readiness = ProbeSpec {
        address: address(2052),
        service: "group".to_owned(),
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    };
    let expected = LocalCommand {
        program: "/bin/shoal-worker".into(),
        args: [
            "--model=file:///repo/models/tiny",
            "--listen=127.0.0.1:2051",
            "--health-listen=127.0.0.1:2052",
            "--peers=127.0.0.1:1053,127.0.0.1:2053",
            "--epoch=3",
            "--cache=/run/volumes/tiny-r1/tmp/cache",
            "--other=10.0.0.7:50051",
            "--model-name=a:b",
            "--insecure-shard-traffic",
            "--rank=1",
        ]
        .map(str::to_owned)
        .into(),
        env: [("POD_IP", "127.0.0.1"), ("EPOCH", "3"), ("SHOAL_RANK", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ports: vec![local("grpc", 50051, 2051), local("health", 50052, 2052), local("shard", 50053, 2053)],
        directories: vec!["/run/volumes/tiny-r1/tmp".into()],
        sources: BTreeMap::from([("file:///models/tiny".to_owned(), "/repo/models/tiny".into())]),
        probes: Probes { startup: None, readiness: Some(readiness), liveness: None },
        grace: Duration::from_secs(120),
        substituted: set([
            "image shoal/worker:1 -> /bin/shoal-worker",
            "fieldRef status.podIP -> its value",
            "fieldRef metadata.labels['inference.shoal.dev/epoch'] -> its value",
            "volume tmp -> a directory of the pod's own",
            "model file:///models/tiny -> /repo/models/tiny",
            "--shard-tls -> --insecure-shard-traffic: it stays on 127.0.0.1",
        ]),
        not_enforced: set(["memory limit"]),
    };
    assert_eq!(command, expected);
}

#[test]
fn threads_are_the_machines_to_choose_where_the_table_has_some_and_else_as_written() {
    let mut value = pod("tiny-r0");
    value["spec"]["containers"][0]["args"] = json!(["--threads", "1", "--rank", "0"]);
    let threads = |threads| {
        let command = substitute(&read(value.clone()), &Table { threads, ..table() }).unwrap();
        let said = command.substituted.into_iter().filter(|line| line.starts_with("--threads"));
        (command.args.join(" "), said.collect::<Vec<_>>())
    };
    assert_eq!(threads(None), ("--threads 1 --rank 0".to_owned(), vec![]));
    let said = "--threads 1 -> 8: the cores of this machine ÷ all workers".to_owned();
    assert_eq!(threads(Some(8)), ("--threads 8 --rank 0".to_owned(), vec![said]));
}

#[test]
fn a_claim_is_a_folder_of_the_model_root() {
    let mut value = pod("tiny-r0");
    value["spec"]["volumes"] = json!([{"name": "model", "persistentVolumeClaim": {"claimName": "weights"}}]);
    value["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "model", "mountPath": "/models", "readOnly": true}]);
    let command = substitute(&read(value.clone()), &table()).unwrap();
    assert_eq!(command.args[0], "--model=file:///repo/weights/tiny");
    assert_eq!(command.sources["file:///models/tiny"], PathBuf::from("/repo/weights/tiny"));

    let error = substitute(&read(value), &Table { model_root: None, ..table() }).unwrap_err();
    assert!(error.to_string().contains("--model-root DIR"), "{error}");
}

#[test]
fn what_no_process_can_honour_is_refused_by_field() {
    let cases: [(&str, Value, &str); 11] = [
        ("/spec/restartPolicy", json!("Always"), "spec.restartPolicy"),
        ("/spec/initContainers", json!([{"name": "i"}]), "spec.initContainers"),
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork"),
        ("/spec/activeDeadlineSeconds", json!(5), "spec.activeDeadlineSeconds"),
        (
            "/spec/volumes/0",
            json!({"name": "tmp", "image": {"reference": "r.io/m:1"}}),
            "the image volume oci://r.io/m:1",
        ),
        ("/spec/volumes/0", json!({"name": "tmp", "hostPath": {"path": "/"}}), "the source of volume tmp"),
        (
            "/spec/containers/0/volumeMounts/1",
            json!({"name": "shard-tls", "mountPath": "/secrets"}),
            "the source of volume shard-tls",
        ),
        ("/spec/containers/0/command", json!(["sh"]), "command"),
        ("/spec/containers/0/envFrom", json!([{"prefix": "X"}]), "envFrom"),
        (
            "/spec/containers/0/env/2",
            json!({"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
            "valueFrom of T",
        ),
        ("/spec/containers/0/readinessProbe", json!({"exec": {"command": ["true"]}}), "readinessProbe"),
    ];
    for (at, value, expected) in cases {
        let mut spoiled = pod("tiny-r0");
        let (parent, key) = at.rsplit_once('/').unwrap();
        let parent = spoiled.pointer_mut(parent).unwrap();
        match key.parse::<usize>() {
            Ok(index) if parent.is_array() => parent[index] = value,
            _ => parent[key] = value,
        }
        let LocalizeError::Refused { field, .. } = substitute(&read(spoiled), &table()).unwrap_err() else {
            panic!("{at} should be refused by name");
        };
        assert_eq!(field, expected);
    }
}

#[test]
fn what_has_no_effect_here_is_said() {
    let mut value = pod("tiny-r0");
    value["spec"]["nodeSelector"] = json!({"gpu": "yes"});
    value["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    value["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    value["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = json!("1");
    let command = substitute(&read(value), &table()).unwrap();
    let expected = ["memory limit", "node selector", "nvidia.com/gpu limit", "security context", "tolerations"];
    assert_eq!(command.not_enforced, set(expected));
}

#[test]
fn a_peer_without_an_address_here_is_an_error() {
    let mut missing = table();
    missing.ports.remove(&("tiny-r0".to_owned(), 50053));
    assert_eq!(
        substitute(&read(pod("tiny-r1")), &missing),
        Err(LocalizeError::NoAddress {
            pod: "tiny-r1".to_owned(),
            value: "tiny-r0.tiny-shards:50053".to_owned(),
            port: 50053
        })
    );
}
