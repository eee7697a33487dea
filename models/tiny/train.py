"""Train the tiny model from nothing and write everything that serving it needs.

    python train.py --out ../../target/tiny

Resumes from OUT/checkpoint.pt if that exists. Never trains on a held-out sum (see `sums.held_out`).
"""

import argparse
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

import evaluate
import files
import sums

class Cycle(NamedTuple):
    """A rise and fall of the learning rate, and how many digits its numbers have, drawn from this tuple."""

    share: float
    peak_learning_rate: float
    digits: tuple[int, ...]


# The rules are learnt on sums of every length; what is then still wrong is turning four digits round.
CYCLES = (
    Cycle(share=0.625, peak_learning_rate=2e-3, digits=(1, 2, 3, 3, 3)),
    Cycle(share=0.375, peak_learning_rate=1.5e-3, digits=(1, 2, 3, 3, 3, 3, 3, 3, 3, 3)),
)
BIAS_STEP = 1e-3
# The correction biases move only in this first part of the run, so that the weights settle on fixed ones.
BIAS_MOVES_UNTIL = 0.5
CHECKPOINT_EVERY = 100


def config() -> DeepseekV3Config:
    """DeepSeek-V3 with every feature on, 1.1 million parameters."""
    return DeepseekV3Config(
        vocab_size=len(sums.TOKEN_ID),
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=64,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=64,
        kv_lora_rank=32,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        n_shared_experts=1,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_group=4,
        topk_group=2,
        norm_topk_prob=True,
        routed_scaling_factor=1.5,
        num_mtp_layers=0,
        max_position_embeddings=512,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        tie_word_embeddings=False,
        pad_token_id=sums.PAD,
        bos_token_id=sums.BOS,
        eos_token_id=sums.EOS,
    )


class LoadBalancer:
    """DeepSeek-V3's balance without a loss: the bias of an expert under the mean load rises, of one over it falls."""

    def __init__(self, model):
        self.routers = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        self.chosen = {}
        for router in self.routers:
            router.register_forward_hook(self._remember)

    def _remember(self, router, _inputs, outputs):
        _logits, _weights, experts = outputs
        self.chosen[router] = experts

    @torch.no_grad()
    def move(self, counted):
        """`counted`: bool over the flattened positions; padding does not count."""
        for router in self.routers:
            load = torch.bincount(self.chosen[router][counted].flatten(), minlength=router.num_experts).float()
            router.e_score_correction_bias += BIAS_STEP * torch.sign(load.mean() - load)


def batch_of(rng, size, digits):
    """(ids, labels), both [size, longest]; padded on the right, labels only on what the model is to say."""
    examples = [sums.training_example(rng, digits) for _ in range(size)]
    longest = max(len(prompt) + len(completion) for prompt, completion in examples)
    ids = torch.full((size, longest), sums.PAD)
    labels = torch.full((size, longest), -100)
    for row, (prompt, completion) in enumerate(examples):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return ids, labels


class Run:
    """Everything that a checkpoint holds: model, optimiser, schedule, data generator and step."""

    def __init__(self, steps, seed):
        torch.manual_seed(seed)
        self.step, self.steps = 0, steps
        self.rng = random.Random(seed)
        self.model = DeepseekV3ForCausalLM(config())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        self.balancer = LoadBalancer(self.model)
        self.second = round(CYCLES[0].share * steps)
        self.enter(CYCLES[0])

    def enter(self, cycle):
        self.cycle = cycle
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, cycle.peak_learning_rate, total_steps=round(cycle.share * self.steps), pct_start=0.05
        )

    def advance(self, batch) -> float:
        """One optimiser step; returns its loss in nats a token."""
        if self.step == self.second:
            self.enter(CYCLES[1])
        ids, labels = batch_of(self.rng, batch, self.cycle.digits)
        loss = self.model(input_ids=ids, labels=labels, use_cache=False).loss
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        if self.step < BIAS_MOVES_UNTIL * self.steps:
            self.balancer.move((ids != sums.PAD).flatten())
        self.step += 1
        return loss.item()

    def save(self, path):
        state = {
            "step": self.step,
            "rng": self.rng.getstate(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, path):
        state = torch.load(path, weights_only=False)
        self.step = state["step"]
        if self.step > self.second:
            self.enter(CYCLES[1])
        self.rng.setstate(state["rng"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def train(run, batch, checkpoint):
    first, started = run.step, time.monotonic()
    while run.step < run.steps:
        loss = run.advance(batch)
        if run.step % 25 == 0 or run.step == run.steps:
            each = (time.monotonic() - started) / (run.step - first)
            left = each * (run.steps - run.step)
            pace = f"{each:.2f} s a step  {left / 60:.1f} min left"
            print(f"step {run.step}/{run.steps}  loss {loss:.5f}  {pace}", flush=True)
        if run.step % CHECKPOINT_EVERY == 0 or run.step == run.steps:
            run.save(checkpoint)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="one loses least on a busy machine")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    run = Run(args.steps, args.seed)
    if checkpoint.exists():
        run.load(checkpoint)
        print(f"resumed at step {run.step}")
    print(f"{sum(p.numel() for p in run.model.parameters())} parameters", flush=True)
    train(run, args.batch, checkpoint)
    files.write(run.model, args.out)
    evaluate.report(args.out, count=1000, seed=args.seed)


if __name__ == "__main__":
    main()
