"""Writes tests/plans/*.json: what a planner must answer, scenario by scenario.

    pip install -r requirements.txt
    python plan_referee.py

`object` and `nodes` are what Kubernetes would hold (`nodes: null`: the operator may not read nodes). `expected` comes
from transformers' classes (plan_models.py) and the rules in plan_rules.py; `says` was written by hand: words that the
answer must contain. The Rust tests only read these files; nothing here runs in CI.
"""

import json
from pathlib import Path

from plan_models import load
from plan_rules import PRODUCTS, choose, eligible, parts, shard_bytes

OUT = Path(__file__).parent.parent / "plans"
MODELS = {}
SCENARIOS = {}


def node(name, cpu="64", memory="512Gi", labels=None, spec=None, **resources):
    resources = {key.replace("__", "/").replace("_", "."): str(count) for key, count in resources.items()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})},
        "spec": spec or {},
        "status": {"allocatable": {"cpu": cpu, "memory": memory} | resources},
    }


def gpus(name, product, count, **more):
    """A node as GPU feature discovery labels it."""
    mib = PRODUCTS[product][0]
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": str(mib)} | more.pop("labels", {})
    found = node(name, cpu="190", memory="1900Gi", labels=labels, **more)
    found["status"]["allocatable"]["nvidia.com/gpu"] = str(count)
    return found


def scenario(name, why, repository, nodes, says, **wish):
    """`wish`: backend, resource, shards, strategy, context, sequences, pod, catalogue."""
    backend, catalogue = wish.get("backend", "CUDA"), wish.get("catalogue", [])
    wish = {
        "backend": backend or "CPU",
        "resource": wish.get("resource", "nvidia.com/gpu" if backend == "CUDA" else None),
        "named": backend,
        "shards": wish.get("shards"),
        "strategy": wish.get("strategy", "Experts"),
        "context": wish.get("context", 4096),
        "sequences": wish.get("sequences", 16),
        "pod": wish.get("pod", {}),
    }
    assert name not in SCENARIOS
    SCENARIOS[name] = {
        "why": why,
        "object": manifest(name, repository, wish),
        "catalogue": catalogue,
        "nodes": nodes,
        "expected": expected(repository, nodes, wish, catalogue),
        "says": says,
    }


def manifest(name, repository, wish):
    hardware = {"backend": wish["named"]} if wish["named"] else {}
    if wish["resource"] not in (None, "nvidia.com/gpu"):
        hardware["resourceName"] = wish["resource"]
    spec = {
        "model": {"source": f"hf://{repository}"},
        "hardware": hardware,
        "serving": {"contextTokens": wish["context"], "maxConcurrentSequences": wish["sequences"]},
        "pod": wish["pod"],
    }
    if wish["shards"]:
        spec["sharding"] = {"shards": wish["shards"]}
    if wish["strategy"] == "Pipeline":
        spec["sharding"] = spec.get("sharding", {}) | {"strategy": "Pipeline"}
    kind = {"apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment"}
    return kind | {"metadata": {"name": name}, "spec": spec}


def expected(repository, nodes, wish, catalogue):
    if repository not in MODELS:
        try:
            MODELS[repository] = load(repository)
        except KeyError:
            return {"reason": "Unverified" if wish["shards"] else "ShapeUnknown", "shards": wish["shards"]}
    m = MODELS[repository]
    if wish["context"] > m.max_context:
        return {"refused": "ContextTooLong"}
    if (wish["shards"] or 1) > parts(m, wish):
        return {"refused": "TooManyShards"}
    if nodes is None:
        shards = wish["shards"] or 1
        return {"reason": "InventoryUnknown", "shards": shards, "bytes": shard_bytes(m, wish, shards)}
    known = {x["product"]: (x["memoryGiB"] * 1024, x["bandwidthGBps"], x["bf16Tflops"]) for x in catalogue}
    found = choose(m, wish, list(eligible(nodes, wish["pod"])), known)
    if found is None:
        shards = wish["shards"]
        return {"reason": "DoesNotFit"} | ({"shards": shards, "bytes": shard_bytes(m, wish, shards)} if shards else {})
    _, _, shards, product, predicted = found
    device = (wish["resource"] or wish["backend"]) + (f" {product}" if product else "")
    return {
        "reason": "Fits",
        "shards": shards,
        "device": device,
        "expertsPerShard": m.experts if wish["strategy"] == "Pipeline" else -(-m.experts // shards),
        "bytes": shard_bytes(m, wish, shards),
        "tokensPerSecond": predicted,
    }


R1, V2, LITE = "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V2", "deepseek-ai/DeepSeek-V2-Lite"
Q30, Q235 = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B"
X7, X22, OLMOE = "mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x22B-v0.1", "allenai/OLMoE-1B-7B-0924"
OSS20, OSS120 = "openai/gpt-oss-20b", "openai/gpt-oss-120b"
H200, H100, A100 = "NVIDIA-H200", "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"
L40S, L4, T4 = "NVIDIA-L40S", "NVIDIA-L4", "Tesla-T4"
MIG = f"{H100}-MIG-1g.10gb"
TAINT = {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}

big = dict(context=32768, sequences=64)
scenario("r1-on-8-h200", "seven of eight hold it and move fewer bytes for a token", R1, [gpus("a", H200, 8)],
         "groups of 7 shards that the nodes hold when empty: 1", **big)
scenario("r1-on-8-h200-pinned", "a wish of eight is a decision", R1, [gpus("a", H200, 8)],
         "groups of 8 shards that the nodes hold when empty: 1", shards=8, **big)
scenario("r1-on-16-h100", "two nodes of eight", R1, [gpus("a", H100, 8), gpus("b", H100, 8)],
         "needs 13 × 79.65 GiB; the largest node has 8 × 79.65 GiB", **big)
scenario("r1-refused-on-8-h100", "FP8 weights alone are 640 GiB", R1, [gpus("a", H100, 8)],
         "the largest node has 8 × 79.65 GiB", **big)
scenario("v2-on-8-h100", "439 GiB of BF16 on one node", V2, [gpus("a", H100, 8)], "exchange: 59 layers")
scenario("v2-lite-on-one-24-gb-card", "29.3 GiB of BF16 do not fit", LITE, [gpus("a", L4, 1)],
         "needs 2 × 22.50 GiB; the largest node has 1 × 22.50 GiB")
scenario("v2-lite-on-two-24-gb-cards", "half of the experts each", LITE, [gpus("a", L4, 1), gpus("b", L4, 1)],
         "groups of 2 shards that the nodes hold when empty: 1")
scenario("v2-lite-as-a-pipeline-of-two", "all experts of half of the layers each", LITE,
         [gpus("a", L4, 1), gpus("b", L4, 1)], "a hop: 8 rows × 8192 bytes", strategy="Pipeline")
scenario("r1-as-a-pipeline-of-h100", "hidden states need no fast network", R1, [gpus("a", H100, 8), gpus("b", H100, 8)],
         "dense part of ", strategy="Pipeline", **big)
scenario("v2-lite-as-a-pipeline-on-cpu", "three small nodes", LITE, [node(name, memory="24Gi") for name in "abc"],
         "stages × ", strategy="Pipeline", backend="CPU")
scenario("more-stages-than-layers", "a stage has at least a layer", LITE, [gpus("a", H100, 64)],
         "the model has only 27 layers to divide", strategy="Pipeline", shards=28)
scenario("v2-lite-on-one-48-gb-card", "no exchange at all", LITE, [gpus("a", L40S, 1)],
         "receive buffers: 0 peers")
scenario("v2-lite-on-three-mixed-small-nodes", "equal shards, one on each small node and two on the largest", LITE,
         [node("a", memory="12Gi"), node("b", memory="16Gi"), node("c", memory="24Gi")],
         "3 × CPU: shards of 13.84 GiB that the nodes hold when empty: 2 of 3", backend="CPU")
scenario("v2-lite-on-cpu", "one large node", LITE, [node("a", memory="64Gi")],
         "KV: 16 sequences × 4096 tokens × 27 layers × 576 F32 = 3.80 GiB", backend="CPU")
scenario("v2-lite-refused-on-a-small-cpu-node", "a laptop", LITE, [node("a", memory="16Gi")],
         "needs 3 × 16.00 GiB; the largest node has 1 × 16.00 GiB", backend="CPU")
scenario("v2-lite-with-few-cores", "memory for many shards, cores for two", LITE,
         [node("a", cpu="2", memory="96Gi"), node("b", cpu="1", memory="16Gi")],
         "groups of 1 shards that the nodes hold when empty: 2", backend="CPU")
scenario("v2-lite-with-cores-asked-for", "a pod of sixteen cores fits no node of eight", LITE,
         [node("a", cpu="8", memory="64Gi")], "0 of ", backend="CPU", pod={"resources": {"limits": {"cpu": "16"}}})
scenario("gpt-oss-120b-on-one-h100", "MXFP4 experts are 56.8 GiB", OSS120, [gpus("a", H100, 1)],
         "13236480 MXFP4 bytes", context=8192)
scenario("gpt-oss-120b-on-l40s", "two of 48 GB", OSS120, [gpus("a", L40S, 4)], "1 × nvidia.com/gpu: shards of")
scenario("gpt-oss-20b-on-one-l4", "13 GiB", OSS20, [gpus("a", L4, 1)], "24 layers × 32 of 32 × 13236480 MXFP4 bytes")
scenario("qwen3-30b-a3b-on-one-h100", "57 GiB of BF16", Q30, [gpus("a", H100, 8)], "when empty: 8", context=8192)
scenario("qwen3-30b-a3b-on-l4", "GPUs of 24 GB", Q30, [gpus("a", L4, 8)], "128 × 9437184 BF16 bytes", context=8192)
scenario("qwen3-30b-a3b-on-wgpu", "any wgpu device, one shard a node, speed unknown", Q30,
         [node(name, memory="64Gi") for name in "abcd"], "a WGPU of unknown speed", backend="WGPU", shards=4)
scenario("qwen3-235b-a22b-on-8-h100", "438 GiB of BF16", Q235, [gpus("a", H100, 8)], "94 layers", context=8192)
scenario("mixtral-8x7b-on-a100", "87 GiB of BF16 on cards of 80", X7, [gpus("a", A100, 8)],
         "1 × nvidia.com/gpu: shards of")
scenario("mixtral-8x22b-on-h100", "five shards would own two experts as four do", X22, [gpus("a", H100, 8)],
         "56 layers × 2 of 8")
scenario("mixtral-8x7b-on-l40s", "two experts a shard; with three shards one would own three", X7, [gpus("a", L40S, 8)], "groups of 4 shards")
scenario("olmoe-on-one-t4", "the 12.9 GiB of a 7B model and 16 GB cards", OLMOE, [gpus("a", T4, 2)],
         "64 × 12582912 BF16 bytes", context=1024, sequences=4)
scenario("too-long-a-context", "OLMoE was trained on 4096 tokens", OLMOE, [gpus("a", H100, 1)],
         "spec.serving.contextTokens is 8192; the model knows at most 4096", context=8192)
scenario("too-many-shards", "Mixtral has eight experts", X7, [gpus("a", H100, 16)],
         "spec.sharding.shards is 16; the model has only 8 experts to divide", shards=16)
scenario("too-many-sequences", "the cache, not the weights, is too much", LITE, [gpus("a", L40S, 1)],
         "; with serving.maxConcurrentSequences 63 it would fit", context=8192, sequences=256)
slices = {"nvidia.com/mig-1g.10gb.product": MIG, "nvidia.com/mig-1g.10gb.memory": "9984", "nvidia.com/gpu.product": H100}
mixed = [node("a", cpu="190", memory="1900Gi", labels=slices, **{"nvidia_com__mig-1g_10gb": 7})]
scenario("olmoe-on-mig-slices", "a resource of its own, as the mixed strategy names it", OLMOE, mixed,
         "nvidia.com/mig-1g.10gb", resource="nvidia.com/mig-1g.10gb", context=1024, sequences=4)
scenario("v2-lite-on-single-strategy-mig", "slices that are called GPUs", LITE,
         [gpus("a", H100, 7, labels={"nvidia.com/gpu.product": MIG, "nvidia.com/gpu.memory": "9984"})],
         "13 of 64 × 17301504 BF16 bytes", context=1024, sequences=8)
scenario("gpus-that-are-mig-slices", "whole GPUs are asked for where only slices are offered", OLMOE, mixed,
         "hardware.resourceName may be one of those that they have: nvidia.com/mig-1g.10gb")
scenario("time-sliced-gpus", "four shares of one H100 have a quarter of its memory each", LITE,
         [gpus("a", H100, 4, labels={"nvidia.com/gpu.replicas": "4"})], "÷ 837.50 GB/s")
scenario("no-nodes", "an empty cluster", LITE, [], "there are no nodes")
scenario("unseen-nodes", "a namespaced operator may not read nodes", LITE, None,
         "inventory: unknown; nothing was compared with nodes", backend="CPU", shards=4)
scenario("unknown-shape", "a model that nobody published", "someone/else", [gpus("a", H100, 8)],
         "shoal plan --write makes it from the files")
scenario("unknown-shape-with-shards", "a wish is taken as given", "someone/else", [gpus("a", H100, 8)],
         "3 shards are taken as given, nothing was compared", shards=3)
scenario("tainted", "GPU nodes repel everything else", LITE, [gpus("a", H100, 8, spec=TAINT)],
         "1 with a taint that is not tolerated")
scenario("tolerated", "the pods bear the taint", LITE, [gpus("a", H100, 8, spec=TAINT)], "groups of 1 shards that the nodes hold when empty: 8",
         pod={"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]})
scenario("cordoned", "an administrator said no", LITE, [gpus("a", H100, 8, spec={"unschedulable": True})], "1 cordoned")
scenario("node-selector-without-match", "no node is of the wished pool", LITE, [gpus("a", H100, 8)], "1 without a label of the selector",
         pod={"nodeSelector": {"pool": "inference"}})
scenario("node-selector", "only the small GPUs may be used", LITE,
         [gpus("a", H100, 8), gpus("b", L4, 8, labels={"pool": "inference"})], "÷ 300.00 GB/s",
         pod={"nodeSelector": {"pool": "inference"}})
unknown = [node("a", cpu="190", memory="1900Gi", labels={"nvidia.com/gpu.product": "NVIDIA-Z999"}, nvidia_com__gpu=8)]
scenario("gpu-of-unknown-product", "given the benefit of the doubt, without a prediction", LITE, unknown,
         "decoding: not predicted")
scenario("gpu-of-the-catalogue", "the chart's gpuCatalogue says what it is", LITE, unknown, "÷ 2.00 TB/s",
         catalogue=[{"product": "NVIDIA-Z999", "memoryGiB": 32, "bandwidthGBps": 2000, "bf16Tflops": 400}])
scenario("two-products", "one H100 moves fewer bytes for a token than two L4", LITE,
         [gpus("a", L4, 8), gpus("b", H100, 1)], "2 × nvidia.com/gpu NVIDIA-L4: fits")
scenario("two-products-together", "neither four of one nor four of the other suffice", Q235,
         [gpus("a", H100, 5), gpus("b", A100, 5)], "÷ 2.04 TB/s")
scenario("memory-limit-of-the-pod", "the pod would be killed", LITE, [node("a")], "spec.pod.resources allows 4.00 GiB",
         backend="CPU", shards=4, pod={"resources": {"limits": {"memory": "4Gi"}}})
scenario("any-backend", "this build runs CPUs; what the GPUs would do is told", LITE,
         [node("c", memory="64Gi"), gpus("a", H100, 1)], "NotSupportedYet: backend CUDA is not built yet; fits",
         backend=None)
igpu = {"example.com/igpu.memory": "24576"}
scenario("wgpu-devices-with-a-resource", "an administrator labels what a device plugin offers", LITE,
         [node(name, labels=igpu, **{"example_com__igpu": 1}) for name in "ab"], "groups of 2 shards",
         backend="WGPU", resource="example.com/igpu")

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for stale in OUT.glob("*.json"):
        stale.unlink()
    for name, answer in SCENARIOS.items():
        (OUT / f"{name}.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        print(name, json.dumps({k: v for k, v in answer["expected"].items() if k != "bytes"}))
