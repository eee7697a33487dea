"""The planner's rules once more, short and slow: bytes of a shard, what nodes hold, speed, choice. docs/planner.md in code."""

import math

GIB = 1 << 30
MARGIN = 512 << 20
ROWS = 512
NETWORK, LATENCY = 3.125e9, 200e-6
CORE = (8.5e9, 40e9)
# MiB, GB/s, TFLOP/s of the products that scenarios use.
PRODUCTS = {
    "NVIDIA-H200": (143771, 4800, 989),
    "NVIDIA-H100-80GB-HBM3": (81559, 3350, 989),
    "NVIDIA-A100-SXM4-80GB": (81920, 2039, 312),
    "NVIDIA-L40S": (46068, 864, 362),
    "NVIDIA-L4": (23034, 300, 121),
    "Tesla-T4": (15360, 320, 65),
}
PER_WEIGHT = {"BF16": 2, "FP8": 1, "MXFP4": 17 / 32}


def ceil(a, b):
    return -(-a // b)


def shard_bytes(m, wish, shards):
    return stage(m, wish, shards)[1] if wish["strategy"] == "Pipeline" else expert_bytes(m, wish, shards)


def stage(m, wish, shards):
    """Layers and bytes of the largest stage when no cut has a smaller one; the ends hold a table each."""
    many = range(1, m.layers + 1)
    stages = {(k, end): stage_bytes(m, wish, k, end, shards) for k in many for end in (True, False)}
    total = lambda key: sum(stages[key].values())
    most = lambda limit, end: max((k for k in many if total((k, end)) <= limit), default=0)
    for limit, key in sorted((total(key), key) for key in stages):
        ends, middle = most(limit, True), most(limit, False)
        enough = min(shards, 2) * ends + max(shards - 2, 0) * middle >= m.layers
        if enough and ends and (middle or shards < 3):
            return key[0], stages[key]


def stage_bytes(m, wish, layers, end, shards):
    whole = expert_bytes(m, wish | {"strategy": "Experts"}, 1)
    table = min(m.vocabulary * m.hidden * {"BF16": 2, "FP8": 1, "MXFP4": 2}[m.stored], m.dense_bytes)
    dense = (table if end else 0) + layers * ceil(m.dense_bytes - table, m.layers)
    return whole | {
        "dense": dense if layers < m.layers else m.dense_bytes,
        "experts": min(layers, m.moe_layers) * m.experts * m.expert_bytes,
        "kv": whole["kv"] // m.layers * layers,
        "receive": (2 + shards) * ROWS * m.hidden * 4 if shards > 1 else 0,
    }


def expert_bytes(m, wish, shards):
    own = ceil(wish["sequences"], shards)
    cached = 4 if wish["backend"] == "CPU" else 2
    # Width as the planner derives it from an expert's bytes.
    width = m.expert_bytes * 32 // (3 * m.hidden * {"BF16": 64, "FP8": 32, "MXFP4": 17}[m.stored])
    k, h = m.chosen, m.hidden
    row = 6 * h + 2 * k * h + m.experts + 6 * k + 3 + m.activation
    peer = h + k * h + 4 * k + 3
    frame = ((1 << 20) - 4096) // (4 * h + 10 * k + 10)
    served = peer + k * (h + width)
    return {
        "dense": m.dense_bytes,
        "experts": m.moe_layers * ceil(m.experts, shards) * m.expert_bytes,
        "kv": own * ceil(wish["context"], 64) * 64 * m.layers * m.kv * cached,
        "receive": 4 * ((shards - 1) * ROWS * peer + (max(frame, 1) * served if shards > 1 else 0)),
        "activations": 4 * (ROWS * row + min(own, ROWS) * (m.vocabulary + 2 * h + 1)),
        "margin": MARGIN,
    }


def host_bytes(b, wish):
    return sum(b.values()) if wish["backend"] == "CPU" else b["receive"] + 2 * MARGIN


def pipeline_tokens_per_second(m, wish, shards, device):
    layers, b = stage(m, wish, shards)
    rows, moe = wish["sequences"] / min(shards, wish["sequences"]), min(layers, m.moe_layers)
    touched = m.experts * (1 - (1 - m.chosen / m.experts) ** rows)
    cached = rows * wish["context"] / 2 * layers * m.kv * (4 if wish["backend"] == "CPU" else 2)
    read = b["dense"] + moe * touched * m.expert_bytes + cached
    dense = b["dense"] / (2 if m.stored == "MXFP4" else PER_WEIGHT[m.stored])
    flops = 2 * rows * (dense + m.chosen * moe * m.expert_bytes / PER_WEIGHT[m.stored])
    hop = rows * 4 * m.hidden / NETWORK + LATENCY / 2 if shards > 1 else 0
    return wish["sequences"] / (shards * (max(read / device[0], flops / device[1]) + hop))


def tokens_per_second(m, wish, shards, device):
    if wish["strategy"] == "Pipeline":
        return pipeline_tokens_per_second(m, wish, shards, device)
    own, owned = ceil(wish["sequences"], shards), ceil(m.experts, shards)
    rows, share = wish["sequences"], m.chosen / m.experts
    touched = owned * (1 - (1 - share) ** rows)
    cached = own * wish["context"] / 2 * m.layers * m.kv * (4 if wish["backend"] == "CPU" else 2)
    read = m.dense_bytes + m.moe_layers * touched * m.expert_bytes + cached
    dense = m.dense_bytes / (2 if m.stored == "MXFP4" else PER_WEIGHT[m.stored])
    expert = m.expert_bytes / PER_WEIGHT[m.stored]
    flops = 2 * (own * dense + rows * share * owned * m.moe_layers * expert)
    peers = (shards - 1) * (1 - (1 - owned / m.experts) ** m.chosen)
    exchange = m.moe_layers * (own * peers * 8 * m.hidden / NETWORK + LATENCY) if shards > 1 else 0
    return rows / (max(read / device[0], flops / device[1]) + exchange)


def quantity(text):
    units = {"Mi": 1 << 20, "Gi": GIB, "m": 0.001}
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    return float(text)


def eligible(nodes, pod):
    def bears(toleration, taint):
        exists = toleration.get("operator") == "Exists"
        return (
            toleration.get("key") in (None, taint["key"])
            and toleration.get("effect") in (None, taint["effect"])
            and (exists or toleration.get("value", "") == taint.get("value", ""))
        )

    for node in nodes:
        spec, labels = node.get("spec", {}), node["metadata"]["labels"]
        taints = [x for x in spec.get("taints", []) if x["effect"] != "PreferNoSchedule"]
        selected = all(labels.get(key) == value for key, value in pod.get("nodeSelector", {}).items())
        borne = all(any(bears(x, taint) for x in pod.get("tolerations", [])) for taint in taints)
        if not spec.get("unschedulable") and selected and borne:
            yield node


def device(node, wish, catalogue):
    """(units, memory or None, speed or None, product) of what a shard takes of a node."""
    resource = wish["resource"]
    cores = quantity(wish["pod"].get("resources", {}).get("limits", {}).get("cpu", "1"))
    if wish["backend"] == "CPU":
        return math.inf, None, (CORE[0] * cores, CORE[1] * cores), None
    if resource is None:
        return 1, None, None, None
    labels = node["metadata"]["labels"]
    product = labels.get(f"{resource}.product")
    known = (PRODUCTS | catalogue).get((product or "").split("-MIG-")[0])
    shares = int(labels.get(f"{resource}.replicas", 1))
    memory, speed = None, None
    if known:
        memory, speed = known[0] << 20, (known[1] * 1e9, known[2] * 1e12)
    if f"{resource}.memory" in labels:
        memory = int(labels[f"{resource}.memory"]) << 20
    if known and "-MIG-" in product:
        slices = int(product.split("-MIG-")[1][0])
        speed = (speed[0] * memory / (known[0] << 20), speed[1] * slices / 7)
    memory = memory and memory // shares
    return int(node["status"]["allocatable"].get(resource, 0)), memory, speed and (speed[0] / shares, speed[1] / shares), product


def held(node, b, wish, catalogue):
    units, memory, _, _ = device(node, wish, catalogue)
    if memory is not None and memory < sum(b.values()):
        return 0
    resources = wish["pod"].get("resources", {})
    asked = lambda name: resources.get("requests", {}).get(name) or resources.get("limits", {}).get(name)
    host = quantity(asked("memory")) if asked("memory") else host_bytes(b, wish)
    cores = quantity(asked("cpu")) if asked("cpu") else 1
    allocatable = node["status"]["allocatable"]
    return int(min(quantity(allocatable["memory"]) // host, quantity(allocatable["cpu"]) // cores, units))


def parts(m, wish):
    return m.layers if wish["strategy"] == "Pipeline" else m.experts


def layouts(m, wish, nodes, catalogue):
    """Every layout that fits as (tokens per second and TB/s, shards, product, tokens per second)."""
    products = sorted({device(n, wish, catalogue)[3] or "" for n in nodes if device(n, wish, catalogue)[0] > 0})
    alone = [[n for n in nodes if (device(n, wish, catalogue)[3] or "") == product] for product in products]
    for shards in [wish["shards"]] if wish["shards"] else range(1, min(parts(m, wish), 64) + 1):
        b = shard_bytes(m, wish, shards)
        limit = wish["pod"].get("resources", {}).get("limits", {}).get("memory")
        if limit and quantity(limit) < host_bytes(b, wish):
            continue
        room = lambda pool: sum(held(n, b, wish, catalogue) for n in pool)
        fitting = [(pool, product) for pool, product in zip(alone, products) if room(pool) >= shards]
        if len(products) < 2:
            fitting = [(nodes, None)] if room(nodes) >= shards else []
        elif not fitting and room(nodes) >= shards:
            fitting = [(nodes, None)]
        for pool, product in fitting:
            yield score(m, wish, shards, pool, product, b, catalogue)


def score(m, wish, shards, pool, product, b, catalogue):
    speeds = []
    for node in pool:
        speeds += [device(node, wish, catalogue)[2]] * min(held(node, b, wish, catalogue), shards)
    speeds.sort(key=lambda speed: speed or (0, 0), reverse=True)
    taken = speeds[:shards]
    rated = [speed or (1e12, 1e14) for speed in taken]
    predicted = tokens_per_second(m, wish, shards, min(rated))
    known = None not in taken
    return known, predicted / (sum(speed[0] for speed in rated) / 1e12), shards, product, predicted if known else None


def choose(m, wish, nodes, catalogue):
    """The best layout, the one with fewer shards of equal ones; None when none fits."""
    return max(layouts(m, wish, nodes, catalogue), key=lambda x: (x[0], x[1], -x[2]), default=None)
