"""Records as one self-contained HTML page, for people who want to look at a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from xml.etree.ElementTree import Element, tostring

from ..._version import __version__
from ...record import Account, Classification, Component, Evidence, Failure, NormSite, Shadow
from ...words import amount
from ..text import size
from .charts import odds_chart, shadow_charts, shadows_beyond
from .elements import element
from .findings import counts_of, findings_of
from .multiples import roles_of, small_picture
from .names import distinct
from .provenance import Provenance, foot
from .scales import scale_chart
from .spectra import directions_beyond, spectrum_charts

_MEANING = {
    "LayerNorm": "It subtracts the mean, divides by the standard deviation.",
    "RMSNorm": "It divides by the root mean square and subtracts nothing.",
    "mixed": "Its residual stream passes norms of both kinds.",
    "none": "Nothing in the file normalises with LayerNorm or RMSNorm.",
}
_CONFLICTING = 1.0  # log-odds for one norm and against it, each: as much as the verdict itself takes for a claim


def page(answers: Sequence[Classification | Failure], made: Provenance | None = None) -> str:
    """Return an HTML document that needs nothing from outside: style, script and pictures are in it.

    Args:
        answers: what is known of each model.
        made: what the foot says of the page's own making, beside the version and the hashes that the records carry.
    """
    title = f"normsniff report: {answers[0].path or 'model'}" if len(answers) == 1 else "normsniff report"
    names = distinct([one.path or "model in memory" for one in answers])
    style, script = (resources.files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("a", "Skip to the verdict", class_="skip", href="#main"),
        element("header", element("h1", "LayerNorm or RMSNorm?"), _about()),
        _comparison(answers, names) if len(answers) > 1 else None,
        element("main", *map(article, answers, names, map("model-{}".format, range(len(answers)))), id="main"),
        foot(answers, made or Provenance(), __version__),
        element("script", script),
    )
    return "<!DOCTYPE html>\n" + tostring(element("html", head, body, lang="en"), encoding="unicode", method="html")


def _about() -> Element:
    return element(
        "p",
        "A network normalises its activations with LayerNorm or with RMSNorm. LayerNorm subtracts the mean, so that "
        "one direction of the activations is always empty, and training leaves hardly any weight along it. This page "
        "shows what a model file declares, what its layout suggests and how much weight lies along that direction.",
        class_="about",
    )


def _comparison(answers: Sequence[Classification | Failure], names: Sequence[str]) -> Element:
    """Return the models of the page side by side, each as a small picture on the same axes."""
    cards = []
    roles = roles_of(one for one in answers if isinstance(one, Classification))
    for number, (one, name) in enumerate(zip(answers, names, strict=True)):
        link = element("a", name, href=f"#model-{number}", title=one.path)
        if isinstance(one, Failure):
            cards.append(element("li", link, element("p", "not read")))
            continue
        conflicts = f", {amount(len(one.contradictions), 'conflict')}" if one.contradictions else ""
        sure = "" if one.confidence is None else f" {_sure(one.confidence)}"
        verdict = element("p", _chip(one.label, "span"), f"{sure}{conflicts}{counts_of(one)}")
        cards.append(element("li", link, verdict, small_picture(one, name, roles)))
    return element("nav", element("h2", "Side by side"), element("ul", *cards), aria_label="Models", class_="multiples")


def article(answer: Classification | Failure, name: str, anchor: str) -> Element:
    """Return what a page shows of one model; its pictures and tables need the style and the script of a page.

    Args:
        answer: what is known of it.
        name: its heading.
        anchor: its id, by which other parts of a page lead to it.
    """
    heading = element("h2", name, title=answer.path)
    if isinstance(answer, Failure):
        text = f"{answer.error.message} {answer.error.hint}".strip()
        return element("article", heading, element("p", text, class_="failure", role="alert"), id=anchor)
    return element(
        "article",
        heading,
        _verdict(answer),
        *(_conflict(one.statement) for one in answer.contradictions),
        *(_conflict(one.reason) for one in answer.evidence if one.details.get("suspicious")),
        _next(answer.next_steps),
        *(_component(part, answer) for part in answer.components),
        findings_of(answer.findings),
        _account(answer.account),
        _norms(answer.norms),
        _shadows(answer.shadows),
        _notes(answer.warnings),
        id=anchor,
    )


def _verdict(record: Classification) -> Element:
    facts = [record.path, record.format, record.architecture, amount(record.tensors, "tensor")]
    facts += [f"d_model {record.d_model:,}" if record.d_model else None]
    if record.bytes_read is not None and record.file_size is not None:
        facts.append(f"read {size(record.bytes_read)} of {size(record.file_size)}")
    looks = f" It looks like a {record.rewritten_from} model that was centred after training, into RMSNorm form."
    rewritten = looks if record.rewritten_from else ""
    return element(
        "div",
        element("p", _chip(record.label, "strong"), " ", element("span", _sure(record.confidence), class_="sure")),
        element("p", f"{_meaning(record)}{rewritten}"),
        element("p", ", ".join(fact for fact in facts if fact), class_="facts"),
        class_="verdict",
    )


def _meaning(record: Classification) -> str:
    """Return what the label means; of an abstention, whether the evidence is missing, too weak or at odds."""
    if record.label != "undetermined":
        return _MEANING[record.label]
    odds = [one.log_odds for one in record.evidence if one.kind != "verdict"]
    if record.contradictions or (odds and max(odds) >= _CONFLICTING and min(odds) <= -_CONFLICTING):
        return "The evidence is conflicting: some of it points to LayerNorm, some to RMSNorm."
    if not any(odds):
        return "Nothing that was found speaks for either norm."
    return "The evidence is too weak for a label."


def _next(steps: Sequence[str]) -> Element | None:
    if not steps:
        return None
    items = element("ul", *(element("li", step) for step in steps))
    return element("section", element("h3", "What would help"), items, class_="next")


def _account(account: Account | None) -> Element | None:
    if account is None or not account.unexplained:
        return None
    total = account.explained + account.unexplained
    more = account.unexplained - len(account.names)
    names = [*account.names, *([f"{more:,} more"] if more > 0 else [])]
    summary = element("summary", f"Not understood: {account.unexplained:,} of {amount(total, 'thing')}")
    return element("details", summary, element("ul", *(element("li", name) for name in names)))


def _conflict(statement: str) -> Element:
    return element("p", element("strong", "Conflict: "), statement, class_="conflict", role="note")


def _component(part: Component, record: Classification) -> Element:
    evidence = [one for one in record.evidence if one.component == part.name]
    several = len(record.components) > 1
    name = f"{part.name}: " if several else ""
    shadows = [s for s in record.shadows if s.component == part.name]
    charts = shadow_charts(shadows, name)
    learned = spectrum_charts(evidence, name)
    scales = scale_chart([s for s in record.norms if s.component == part.name], f"{name}scales of the norms")
    heading = element("h3", element("span", part.name), " ", _chip(part.label, "span")) if several else None
    level = "h4" if several else "h3"  # no level is left out
    summands = [one for one in evidence if one.kind != "verdict" or one.log_odds]  # the others are rules, in words
    odds = odds_chart(summands, f"{name}log-odds of the evidence")
    return element(
        "section",
        heading,
        element(
            "section",
            element(level, "Why: log-odds that add up"),
            element("figure", odds, _sum_in_words(part, evidence)),
            class_="picture",
        ),
        element("ul", *(_reason(one) for one in evidence)),
        _figure(level, "Weight along the dead direction, ρ", _panels(charts), _RHO_CAPTION + shadows_beyond(shadows)),
        _figure(level, "What was learned", _panels(learned), _LEARNED_CAPTION + directions_beyond(evidence)),
        _figure(level, "Scales", scales[0], _SCALE_CAPTION + scales[1]) if scales else None,
    )


def _panels(charts: Sequence[Element]) -> Element | None:
    return element("div", *charts, class_="panels") if charts else None


def _figure(level: str, title: str, picture: Element | None, caption: str) -> Element | None:
    """Return a picture under its heading, which stay together on paper."""
    if picture is None:
        return None
    figure = element("figure", picture, element("figcaption", caption))
    return element("section", element(level, title), figure, class_="picture")


_RHO_CAPTION = (
    "Each point is a matrix: ρ is its energy along the direction that LayerNorm empties, over what chance would put "
    "there. 1 means nothing special. The bands span 5 % to 95 % of the models of the calibration corpus (means over a "
    "model's matrices), the lines in them the median."
)
_LEARNED_CAPTION = (
    "Each point is a direction that training wrote into the matrices of a role, above the noise of their "
    "initialisation; the larger, the stronger. Upwards: its overlap with the direction that LayerNorm empties, "
    "over what chance would give. Under RMSNorm the points scatter around 1, single ones far below; under LayerNorm "
    "they lie low together."
)
_SCALE_CAPTION = "Thin: smallest to largest entry of the scale γ. Thick: mean ± standard deviation."


def _sum_in_words(part: Component, evidence: Sequence[Evidence]) -> Element:
    terms = " ".join(f"{one.log_odds:+.2f}" for one in evidence if one.kind != "verdict" or one.log_odds) or "0"
    total = sum(one.log_odds for one in evidence)
    if not evidence:
        meaning = "there is nothing to add up"
    elif part.label in ("mixed", "none"):
        meaning = f'the label "{part.label}" is a finding about the structure, for which no log-odds speak'
    elif part.confidence is None:
        rules = [one.reason for one in evidence if one.kind == "verdict" and not one.log_odds]
        meaning = rules[0] if rules else "too little for a label"
    else:
        meaning = f"which gives {part.label}, {_sure(part.confidence)}"
    return element("figcaption", f"{terms} = {total:+.2f}: {meaning}.")


def _reason(one: Evidence) -> Element:
    odds = "" if one.kind == "verdict" and not one.log_odds else f" ({one.log_odds:+.2f})"
    return element("li", element("strong", one.kind), f"{odds}: {one.reason}")


def _norms(norms: Sequence[NormSite]) -> Element | None:
    if not norms:
        return None
    heads = (
        "Norm",
        "Component",
        "Layer",
        "Role",
        "Says",
        "d",
        "Scale mean",
        "Scale std",
        "Shift",
        "ρ read",
        "ρ write",
    )
    rows = [
        element(
            "tr",
            element("th", site.name, scope="row"),
            element("td", site.component),
            _number(site.layer),
            element("td", site.role),
            element("td", site.kind or "–"),
            _number(site.d),
            _number(site.scale.mean if site.scale else None),
            _number(site.scale.std if site.scale else None),
            element("td", "yes" if site.has_shift else "no"),
            _number(site.readers_rho),
            _number(site.writers_rho),
        )
        for site in norms
    ]
    return _table(amount(len(norms), "norm"), heads, rows)


def _shadows(shadows: Sequence[Shadow]) -> Element | None:
    if not shadows:
        return None
    heads = ("Matrix", "Component", "Role", "Layer", "Direction", "ρ", "Error", "Vectors")
    rows = [
        element(
            "tr",
            element("th", one.tensor, scope="row"),
            element("td", one.component),
            element("td", one.role),
            _number(one.layer),
            element("td", one.direction),
            _number(one.rho),
            _number(one.relative_error),
            _number(one.vectors),
        )
        for one in shadows
    ]
    return _table(amount(len(shadows), "measured matrix", "measured matrices"), heads, rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Element]) -> Element:
    """Return a table that sorts by a click on its heads and filters by text; without a script it is a plain table."""
    head = element("tr", *(element("th", element("button", text, type="button"), scope="col") for text in heads))
    search = element("input", type="search", placeholder="Filter", aria_label=f"Filter {title}")
    table = element("table", element("thead", head), element("tbody", *rows), class_="sorts")
    return element("details", element("summary", title), search, element("div", table, class_="scroll", tabindex="0"))


def _notes(warnings: Sequence[str]) -> Element | None:
    if not warnings:
        return None
    items = element("ul", *(element("li", text) for text in warnings))
    return element("details", element("summary", "Notes"), items)


def _chip(label: str, tag: str) -> Element:
    return element(tag, element("span", label, class_=f"chip {label.lower()}"))


def _number(value: float | None) -> Element:
    if value is None:
        return element("td", "–", class_="number")
    return element(
        "td", f"{value:.4g}" if isinstance(value, float) else str(value), class_="number", data_value=str(value)
    )


def _sure(confidence: float | None) -> str:
    return "no confidence given" if confidence is None else f"{confidence:.1%} sure"
