//! The comparison with transformers can go red: each mistake of the table is made once in the recorded program, on its way
//! to the backend, and must be seen by the bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{cpu, distance, is_within_bounds};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, BackendError, Capabilities, Control, Executable, Lane, Report, Ticket};
use crate::ops::{Activation, Op, Pairing};
use crate::program::{BufferDecl, BufferId, Program};

/// Spoils an op; says whether it did.
type Mistake = fn(&mut Op) -> bool;

/// The CPU backend behind somebody who spoils every program before it is compiled.
struct Saboteur {
    cpu: CpuBackend,
    mistake: Mistake,
    spoiled: AtomicUsize,
}

impl Backend for Saboteur {
    fn capabilities(&self) -> Capabilities {
        self.cpu.capabilities()
    }

    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError> {
        self.cpu.alloc(id, decl)
    }

    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        self.cpu.upload(id, offset, bytes)
    }

    fn compile(&self, program: &Program) -> Result<Executable, BackendError> {
        let mut program = program.clone();
        for step in &mut program.steps {
            self.spoiled.fetch_add(usize::from((self.mistake)(&mut step.op)), Ordering::Relaxed);
        }
        self.cpu.compile(&program)
    }

    fn submit(&self, executable: Executable, control: &Control, lane: Lane) -> Result<Ticket, BackendError> {
        self.cpu.submit(executable, control, lane)
    }

    fn progress(&self) -> u64 {
        self.cpu.progress()
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        self.cpu.wait(ticket)
    }

    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError> {
        self.cpu.write_port(id, bytes)
    }

    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.cpu.read_port(id, bytes)
    }
}

fn sink_logit_ignored(op: &mut Op) -> bool {
    let Op::AttendGqa { sinks, .. } = op else { return false };
    sinks.take().is_some()
}

fn window_one_wider(op: &mut Op) -> bool {
    let Op::AttendGqa { window: Some(window), .. } = op else { return false };
    *window += 1;
    true
}

fn window_one_narrower(op: &mut Op) -> bool {
    let Op::AttendGqa { window: Some(window), .. } = op else { return false };
    *window -= 1;
    true
}

fn window_ignored(op: &mut Op) -> bool {
    let Op::AttendGqa { window, .. } = op else { return false };
    window.take().is_some()
}

fn gate_and_up_swapped(op: &mut Op) -> bool {
    let Op::GroupedGateUp { bank, .. } = op else { return false };
    std::mem::swap(&mut bank.gate, &mut bank.up);
    if let Some(biases) = &mut bank.biases {
        std::mem::swap(&mut biases.gate, &mut biases.up);
    }
    true
}

fn rope_pairs_in_the_wrong_layout(op: &mut Op) -> bool {
    let Op::Rope { table, .. } = op else { return false };
    table.pairing = match table.pairing {
        Pairing::Interleaved => Pairing::HalfSplit,
        Pairing::HalfSplit => Pairing::Interleaved,
    };
    true
}

/// 1e-5 for 1e-6, and the other way round.
fn the_other_eps(op: &mut Op) -> bool {
    let (Op::RmsNorm { eps, .. } | Op::Logits { eps, .. }) = op else { return false };
    *eps = if *eps < 5e-6 { 1e-5 } else { 1e-6 };
    true
}

fn yarn_factor_missing(op: &mut Op) -> bool {
    let Op::Rope { table, .. } = op else { return false };
    std::mem::replace(&mut table.factor, 1.0) > 1.0
}

fn one_expert_dropped(op: &mut Op) -> bool {
    let Op::PackRows { owned, .. } = op else { return false };
    *owned = vec![0..2, 3..owned[0].end];
    true
}

fn routed_scale_off_by_one_percent(op: &mut Op) -> bool {
    let Op::Route { rule, .. } = op else { return false };
    rule.scale *= 1.01;
    true
}

fn correction_bias_zeroed(op: &mut Op) -> bool {
    let Op::Route { bias, .. } = op else { return false };
    bias.take().is_some()
}

fn projection_biases_zeroed(op: &mut Op) -> bool {
    let Op::Linear { bias, .. } = op else { return false };
    bias.take().is_some()
}

fn expert_biases_zeroed(op: &mut Op) -> bool {
    let (Op::GroupedGateUp { bank, .. } | Op::GroupedDown { bank, .. }) = op else { return false };
    bank.biases.take().is_some()
}

fn groups_ignored(op: &mut Op) -> bool {
    let Op::Route { rule, .. } = op else { return false };
    (rule.groups, rule.top_groups) = (1, 1);
    true
}

fn the_other_normalisation(op: &mut Op) -> bool {
    let Op::Route { rule, .. } = op else { return false };
    rule.normalise = !rule.normalise;
    true
}

fn clip_ignored(op: &mut Op) -> bool {
    let Op::Clamp { limit, .. } = op else { return false };
    *limit = 1e6;
    true
}

fn clamp_of_experts_ignored(op: &mut Op) -> bool {
    let Op::GroupedGateUp { bank, .. } = op else { return false };
    let Activation::Clamped { limit, .. } = &mut bank.activation else { return false };
    *limit = 1e6;
    true
}

fn spoiled(fixture: &str, mistake: Mistake) -> (f32, f32) {
    let saboteur = Arc::new(Saboteur { cpu: cpu(), mistake, spoiled: AtomicUsize::new(0) });
    let distance = distance(fixture, 512, saboteur.clone());
    assert!(saboteur.spoiled.load(Ordering::Relaxed) > 0, "the mistake was never made");
    distance
}

#[rstest::rstest]
#[case::sink_logit_ignored("gpt-oss-128", sink_logit_ignored)]
#[case::window_one_wider("gpt-oss-128", window_one_wider)]
#[case::window_one_narrower("gpt-oss-128", window_one_narrower)]
#[case::window_one_wider_in_small("gpt-oss-small", window_one_wider)]
#[case::window_one_wider_in_mixtral("mixtral-window", window_one_wider)]
#[case::window_one_narrower_in_mixtral("mixtral-window", window_one_narrower)]
#[case::window_ignored_in_qwen3("qwen3-tied", window_ignored)]
#[case::gate_and_up_swapped_in_gpt_oss("gpt-oss-128", gate_and_up_swapped)]
#[case::gate_and_up_swapped_in_mixtral("mixtral-full", gate_and_up_swapped)]
#[case::gate_and_up_swapped_in_deepseek("v3-yarn", gate_and_up_swapped)]
#[case::rope_pairs_in_gpt_oss("gpt-oss-small", rope_pairs_in_the_wrong_layout)]
#[case::rope_pairs_in_qwen3("qwen3-sparse", rope_pairs_in_the_wrong_layout)]
#[case::rope_pairs_in_mixtral("mixtral-window", rope_pairs_in_the_wrong_layout)]
#[case::rope_pairs_in_olmoe("olmoe-clip", rope_pairs_in_the_wrong_layout)]
#[case::rope_pairs_in_deepseek("v3-yarn", rope_pairs_in_the_wrong_layout)]
#[case::eps_in_mixtral("mixtral-full", the_other_eps)]
#[case::eps_in_deepseek("small-embed", the_other_eps)]
#[case::yarn_factor_missing_in_gpt_oss("gpt-oss-128", yarn_factor_missing)]
#[case::one_expert_dropped_in_gpt_oss("gpt-oss-128", one_expert_dropped)]
#[case::one_expert_dropped_in_qwen3("qwen3-sparse", one_expert_dropped)]
#[case::one_expert_dropped_in_deepseek("v3-yarn", one_expert_dropped)]
#[case::routed_scale_in_olmoe("olmoe-norm", routed_scale_off_by_one_percent)]
#[case::routed_scale_in_deepseek("v3-yarn", routed_scale_off_by_one_percent)]
#[case::correction_bias_zeroed("v3-yarn", correction_bias_zeroed)]
#[case::projection_biases_zeroed_in_gpt_oss("gpt-oss-128", projection_biases_zeroed)]
#[case::projection_biases_zeroed_in_qwen3("qwen3-sparse", projection_biases_zeroed)]
#[case::expert_biases_zeroed("gpt-oss-128", expert_biases_zeroed)]
#[case::groups_ignored("v3-yarn", groups_ignored)]
#[case::weights_normalised_in_qwen3("qwen3-sparse", the_other_normalisation)]
#[case::weights_not_normalised_in_olmoe("olmoe-norm", the_other_normalisation)]
#[case::weights_not_normalised_in_mixtral("mixtral-full", the_other_normalisation)]
#[case::clip_ignored("olmoe-clip", clip_ignored)]
#[case::clamp_of_experts_ignored("gpt-oss-small", clamp_of_experts_ignored)]
fn a_mistake_in_the_program_is_seen(#[case] fixture: &str, #[case] mistake: Mistake) {
    let distance = spoiled(fixture, mistake);
    assert!(!is_within_bounds(distance), "not seen: {distance:?}");
}
