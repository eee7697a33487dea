//! The decoder that every family is: embedding, then in each layer attention and a dense MLP or a mixture of experts, then
//! the head. What differs between families is in its [`Decoder`](super::config::Decoder).

use std::ops::Range;

use super::config::ModelConfig;
use super::loaded::{KV_BLOCK, PeerPorts, ServePorts, StagePorts};
use super::parts::{AttentionShared, LayerAttention, Mixture, MixtureBuffers, Mlp, MlpScratch, Ownership};
use super::recipe::{Recorder, Recording};
use crate::ops::Op;
use crate::program::{Bucket, BufferId, BufferKind, Dtype, Segment, View};
use crate::weights::WeightsError;
use crate::weights::checkpoint::Checkpoint;

/// The embedding's table, in every family.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";

/// What a recording depends on besides the model's files.
#[derive(Debug, Clone)]
pub(super) struct RecipeOptions {
    pub(super) bucket: Bucket,
    pub(super) kv_blocks: u32,
    pub(super) kv_dtype: Dtype,
    pub(super) ownership: Ownership,
    /// The layers of this stage of a pipeline; else all.
    pub(super) layers: Range<usize>,
}

/// A recording and the ports that the engine needs to find in it.
pub(super) struct Recorded {
    pub(super) recording: Recording,
    pub(super) peers: Vec<Option<PeerPorts>>,
    pub(super) serve: Option<ServePorts>,
    pub(super) stage: StagePorts,
}

/// Buffers of the residual stream. What a stage takes from the one before it is read where it arrives, and the sum of its
/// last layer is written where it leaves: nothing is copied.
struct Stream {
    hidden: usize,
    eps: f32,
    /// Where the stream is now.
    source: BufferId,
    residual: BufferId,
    normed: BufferId,
    delta: BufferId,
}

impl Stream {
    fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig, ports: StagePorts) -> Self {
        let residual = recorder.rows(BufferKind::State, "residual", config.hidden);
        Self {
            hidden: config.hidden,
            eps: config.decoder.norm_eps,
            source: ports.input.unwrap_or(residual),
            residual,
            normed: recorder.rows(BufferKind::State, "normed", config.hidden),
            delta: recorder.rows(BufferKind::Scratch, "delta", config.hidden),
        }
    }

    fn record_norm(&self, recorder: &mut Recorder<'_>, weight: BufferId) {
        let input = View::columns(self.source, 0, self.hidden);
        recorder.push(Op::RmsNorm { input, weight, eps: self.eps, out: View::columns(self.normed, 0, self.hidden) });
    }

    /// The stream goes on in `out`.
    fn record_add(&mut self, recorder: &mut Recorder<'_>, out: BufferId) {
        recorder.push(Op::Add { a: self.source, b: self.delta, out });
        self.source = out;
    }
}

enum FeedForward {
    Dense(Mlp, MlpScratch),
    Mixture(Mixture),
}

struct Layer {
    input_norm: BufferId,
    attention: LayerAttention,
    middle_norm: BufferId,
    feed_forward: FeedForward,
}

impl Layer {
    fn bind(
        recorder: &mut Recorder<'_>,
        config: &ModelConfig,
        shared: &SharedParts,
        cache: (Dtype, usize),
        layer: usize,
    ) -> Result<Self, WeightsError> {
        let rule = config.decoder.layers[layer];
        let norm = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let mlp = format!("model.layers.{layer}.mlp");
        Ok(Self {
            input_norm: recorder.vector(&norm("input_layernorm"), config.hidden)?,
            attention: shared.attention.bind(recorder, layer, rule.window, cache)?,
            middle_norm: recorder.vector(&norm("post_attention_layernorm"), config.hidden)?,
            feed_forward: match (rule.mixture, shared.dense) {
                (false, Some(scratch)) => {
                    let width = config.decoder.dense_width;
                    FeedForward::Dense(Mlp::bind(recorder, &mlp, config.hidden, width)?, scratch)
                }
                _ => FeedForward::Mixture(Mixture::bind(recorder, config, &shared.mixture, layer)?),
            },
        })
    }
}

/// What the layers share.
struct SharedParts {
    attention: AttentionShared,
    mixture: MixtureBuffers,
    /// `None` where every layer of the stage has experts.
    dense: Option<MlpScratch>,
}

impl SharedParts {
    fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig, ownership: Ownership, layers: Range<usize>) -> Self {
        let all_mixtures = config.decoder.layers[layers].iter().all(|layer| layer.mixture);
        let attention = AttentionShared::declare(recorder, config);
        let mixture = MixtureBuffers::declare(recorder, config, ownership);
        let dense = MlpScratch::declare(recorder, "dense", if all_mixtures { 0 } else { config.decoder.dense_width });
        Self { attention, mixture, dense }
    }
}

/// Records the model, or its stage, for one shard.
pub(super) fn record(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    options: RecipeOptions,
) -> Result<Recorded, WeightsError> {
    let mut recorder = Recorder::new(checkpoint, options.bucket);
    let sharded = options.ownership.peers.len() > 1;
    let cache = (options.kv_dtype, options.kv_blocks as usize * KV_BLOCK);
    let layers = options.layers;
    let (first, last) = (layers.start == 0, layers.end == config.decoder.layers.len());
    let mut port = |kind, name, wanted: bool| wanted.then(|| recorder.rows(kind, name, config.hidden));
    let stage = StagePorts {
        input: port(BufferKind::PortIn, "stage.input", !first),
        output: port(BufferKind::PortOut, "stage.output", !last),
    };
    let mut stream = Stream::declare(&mut recorder, config, stage);
    let shared = SharedParts::declare(&mut recorder, config, options.ownership, layers.clone());
    let samples = recorder.buffer(BufferKind::State, Dtype::U32, "samples", [options.bucket.samples, 1]);
    let table = (first || last && config.tied)
        .then(|| recorder.matrix(EMBEDDING, [config.vocabulary, config.hidden]))
        .transpose()?;
    if let Some(table) = table.filter(|_| first) {
        recorder.push(Op::Embed { table, samples, out: stream.residual });
    }
    let mut mixtures = 0;
    for index in layers.clone() {
        recorder.set_layer(index);
        let layer = Layer::bind(&mut recorder, config, &shared, cache, index)?;
        stream.record_norm(&mut recorder, layer.input_norm);
        shared.attention.record(&mut recorder, &layer.attention, stream.normed, stream.delta);
        stream.record_add(&mut recorder, stream.residual);
        stream.record_norm(&mut recorder, layer.middle_norm);
        let out = stage.output.filter(|_| index + 1 == layers.end).unwrap_or(stream.residual);
        match &layer.feed_forward {
            FeedForward::Dense(mlp, scratch) => {
                mlp.record(&mut recorder, *scratch, stream.normed, stream.delta);
                stream.record_add(&mut recorder, out);
            }
            FeedForward::Mixture(experts) => {
                let mixture = &shared.mixture;
                experts.record_routing(&mut recorder, mixture, stream.normed);
                cut_if(sharded, &mut recorder, Segment::Front(mixtures));
                experts.record_local(&mut recorder, mixture, stream.normed);
                cut_if(sharded, &mut recorder, Segment::Local(mixtures));
                experts.record_serve(&mut recorder, mixture, mixtures);
                mixture.record_sum(&mut recorder, stream.source, out);
                mixtures += 1;
            }
        }
        recorder.push(Op::FiniteCheck { input: out });
    }
    if last {
        recorder.set_layer(config.decoder.layers.len());
        record_head(&mut recorder, config, &stream, (table.filter(|_| config.tied), samples))?;
    }
    recorder.cut(if sharded { Segment::Front(mixtures) } else { Segment::Whole });
    let (serve, peers) = (shared.mixture.serve_ports(), shared.mixture.peers);
    Ok(Recorded { recording: recorder.finish(), serve, peers, stage })
}

fn cut_if(sharded: bool, recorder: &mut Recorder<'_>, segment: Segment) {
    if sharded {
        recorder.cut(segment);
    }
}

fn record_head(
    recorder: &mut Recorder<'_>,
    config: &ModelConfig,
    stream: &Stream,
    (tied, samples): (Option<BufferId>, BufferId),
) -> Result<(), WeightsError> {
    let rows = recorder.bucket().samples;
    let mut scratch = |name: &str, cols| recorder.buffer(BufferKind::Scratch, Dtype::F32, name, [rows, cols]);
    let (last, normed) = (scratch("last", config.hidden), scratch("last_normed", config.hidden));
    let logits = scratch("logits", config.vocabulary);
    let norm = recorder.vector("model.norm.weight", config.hidden)?;
    let head = match tied {
        Some(table) => table,
        None => recorder.matrix("lm_head.weight", [config.vocabulary, config.hidden])?,
    };
    recorder.push(Op::GatherSamples { input: stream.residual, out: last });
    recorder.push(Op::Logits { input: last, norm, eps: config.decoder.norm_eps, head, normed, out: logits });
    recorder.push(Op::FiniteCheckSamples { input: logits });
    recorder.push(Op::Sample { logits, samples });
    Ok(())
}
