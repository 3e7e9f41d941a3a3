"""A record as a few aligned lines: plain in a pipe, coloured on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..checks.labels import CODES  # findings that a record says in lines of their own
from ..record import Classification, Evidence, NormSite
from ..words import amount
from .lines import Line, columns, emit, reasons
from .scale_words import stored, why

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"LayerNorm": "cyan", "RMSNorm": "green", "mixed": "magenta", "none": "blue", "undetermined": "yellow"}
_GRAVE = {"error": "bold red", "warning": "yellow"}
_INDENT = 13
_MATTERS = 4  # unexplained things that deserve a line where there is a label: one or two tokens do not


def lines(record: Classification, *, norms: bool = False, width: int | None = None) -> Iterator[Line]:
    """Yield the report on one record, line by line; the table of `norms` is no wider than `width`."""
    yield _headline(record)
    yield _row("file", "", _file(record))
    if len(record.components) > 1:
        for part in record.components:
            wide = f", d_model {part.d_model}" if part.d_model else ""
            yield _row(part.name, part.label, f"{_percent(part.confidence)}{amount(part.norms, 'norm')}{wide}")
    several = len({e.component for e in record.evidence}) > 1
    for one in record.evidence:
        if one.kind == "verdict" and one.log_odds:
            continue  # a correction of the sum is for those who add up: --json
        yield _row(one.kind, one.label, _reason(one, several))
    if record.rewritten_from:
        looks = (
            f"it looks like a {record.rewritten_from} model in RMSNorm form: what writes into the stream has no mean"
        )
        yield _row("rewritten", "", f"{looks}, as after centring; training alone does not do that", "magenta")
    for contradiction in record.contradictions:
        yield _row("conflict", "", contradiction.statement, "bold red")
    for found in record.findings or ():
        if found.severity != "note" and found.code not in CODES:
            yield _row(found.severity, "", f"{found.code}: {found.reason}", _GRAVE[found.severity])
    account = record.account
    if account is not None and account.unexplained and (account.unexplained >= _MATTERS or record.next_steps):
        names = ", ".join(name.partition(" (")[0] for name in account.names[:3])
        dots = " ..." if account.unexplained > 3 else ""
        yield _row(
            "unexplained", "", f"{account.unexplained} of {account.explained + account.unexplained}: {names}{dots}"
        )
    for step in record.next_steps:
        yield _row("next", "", step)
    yield _row("read", "", _cost(record))
    for warning in record.warnings[:5]:
        yield _row("note", "", warning, "dim")
    if len(record.warnings) > 5:
        yield _row("note", "", f"{len(record.warnings) - 5} more notes in --json", "dim")
    if norms:
        yield from _norm_table(record.norms, width)


def show(record: Classification, *, console: Console | None, norms: bool = False) -> None:
    """Print the report: through `console` with colour, or plainly to standard output if it is None."""
    emit(lines(record, norms=norms, width=None if console is None else console.width), console)


def _headline(record: Classification) -> Line:
    sure = f"{record.confidence:6.1%}" if record.confidence is not None else "     –"
    if record.confidence is not None and record.confidence > 0.999:
        sure = ">99.9%"
    style = f"bold {COLOURS[record.label]}"
    return [(f"{record.label:<12}", style), (f" {sure}  ", "bold"), (record.path or "", "bold")]


def _row(name: str, label: str, text: str, style: str = "") -> Line:
    pieces: Line = [(f"  {name:<{_INDENT - 3}} ", "dim")]
    if label:
        pieces.append((f"{label:<12} ", COLOURS.get(label, "")))
    pieces.append((text, style))
    return pieces


def _file(record: Classification) -> str:
    version = record.format_version or ""
    version = f" v{version}" if version[:1].isdigit() else f" {version}".rstrip()
    parts = [f"{record.format}{version}"]
    if record.architecture:
        parts.append(record.architecture)
    parts.append(amount(record.tensors, "tensor"))
    if record.d_model:
        parts.append(f"d_model {record.d_model:,}")
    if record.scales is not None:
        both = f"{amount(record.scales, 'scale')}, {amount(record.shifts or 0, 'shift')}"
        parts.append(f"{amount(len(record.norms), 'norm')} ({both})")
    return ", ".join(parts)


def _reason(one: Evidence, several: bool) -> str:
    return f"{one.component}: {one.reason}" if several else one.reason


def _cost(record: Classification) -> str:
    took = f"{(record.seconds or 0) * 1000:,.0f} ms"
    if record.bytes_read is None or record.file_size is None:
        return took
    requests = "" if record.requests is None else f"{record.requests:,} requests, "
    return f"{size(record.bytes_read)} of {size(record.file_size)} in {requests}{took}"


def _percent(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.1%}, "


def size(n: int) -> str:
    """Return a number of bytes for people, in decimal units."""
    value = float(n)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


_DISPENSABLE = ("component", "kind", "layer", "dead direction", "role", "shift", "d")  # the names say most of it


def _norm_table(sites: Iterable[NormSite], width: int | None) -> Iterator[Line]:
    header = (
        "norm",
        "component",
        "layer",
        "role",
        "kind",
        "d",
        "scale mean±std",
        "stores",
        "shift",
        "dead direction",
        "ρ readers",
        "ρ writers",
    )
    listed = list(sites)
    yield from columns(header, map(_norm_row, listed), width, _DISPENSABLE)
    yield from reasons([why(site.stores, site.zero_centred) for site in listed])


def _norm_row(site: NormSite) -> tuple[str, ...]:
    scale = "not read" if site.has_scale else "none"
    stores = stored(site.stores, site.zero_centred) if site.has_scale else "–"
    if site.scale is not None:
        scale = f"{site.scale.mean:.3f}±{site.scale.std:.3f}"
    dead = site.dead_direction
    if dead is None:
        direction = "–"
    elif dead.degenerate:
        direction = f"{dead.dead_dimensions} dead dimensions"
    else:
        direction = f"cos 1 {dead.cosine_to_ones or 0:.3f}, power {dead.power or 0:.2f}"
    return (
        site.name,
        site.component,
        "–" if site.layer is None else str(site.layer),
        site.role,
        site.kind or "–",
        "–" if site.d is None else str(site.d),
        scale,
        stores,
        "yes" if site.has_shift else "no",
        direction,
        "–" if site.readers_rho is None else f"{site.readers_rho:.2f}",
        "–" if site.writers_rho is None else f"{site.writers_rho:.2f}",
    )
