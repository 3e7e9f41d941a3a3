"""The shadows in the logs of Keras: in the history, and in every callback that comes later in the list.

>>> model.fit(x, y, callbacks=[MonitorCallback(), CSVLogger("log.csv")])  # doctest: +SKIP
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import MissingExtra
from ..training.monitoring import Monitor

try:
    from keras.callbacks import Callback
except ImportError as error:
    raise MissingExtra("keras", "the callback for Keras") from error


class MonitorCallback(Callback):  # type: ignore[misc]  # the library is Any for mypy
    """Measures the model at the end of every epoch and adds the scalars to the epoch's logs. Put it first.

    Args:
        options: of `normsniff.Monitor`; ``config`` is that of the model unless given.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._monitor: Monitor | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras' signature
        """Measure, and add to the logs."""
        if logs is None:
            return
        weights = {weight.path: weight.value for weight in self.model.weights}
        if self._monitor is None:
            self._monitor = Monitor(weights, **({"config": _config(self.model)} | self._options))
        logs.update(self._monitor(weights))


def _config(model: Any) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(model.to_json())
    except NotImplementedError:  # a subclassed model that does not describe itself: names must do
        return {"class_name": type(model).__name__, "config": {}}
    return config
