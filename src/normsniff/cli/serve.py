"""`normsniff serve`: a page and an HTTP API."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import click

from ..serve.settings import HUB
from .options import HELP, Size, memory_option, timeout_option

_EXAMPLES = """\b
Examples:
  normsniff serve                                   # then open http://127.0.0.1:8420
  normsniff serve --root /lake --jobs 4             # requests may name files below /lake
  normsniff serve --allow-host models.example.org --allow-network 10.0.0.0/8
  curl --data-binary @model.gguf http://127.0.0.1:8420/v1/sniff?name=model.gguf
"""
SERVER: dict[str, Any] = {
    "limit_concurrency": 1_000,  # beyond so many connections, of some 100 kB each, uvicorn answers 503 by itself
    "timeout_graceful_shutdown": 5,  # seconds in which answers may be finished after Ctrl-C
    "ws": "websockets-sansio",
    "ws_max_size": 1 << 24,  # what the page sends in answer to one question, and room
    "ws_max_queue": 4,
    "loop": "asyncio",
    "http": "normsniff.serve.connections:Watched",
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
}
"""How uvicorn runs the application."""


class Network(click.ParamType[str]):
    """A network in CIDR notation."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the network as it was written."""
        try:
            ipaddress.ip_network(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; only this machine's own by default."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="0 takes a free one.")
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory below which requests may name files. Without it they may name none.",
)  # fmt: skip
@click.option(
    "--allow-host", "hosts", multiple=True, default=HUB, show_default=True, metavar="NAME[:PORT]",
    help="Host that URLs may lead to, '*.' before it for all below. Replaces the default; '' allows none.",
)  # fmt: skip
@click.option(
    "--allow-network", "networks", multiple=True, type=Network(),
    help="Private network in which an allowed host may be, such as 10.0.0.0/8.",
)  # fmt: skip
@click.option(
    "--server-name", "names", multiple=True, metavar="NAME",
    help="Name by which this service is called, beside localhost and addresses.",
)  # fmt: skip
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes that answer. [default: one for every CPU]")
@click.option(
    "--queue", type=click.IntRange(min=0), default=32, show_default=True,
    help="Requests that may wait for one of them; the next gets 429.",
)  # fmt: skip
@timeout_option(60)
@memory_option("2GB")
@click.option(
    "--max-upload", "upload", type=Size(), default="2GB", show_default=True,
    help="Bytes of the largest body; all together may have twice as many.",
)  # fmt: skip
def serve(host: str, port: int, **settings: Any) -> None:
    """Open a page on which files are dropped, and an HTTP API.

    A dropped file is not uploaded: the page is asked for the byte ranges that an answer needs. /openapi.json describes
    the API.
    """
    from ..errors import MissingExtra

    try:
        import uvicorn

        from ..serve.app import application
    except ImportError as error:
        raise click.ClickException(str(MissingExtra("serve", "serving"))) from error
    from ..serve.settings import Settings

    settings["hosts"] = tuple(one for one in settings["hosts"] if one)
    with _listening(host, port) as place:
        address = f"[{host}]" if ":" in host else host
        click.echo(f"listening on http://{address}:{place.getsockname()[1]}", err=True)
        if not ipaddress.ip_address(place.getsockname()[0].partition("%")[0]).is_loopback:
            click.echo("anyone who reaches this address can use it: it has no accounts and no TLS", err=True)
        uvicorn.Server(uvicorn.Config(application(Settings(**settings)), **SERVER)).run(sockets=[place])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"cannot listen on {host} port {port}: {reason}") from error
