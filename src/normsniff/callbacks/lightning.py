"""The shadows in the logs of Lightning, and so in every logger of its Trainer.

>>> Trainer(callbacks=[MonitorCallback()], logger=TensorBoardLogger("logs"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from ..errors import MissingExtra
from ..training.monitoring import Monitor

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingExtra("lightning", "the callback for Lightning") from error


class MonitorCallback(Callback):  # type: ignore[misc]  # the library is Any for mypy
    """Measures the module every ``log_every_n_steps`` steps of the trainer, and logs the scalars through it.

    Needs whole parameters on the first process: those of FSDP or ZeRO-3 are shards.

    Args:
        options: of `normsniff.Monitor`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._monitor: Monitor | None = None
        self._measured = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Measure and log if the trainer is about to write its logs; once a step, however many batches it takes."""
        step = trainer.global_step
        if step == self._measured or step % trainer.log_every_n_steps or not trainer.is_global_zero:
            return
        self._measured = step
        parameters = dict(pl_module.named_parameters())
        if self._monitor is None:
            self._monitor = Monitor(parameters, **self._options)
        pl_module.log_dict(self._monitor(parameters), rank_zero_only=True)
