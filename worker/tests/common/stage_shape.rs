StageShape {
    hidden: 2,
    bucket: Bucket { rows: 6, samples: 2 },
    context: 256,
    kv_blocks: 8,
    vocabulary: 50,
    layers: 3,
}
