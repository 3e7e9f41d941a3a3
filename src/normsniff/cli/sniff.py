"""`normsniff FILE`: label models, print records, set the exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from .. import plugins
from .._version import __version__
from .options import (
    EXIT_ABSTAINED,
    EXIT_EXPECTATION,
    EXIT_UNREADABLE,
    HELP,
    budget_option,
    console,
    each_model,
    echo_json,
    evidence_option,
    exclude_option,
    full_option,
    inputs_argument,
    limited,
    limits_options,
    models_in,
    report_failure,
    tell_skipped,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..kernel.namespaces import Device
    from ..record import Classification, Failure
    from ..source.place import Place

_FEW = 5  # inputs that a screen has room for at full length
_DOCUMENTS = {"sarif": ("sarif", "log"), "cyclonedx": ("cyclonedx", "bom")}
"""Formats that are one document for all inputs: module and function in `render`."""


class _Form(click.Choice[str]):
    """The forms of the output: our own, then what packages offer under ``normsniff.outputs``."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..errors import NormsniffError

        if value in self.choices or value not in plugins.offered("outputs"):
            return super().convert(value, param, ctx)
        try:
            _plugged_in(value)
        except NormsniffError as error:
            self.fail(str(error), param, ctx)
        return value


def _plugged_in(form: str) -> Callable[[Sequence[Classification | Failure]], object]:
    """Return the function of another package that makes a document, or JSON to be, of answers."""
    from types import FunctionType

    point = plugins.offered("outputs")[form]
    function: Callable[..., object] = plugins.load(point, FunctionType, "a function from answers to a document")
    return function


_EXAMPLES = """\b
Examples:
  normsniff model.safetensors
  normsniff --norms SmolLM2-135M-Instruct.Q4_1.gguf
  normsniff --json models/ > records.jsonl
  normsniff --evidence kernel unknown.onnx      # parameters alone
  normsniff --expect RMSNorm --quiet model.gguf && echo as expected

\b
Exit codes:
  0  every input was answered (an abstention is an answer)
  1  an --expect failed, or a contradiction or an error of the norms was found under --strict
  2  usage error, or an input could not be read (the others are still answered)
  3  only abstentions, under --strict
  130  interrupted (Ctrl-C)
A reader that closes the pipe early (| head) is no failure: 0.

\b
Shell completion (bash; zsh and fish likewise):
  eval "$(_NORMSNIFF_COMPLETE=bash_source normsniff)"
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@inputs_argument
@click.option(
    "--format",
    "form",
    type=_Form(["text", "json", "sarif", "cyclonedx"]),
    default="text",
    show_default=True,
    help="json: one object per input, one per line; sarif, cyclonedx: one document for all inputs.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "--check/--no-check", "checked", default=None,
    help="Look for what is wrong with the norms; by default where their parameters are read anyway.",
)  # fmt: skip
@click.option("--norms", is_flag=True, help="Add the table of every norm site.")
@click.option(
    "--brief/--no-brief",
    default=None,
    help="One line an input. [default: on a terminal, where there are more than five]",
)
@exclude_option
@evidence_option
@budget_option
@full_option
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the arithmetic runs."
)
@limits_options
@click.option(
    "--expect",
    type=click.Choice(["LayerNorm", "RMSNorm", "mixed", "none"], case_sensitive=False),
    help="Exit with 1 if a label differs, and say which.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 on a contradiction or an error of the norms, with 3 if all inputs abstain.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors on stderr; the exit code tells.")
@click.version_option(__version__, prog_name="normsniff", message="%(prog)s %(version)s")
def sniff(
    inputs: tuple[Place, ...],
    form: str,
    checked: bool | None,
    norms: bool,
    brief: bool | None,
    exclude: tuple[str, ...],
    evidence: tuple[str, ...],
    budget: int,
    full: bool,
    device: Device,
    timeout: float | None,
    memory: int | None,
    expect: str | None,
    strict: bool,
    quiet: bool,
) -> None:
    """Tell from model files alone whether they normalise with LayerNorm or RMSNorm, how sure that is, and why.

    Reads GGUF, ggml, safetensors, Keras, PyTorch, PyTorch DCP, Flax, OpenVINO, CTranslate2, NumPy, TFLite and ONNX
    files, single or sharded; - is standard input. A directory is one model if it holds one; otherwise every model file
    below it is an input.
    """
    from ..batch.tally import PassedOver, Tally
    from ..record import Failure

    terminal = console() if form == "text" and not quiet else None
    skipped, tally = PassedOver(), Tally()
    models: Iterable[Place | Failure] = models_in(inputs, skipped, exclude)
    if brief is None and terminal is not None and not norms:
        models = list(models)
        brief = len(models) > _FEW
    answers: list[Classification] = []
    failures: list[Failure] = []
    for answer in answers_for(models, evidence, None if full else budget, device, checked, timeout, memory):
        tally.add(answer)
        if isinstance(answer, Failure):
            failures.append(answer)
            report_failure(answer, as_json=form == "json")
        else:
            answers.append(answer)
        if not quiet:
            _show(answer, form, terminal, norms=norms, brief=bool(brief), first=len(answers) == 1)
    if not quiet:
        if form not in ("text", "json"):
            click.echo(_document(form, [*answers, *failures]))
        tell_skipped(skipped)
        if tally.inputs > 1:
            click.echo(tally.sentence(), err=True)
    sys.exit(_judge(answers, len(failures), expect, strict))


def _show(
    answer: Classification | Failure, form: str, terminal: Console | None, *, norms: bool, brief: bool, first: bool
) -> None:
    """Print one answer, in the forms that have one for each input."""
    from ..record import Failure

    if form == "text" and brief:
        from ..render.brief import line
        from ..render.lines import emit

        emit([line(answer)], terminal)
    elif isinstance(answer, Failure):
        return  # stderr has it, and stdout in its form
    elif form == "json":
        echo_json(answer.to_json())
    elif form == "text":
        from ..render.text import show

        if not first:
            click.echo()
        show(answer, console=terminal, norms=norms)


def _document(form: str, answers: Sequence[Classification | Failure]) -> str:
    import json

    if form in _DOCUMENTS:
        module, function = _DOCUMENTS[form]
        render = getattr(importlib.import_module(f"..render.{module}", __package__), function)
    else:
        render = _plugged_in(form)
    document = render(answers)
    return document if isinstance(document, str) else json.dumps(document, indent=2)


def answers_for(
    models: Iterable[Place | Failure],
    evidence: tuple[str, ...],
    budget: int | None,
    device: Device,
    checked: bool | None = None,
    timeout: float | None = None,
    memory: int | None = None,
) -> Iterator[Classification | Failure]:
    """Yield a record or a failure for every model (`models_in`), in order; a bad one never stops the others.

    With a limit, a process of its own does the work.
    """
    from ..pipeline import sniff as classify

    with limited(timeout, memory) as call:
        options = {"evidence": evidence, "budget": budget, "device": device, "check": checked}
        yield from each_model(models, lambda one: call(classify, one, **options))


def _judge(answers: Sequence[Classification], unreadable: int, expect: str | None, strict: bool) -> int:
    """Return the exit code, and say on stderr which input is at fault and why, a line each."""
    code = EXIT_UNREADABLE if unreadable else 0
    for answer in answers:
        sure = "" if answer.confidence is None else f" ({answer.confidence:.1%})"
        if expect is not None and answer.label != expect:
            _complain(answer, f"{answer.label}{sure}, not {expect} as expected{_why_undetermined(answer)}")
            code = code or EXIT_EXPECTATION
        for conflict in answer.contradictions if strict else ():
            _complain(answer, f"{answer.label}{sure}, but its evidence contradicts itself: {conflict.statement}")
            code = code or EXIT_EXPECTATION
        for one in (answer.findings or ()) if strict else ():
            if one.severity == "error":
                _complain(answer, f"{one.code}: {one.reason}")
                code = code or EXIT_EXPECTATION
    if strict and answers and all(answer.label == "undetermined" for answer in answers):
        for answer in answers if expect is None else ():
            _complain(answer, f"undetermined{_why_undetermined(answer)}")
        code = code or EXIT_ABSTAINED
    return code


def _complain(answer: Classification, what: str) -> None:
    from ..errors import printable

    click.echo(printable(f"error: {answer.path}: {what}"), err=True)


def _why_undetermined(answer: Classification) -> str:
    if answer.label != "undetermined":
        return ""
    reasons = [
        one.reason
        for one in answer.evidence
        if one.kind == "verdict" and one.label == "undetermined" and one.component == answer.components[0].name
        if not one.log_odds  # a correction of the sum is none
    ]
    return f": {reasons[0]}" if reasons else ""
