"""Train the runs of the plan and keep the weights of each snapshot, one file a run. Resumable.

Weights are kept, not what is seen of them: a new statistic needs no new training, which takes hours.
"""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from . import families, negatives, networks, optimisers
from .plan import Run
from .texts import Images, Text

_SNAPSHOTS = (0, 100, 300, 1000)
_DECAY_OF_AVERAGE = 0.99
_DECAY_FACTOR = {"sgd": 0.02, "lion": 4.0, "adam": 0.0, "nadam": 0.0, "rmsprop": 0.0}
"""A decay is nominal: SGD has a hundred times the rate, Lion a fifth, and what Adam and its like couple is
left at zero."""


@dataclass
class Trainee:
    """A model with its data and its loss."""

    model: Any
    objective: str
    data: Any
    config: Mapping[str, Any] | None

    def loss(self, parameters: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the loss of a fresh batch, with other parameters in the model's place if given."""
        if self.objective == "vision":
            inputs, targets = self.data.batch()
        elif self.objective == "masked":
            inputs, targets = self.data.masked()
        else:
            ids = self.data.batch()
            inputs, targets = ids[:, :-1], ids[:, 1:]
            if self.objective == "seq2seq":
                targets = targets[:, inputs.shape[1] // 2 :]
        out = self._run(inputs, parameters)
        return F.cross_entropy(out.reshape(-1, out.shape[-1]).float(), targets.reshape(-1))

    def _run(self, inputs: torch.Tensor, parameters: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
        if self.config is not None:
            return families.logits(self.model, self.objective, inputs)
        if parameters is None:
            return self.model(inputs)
        return torch.func.functional_call(self.model, dict(parameters), (inputs,), tie_weights=True)


def trainee(run: Run, data: str | None = None) -> Trainee:
    """Build the untrained model of a run."""
    v, rows, seed = run.levels, run.levels["rows"], run.index
    vocabulary, hidden = v["vocabulary"], run.d * v["wide"]
    std = float(v["init"].partition(":")[2] or 0.02)
    config = None
    if run.source == "own":
        vision = run.kind in ("vision", "audio")
        shape = networks.Shape(
            norm=run.norm, d=run.d, layers=run.layers, vocabulary=vocabulary, placement=run.placement,
            biases=v["biases"], glu=v["glu"], activation=v["activation"], tied=v["tied"], positions=v["positions"],
            qk_norm=v["qk_norm"], experts=v["experts"], causal=run.kind == "decoder", hidden=hidden,
            kv_heads=2 if v["grouped"] else 4, dropout=v["dropout"], vision=vision,
            audio=run.kind == "audio", recurrent=v.get("recurrent", False),
        )  # fmt: skip
        model: Any = networks.Transformer(shape)
        networks.initialise(model, v["init"], run.layers, v["depth_scaled"])
        model.constrain()
        objective = "vision" if vision else "causal" if shape.causal else "masked"
    elif run.source == "real":
        family = families.FAMILIES[run.name]
        layers = min(run.layers, 2) if family.objective == "seq2seq" or run.name == "mamba" else run.layers
        model = family.build(run.d, layers, hidden, vocabulary, std)
        objective, config = family.objective, model.config.to_dict()
    else:
        model = negatives.build(run.name, run.d, run.layers, vocabulary)
        objective = negatives.NEGATIVES[run.name][1]
    if objective == "vision":
        heard = "tones" if run.kind == "audio" else v["images"]
        source: Any = Images(heard if data is None else data, 2 * rows, seed)
    else:
        length = 32 if run.name == "mamba" else v["length"]
        source = Text(v["data"] if data is None else data, vocabulary, min(rows, 4) if run.name == "mamba" else rows,
                      length, seed)  # fmt: skip
    return Trainee(model.train(), objective, source, config)


def state_of(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights as a file would hold them: every tied tensor once."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel() > 1:
            continue
        seen.add(tensor.data_ptr())
        state[name] = tensor.detach().clone()
    return state


def snapshots(run: Run, one: Trainee) -> Iterator[dict[str, Any]]:
    """Train one run and yield every snapshot: step, treatment, loss and state; no state where it diverged."""
    average: dict[str, torch.Tensor] = {}

    def record(step: int, treatment: str, state: Mapping[str, torch.Tensor], loss: float | None) -> dict[str, Any]:
        return {"step": step, "treatment": treatment, "loss": loss, "state": dict(state)}

    for step, loss in _train(run, one, run.steps, average):
        if loss is not None and not math.isfinite(loss):
            yield {"step": step, "treatment": "diverged", "loss": None, "state": None}
            return
        yield record(step, "bf16-trained" if run.levels["bf16"] else "none", _stored(run, one.model), loss)
    state = state_of(one.model)
    if run.index % 3 == 0:
        yield record(run.steps, "average", {k: average.get(k, v) for k, v in state.items()}, None)
    other = _other_data(run, one.objective)
    if run.levels["lora"] and run.source == "own":
        yield record(run.steps, "lora", _lora(one.model, state, trainee(run, other)), None)
    if run.levels["finetune"]:
        one.data = trainee(run, other).data
        for step, loss in _train(run, one, 50, {}, gentle=True):
            if step:
                yield record(run.steps + step, "finetuned", state_of(one.model), loss)


def _other_data(run: Run, objective: str) -> str:
    if objective == "vision":
        return "digits" if run.levels["images"] == "gratings" else "gratings"
    return "english" if run.levels["data"] != "english" else "python"


def _stored(run: Run, model: Any) -> dict[str, torch.Tensor]:
    state = state_of(model)
    return {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()} if run.levels["bf16"] else state


def _train(
    run: Run, one: Trainee, steps: int, average: dict[str, torch.Tensor], *, gentle: bool = False
) -> Iterator[tuple[int, float | None]]:
    v = run.levels
    name = "adamw" if gentle else v["optimiser"]
    rate = 3e-4 if gentle else optimisers.RATES[name] * v["rate"]
    decay = v["decay"] * _DECAY_FACTOR.get(name, 1.0)
    chosen = optimisers.build(name, one.model, rate, decay, v["decay_all"], v["beta2"], v.get("mup", False))
    constrain = getattr(one.model, "constrain", lambda: None)
    bases = [[g["lr"] for g in o.param_groups] for o in chosen]
    parameters = list(one.model.parameters())
    warm = max(10, steps // 12)
    losses: list[float] = []
    for step in range(steps + 1):
        if step == steps or (step in _SNAPSHOTS and not gentle):
            recent = losses[-20:]
            yield step, round(sum(recent) / len(recent), 4) if recent else None
        if step == steps:
            return
        factor = min(1.0, (step + 1) / warm)
        if v["schedule"] == "cosine":
            factor *= 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2
        for optimiser, base in zip(chosen, bases, strict=True):
            for group, lr in zip(optimiser.param_groups, base, strict=True):
                group["lr"] = lr * factor
        loss = one.loss()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            yield step, losses[-1]
            return
        one.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in chosen:
            optimiser.step()
        constrain()
        if v["bf16"]:
            with torch.no_grad():
                for p in parameters:
                    p.copy_(p.bfloat16())
        if run.index % 3 == 0 and step > steps // 2 and step % 5 == 0:
            for key, value in one.model.state_dict().items():
                if value.is_floating_point():
                    weight = 1 - _DECAY_OF_AVERAGE**5
                    average[key] = torch.lerp(average[key], value, weight) if key in average else value.clone()


def _lora(model: Any, state: Mapping[str, torch.Tensor], other: Trainee) -> dict[str, torch.Tensor]:
    """Train rank-4 updates of all inner matrices on other data, and merge them."""
    frozen = {k: v for k, v in state.items() if k not in dict(model.named_buffers())}
    inner = [k for k, v in frozen.items() if v.ndim == 2 and "embed" not in k and "head" not in k]
    a = {k: (0.05 * torch.randn(4, frozen[k].shape[1])).requires_grad_() for k in inner}
    b = {k: torch.zeros(frozen[k].shape[0], 4).requires_grad_() for k in inner}
    optimiser = torch.optim.AdamW([*a.values(), *b.values()], lr=3e-3)
    for _ in range(40):
        merged = {**frozen, **{k: frozen[k] + b[k] @ a[k] for k in inner}}
        loss = other.loss(merged)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {k: (v + b[k] @ a[k]).detach() if k in b else v for k, v in state.items()}


def work(out: Path, runs: Sequence[Run]) -> None:
    """Train every run that `out` does not hold; a run is one file, written when it is done."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        done = out / f"run{run.index:04d}.pt"
        if done.exists() or done.with_suffix(".failed").exists():
            continue
        started = time.perf_counter()
        partial = done.with_suffix(".partial")
        try:
            torch.manual_seed(run.index)
            one = trainee(run)
            found = list(snapshots(run, one))
        except Exception:  # noqa: BLE001  # a run that cannot be built must not end the night's work; it is reported
            done.with_suffix(".failed").write_text(traceback.format_exc())
            print(f"run {run.index} {run.name}: failed", file=sys.stderr, flush=True)
            continue
        config = None if one.config is None else json.dumps(one.config, default=str)
        torch.save({"plan": run.record(), "config": config, "snapshots": found}, partial)
        partial.rename(done)
        label = f"{run.name} {run.norm} {run.placement} {run.levels['optimiser']} d={run.d} steps={run.steps}"
        print(f"run {run.index} {label}: {time.perf_counter() - started:.0f} s", flush=True)
