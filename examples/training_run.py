"""Train a small network with Hugging Face's Trainer, watch it while it trains, and keep checkpoints to look at later.

    python examples/training_run.py gpt2|llama DIRECTORY [STEPS]
    normsniff track DIRECTORY -o curve.png

The text is the source of Python's standard library, read as bytes. GPT-2 has LayerNorm, Llama has RMSNorm.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

from normsniff.callbacks.transformers import MonitorCallback

CONTEXT = 64


def network(kind: str) -> PreTrainedModel:
    """Return an untrained network of a million parameters or fewer."""
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=128, n_head=4, vocab_size=256, n_positions=CONTEXT))
    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=4, hidden_size=128, intermediate_size=344, num_attention_heads=4, vocab_size=256,
            max_position_embeddings=CONTEXT,
        )
    )  # fmt: skip


def pieces() -> list[dict[str, torch.Tensor]]:
    """Return the text in pieces of the length of the context."""
    data = b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
    ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    return [{"input_ids": piece, "labels": piece} for piece in ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)]


def main(kind: str, directory: Path, steps: int) -> None:
    """Train; the shadows appear in the trainer's logs, eight times, and a checkpoint is kept each time."""
    set_seed(0)
    model = network(kind)
    model.save_pretrained(directory / "checkpoint-0")
    every = max(1, steps // 8)
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        logging_steps=every,
        save_steps=every,
        report_to="none",  # "tensorboard", "mlflow", ...
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=pieces())
    trainer.add_callback(MonitorCallback(trainer))
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 800)
