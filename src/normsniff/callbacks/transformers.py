"""The shadows in the logs of Hugging Face's Trainer, and so in whatever ``report_to`` names.

>>> trainer = Trainer(model, TrainingArguments(..., report_to="tensorboard"), ...)  # doctest: +SKIP
>>> trainer.add_callback(MonitorCallback(trainer))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from ..errors import MissingExtra
from ..training.monitoring import Monitor

try:
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise MissingExtra("transformers", "the callback for Hugging Face's Trainer") from error


class MonitorCallback(TrainerCallback):  # type: ignore[misc]  # the library is Any for mypy
    """Measures the network whenever the trainer logs, and logs the scalars through it.

    Needs whole parameters on the first process: those of ZeRO-3 or FSDP are shards.

    Args:
        trainer: whose `log` is called. (A callback's own `on_log` runs after those that write the logs.)
        options: of `normsniff.Monitor`; ``config`` is that of the model unless given.
    """

    def __init__(self, trainer: Trainer, **options: Any) -> None:
        self._trainer, self._options = trainer, options
        self._monitor: Monitor | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Measure and log if the trainer is about to."""
        if not control.should_log or not state.is_world_process_zero:
            return
        parameters = dict(model.named_parameters())
        if self._monitor is None:
            known = {"config": model.config.to_dict()} if hasattr(model, "config") else {}
            self._monitor = Monitor(parameters, **(known | self._options))
        self._trainer.log(self._monitor(parameters))
        control.should_log = True  # logging resets it, and the loss is yet to come

    on_epoch_end = on_step_end  # where the logging strategy is "epoch"
