"""A page's WebSocket: it says what was dropped, is asked for bytes, and is told of every model as its record grows."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import NormsniffError, printable
from ..limits import Limits
from ..record import Failure
from ..source.remote.answers import RefusedError
from .api import subject_of
from .calls import Options, Reply, fragment, grow, models_in
from .gate import Ticket
from .problems import Problem
from .service import Service
from .subjects import Dropped, Wanted

_SESSIONS = 64  # pages at a time; one takes one place at the gate and some 20 MB while a large range passes through
_FIRST = 30.0  # seconds in which a page must say what it wants
_AGAIN = 1.0  # seconds between two tries to get a place
_TAKEN = 30.0  # seconds in which a page must take what it is told
_LAST_WORDS = 5.0  # seconds for what a worker said before it ended
_SHOWN = 20  # files that were passed over and are named
_BUSY, _BAD = 1013, 1007  # codes with which a WebSocket is closed: try again later; not the data that was asked for

_DropSize = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_DropPath = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_DropFiles = Annotated[tuple[tuple[_DropPath, _DropSize], ...], msgspec.Meta(min_length=1, max_length=Limits().files)]


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first message of a page; one of its parts.

    Attributes:
        files: path and size of everything that was dropped.
        url: of a model.
        path: of a model below the root.
    """

    files: _DropFiles | None = None
    url: str | None = None
    path: str | None = None


class _Unreadable(msgspec.Struct):
    """What a page says when it cannot read what it was asked for."""

    ask: int
    reason: str


async def session(socket: WebSocket) -> None:
    """Answer one page."""
    service: Service = socket.state.service
    await socket.accept()
    if service.sessions >= _SESSIONS:
        await socket.close(_BUSY)
        return
    service.sessions += 1
    try:
        async with asyncio.timeout(_FIRST):
            opening = msgspec.json.decode(await socket.receive_text(), type=Opening)
        await _Session(socket, service).run(opening)
    except* (WebSocketDisconnect, RuntimeError):  # it is closed, and starlette says so in two ways
        pass
    except* (msgspec.DecodeError, RecursionError, TimeoutError, KeyError):
        with suppress(RuntimeError):
            await socket.close(_BAD)
    finally:
        service.sessions -= 1


class _Session:
    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket = socket
        self._service = service
        self._model = 0
        self._ask = 0
        self._answer: asyncio.Future[bytes] | None = None

    async def run(self, opening: Opening) -> None:
        """Work while listening; a page that leaves ends the work."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            try:
                await self._work(opening)
                await self._say(type="end")
                await self._socket.close()
            finally:
                listening.cancel()

    async def _work(self, opening: Opening) -> None:
        try:
            models = await self._models(opening)
        except (Problem, NormsniffError) as error:
            await self._say(type="problem", detail=_without_prefix(error))
            return
        await self._say(type="models", models=[name for name, _ in models])
        for self._model, (name, subject) in enumerate(models):
            await self._grow(name, subject)

    async def _models(self, opening: Opening) -> list[tuple[str, Wanted]]:
        """Return name and subject of every model that a page named."""
        if opening.files is None:
            name = (opening.url or opening.path or "").rstrip("/").rpartition("/")[2].partition("?")[0]
            return [(printable(name) or "model", subject_of(self._service, url=opening.url, path=opening.path))]
        files = opening.files
        if any({"", ".", ".."} & set(path.split("/")) for path, _ in files):
            raise msgspec.ValidationError("not a path in a drop")
        if len(files) == 1:
            return [(printable(files[0][0]), Dropped(files, files[0][0]))]
        async with AsyncExitStack() as stack:
            ticket = await self._place(stack)
            found, skipped = await ticket.call(models_in, files)
        if skipped:
            await self._say(type="skipped", files=skipped[:_SHOWN], more=max(len(skipped) - _SHOWN, 0))
        return [(printable(path), Dropped(files, path)) for path in found]

    async def _grow(self, name: str, subject: Wanted) -> None:
        async with AsyncExitStack() as stack:
            ticket = await self._place(stack)
            exchange = self._service.exchange
            token, over = await stack.enter_async_context(exchange.expecting(self._heard))
            try:
                answer: Reply = await ticket.call(grow, exchange.address, token, subject, name, Options())
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), _LAST_WORDS)
            except (NormsniffError, RefusedError) as error:
                await self._fail(name, error)
                return
        self._service.metrics.labels.labels(answer.label).inc()
        self._service.metrics.read.inc(answer.read)

    async def _fail(self, name: str, error: Exception) -> None:
        failure = Failure.of(name, error)
        detail = msgspec.structs.replace(failure.error, message=_without_prefix(error))
        html = fragment(msgspec.structs.replace(failure, error=detail), name)
        await self._say(type="failed", model=self._model, html=html, words=f"{name}: not read")

    async def _place(self, stack: AsyncExitStack) -> Ticket:
        """Wait for a place at the gate; as there are few sessions, few can wait here."""
        while True:
            try:
                return await stack.enter_async_context(self._service.gate.admitted())
            except Problem:
                await self._say(type="waiting")
                await asyncio.sleep(_AGAIN)

    async def _heard(self, message: dict[str, Any]) -> bytes | None:
        """Pass a worker's message on to the page; of a question, return the page's answer."""
        if message["type"] != "read":
            await self._say(model=self._model, **message)
            return None
        self._ask += 1
        self._answer = asyncio.get_running_loop().create_future()
        await self._say(ask=self._ask, model=self._model, **message)
        return await self._answer

    async def _say(self, **message: Any) -> None:
        async with asyncio.timeout(_TAKEN):
            await self._socket.send_text(msgspec.json.encode(message).decode())

    async def _listen(self) -> None:
        """Take answers; one to a question that nobody asks any more is dropped."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                ask, answer = int.from_bytes(data[:4], "big"), b"+" + data[4:]
            else:
                said = msgspec.json.decode(text or "", type=_Unreadable)
                ask, answer = said.ask, b"-" + printable(said.reason)[:200].encode("utf-8", "replace")
            if self._answer is not None and ask == self._ask and not self._answer.done():
                self._answer.set_result(answer)


def _without_prefix(error: Exception) -> str:
    from .dropped import plain

    return plain(str(error))
