//! The table. A value between 0 (excluded) and 1 begins at 10⁻⁶.

use super::Limit;

macro_rules! limits {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $min:expr, $max:expr, $unit:literal;)*) => {
        $($(#[$doc])* pub const $constant: Limit = Limit { name: $name, min: $min, max: $max, unit: $unit };)*

        /// Every limit, for documents and for tests.
        pub const ALL: &[Limit] = &[$($constant),*];
    };
}

/// The largest message that a client may send, in bytes.
pub const RECEIVE_BYTES: usize = 8 * 1024 * 1024;

/// Above this no count survives a trip through F64.
const EXACT: f64 = 9_007_199_254_740_991.0;
const SMALLEST_SHARE: f64 = 1e-6_f32 as f64;

limits! {
    /// Of one prompt, before the model's context is asked.
    PROMPT_TOKENS = "prompt", 1.0, 1_048_575.0, "tokens";
    /// Absent: the rest of the context.
    MAX_TOKENS = "max_tokens", 1.0, 1_048_575.0, "tokens";
    /// Stop strings of one request.
    STOPS = "stop", 0.0, 16.0, "strings";
    /// One stop string.
    STOP_BYTES = "stop[]", 1.0, 256.0, "bytes";
    /// Most likely tokens to report.
    TOP_LOGPROBS = "top_logprobs", 0.0, 20.0, "tokens";
    /// Messages of one conversation.
    MESSAGES = "chat.messages", 1.0, 2048.0, "messages";
    /// The name whose requests share caches.
    TENANT = "tenant", 0.0, 64.0, "bytes";
    /// Higher runs earlier.
    PRIORITY = "priority", -100.0, 100.0, "";
    /// 0 is greedy.
    TEMPERATURE = "sampling.temperature", 0.0, 2.0, "";
    /// 0 keeps all.
    TOP_K = "sampling.top_k", 0.0, 1_048_576.0, "tokens";
    /// 1 keeps all.
    TOP_P = "sampling.top_p", SMALLEST_SHARE, 1.0, "";
    /// 0 keeps all.
    MIN_P = "sampling.min_p", 0.0, 1.0, "";
    /// 1 changes nothing.
    REPETITION_PENALTY = "sampling.repetition_penalty", 0.1_f32 as f64, 10.0, "";
    /// 0 changes nothing.
    PRESENCE_PENALTY = "sampling.presence_penalty", -2.0, 2.0, "";
    /// 0 changes nothing.
    FREQUENCY_PENALTY = "sampling.frequency_penalty", -2.0, 2.0, "";
    /// Shards of a group.
    SIZE = "--size", 1.0, 64.0, "shards";
    /// One epoch is one formation of a group.
    EPOCH = "--epoch", 1.0, EXACT, "";
    /// The served context.
    CONTEXT_TOKENS = "--context-tokens", 2.0, 1_048_576.0, "tokens";
    /// Of the whole group.
    MAX_CONCURRENT_SEQUENCES = "--max-concurrent-sequences", 1.0, 4096.0, "sequences";
    /// Of one shard; at least the served context.
    KV_CACHE_TOKENS = "--kv-cache-tokens", 2.0, 2_147_483_648.0, "tokens";
    /// Of the compute pool.
    THREADS = "--threads", 1.0, 1024.0, "threads";
    /// Token budget of one step.
    STEP_TOKENS = "--step-tokens", 1.0, 65_536.0, "tokens";
    /// Requests that may wait.
    QUEUE = "--queue", 1.0, 65_536.0, "requests";
    /// Of `shoal-worker bench`: tokens of a prompt.
    BENCH_PREFILL = "--prefill", 1.0, 1_000_000.0, "tokens";
    /// Of `shoal-worker bench`: tokens of an answer after its first one.
    BENCH_DECODE = "--decode", 1.0, 1_000_000.0, "tokens";
    /// Of `shoal-worker bench`: sequences at once.
    BENCH_BATCH = "--batch[]", 1.0, 2048.0, "sequences";
    /// Of `shoal-worker bench`: measurements of one run.
    BENCH_BATCHES = "--batch", 1.0, 16.0, "batches";
    /// The name that clients use.
    MODEL_NAME = "--model-name", 1.0, 253.0, "bytes";
    /// Of one safetensors file.
    SAFETENSORS_HEADER = "safetensors header", 2.0, 16_777_216.0, "bytes";
    /// `model.safetensors.index.json`.
    SAFETENSORS_INDEX = "safetensors index", 2.0, 67_108_864.0, "bytes";
    /// Of one tensor; GGUF has at least one.
    TENSOR_DIMENSIONS = "dimensions of a tensor", 0.0, 4.0, "";
    /// Everything before the data of one GGUF file.
    GGUF_HEADER = "GGUF header", 24.0, 67_108_864.0, "bytes";
    /// Of one GGUF file.
    GGUF_KEYS = "GGUF metadata keys", 0.0, 65_536.0, "";
    /// Of one GGUF file.
    GGUF_TENSORS = "GGUF tensors", 0.0, 65_536.0, "";
    /// Of one `tokenizer.json`, each times its repetitions.
    EXPRESSION_CLASSES = "classes of a tokenizer's expressions", 0.0, 64.0, "";
    /// Of a key or a tensor.
    GGUF_NAME = "GGUF name", 1.0, 256.0, "bytes";
    /// A power of two.
    GGUF_ALIGNMENT = "GGUF alignment", 8.0, 65_536.0, "bytes";
    /// Files of one model.
    GGUF_SPLITS = "GGUF splits", 1.0, 1024.0, "files";
}
