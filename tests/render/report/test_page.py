"""The HTML report: self-contained, safe from names, true to the record; in a real browser where there is one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import normsniff
from normsniff.cli import cli
from normsniff.record import Classification, ErrorDetail, Failure, Finding
from normsniff.render.report import page
from normsniff.render.report.provenance import Provenance
from tests.helpers.manifest import FIXTURES

FAILURE = Failure(
    tool_version="0", path="broken.gguf", error=ErrorDetail(type="FormatError", code="x", message="cut off", hint="")
)


@pytest.fixture(scope="module")
def record() -> Classification:
    return normsniff.sniff(FIXTURES / "gpt2-ln.Q8_0.gguf")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str, name: str) -> list[dict[str, str | None]]:
    parser = _Tags()
    parser.feed(html)
    return [attributes for tag, attributes in parser.found if tag == name]


class TestPage:
    def test_it_needs_nothing_from_outside(self, record: Classification) -> None:
        html = page([record])
        assert not re.search(r"""(src|href)=["'](?!#)|@import|url\(""", html)
        (policy,) = [tag["content"] for tag in tags(html, "meta") if tag.get("http-equiv")]
        assert policy is not None
        assert policy.startswith("default-src 'none'")

    def test_what_was_learned_is_drawn_direction_by_direction(self, record: Classification) -> None:
        (kernel,) = [one for one in record.evidence if one.kind == "kernel"]
        learned = kernel.details["learned"]
        assert learned
        html = page([record])
        assert html.count("of chance</title>") == sum(len(pool["signals"]) for pool in learned.values())
        assert "What was learned" in html
        bare = replace(record, evidence=[one for one in record.evidence if one.kind != "kernel"])
        assert "What was learned" not in page([bare])

    def test_the_bars_add_up_in_words(self, record: Classification) -> None:
        total = sum(one.log_odds for one in record.evidence)
        assert f"= {total:+.2f}: which gives LayerNorm, {record.confidence:.1%} sure." in page([record])

    def test_a_label_of_structure_claims_no_sum(self, record: Classification) -> None:
        part = replace(record.components[0], label="none", probabilities=None)
        assert "no log-odds speak" in page([replace(record, components=[part])])

    def test_every_matrix_is_a_point_and_every_norm_a_line(self, record: Classification) -> None:
        html = page([record])
        assert html.count('class="point"') == len(record.shadows)
        assert html.count('class="body stream"') == sum(site.scale is not None for site in record.norms)

    def test_a_cap_is_no_evidence_for_the_other_norm(self, record: Classification) -> None:
        (cap,) = [one for one in record.evidence if "cap" in one.details]
        html = page([record])
        assert re.search(r'<text[^>]*>cap</text><rect class="bar cap"', html)
        assert f"kept to {record.confidence:.1%}</text>" in html
        uncapped = page([replace(record, evidence=[one for one in record.evidence if one is not cap])])
        assert "bar cap" not in uncapped

    def test_what_lies_beyond_an_axis_is_marked_and_named(self, record: Classification) -> None:
        assert "Beyond the axis" not in page([replace(record, evidence=[])])
        low, high = (
            replace(record.shadows[0], tensor="deep", rho=1e-5),
            replace(record.shadows[1], tensor="tall", rho=80),
        )
        html = page([replace(record, shadows=[low, high], evidence=[])])
        assert html.count('class="point beyond"') == 2
        assert "Beyond the axis, an arrowhead at its end: deep (1e-05), tall (80)." in html

    def test_an_abstention_says_whether_evidence_is_missing_weak_or_at_odds(self, record: Classification) -> None:
        def meaning(*odds: float) -> str:
            evidence = [replace(record.evidence[0], log_odds=one) for one in odds]
            abstained = {"label": "undetermined", "confidence": None, "next_steps": ["add the config"]}
            return page([replace(record, evidence=evidence, **abstained)])

        assert "The evidence is conflicting" in meaning(3.0, -2.5)
        assert "The evidence is too weak" in meaning(0.5, -0.4)
        assert "Nothing that was found speaks for either norm" in meaning(0.0)
        assert "<li>add the config</li>" in meaning(0.0)

    def test_two_files_of_one_name_are_told_apart(self, record: Classification) -> None:
        html = page([replace(record, path="run/a/model.gguf"), replace(record, path="run/b/model.gguf")])
        assert ">a/model.gguf</h2>" in html
        assert ">b/model.gguf</h2>" in html

    def test_several_models_have_small_pictures_on_the_same_axes(self, record: Classification) -> None:
        html = page([record, replace(record, shadows=record.shadows[:1]), FAILURE])
        small = [tag for tag in tags(html, "svg") if " in small. " in (tag["aria-label"] or "")]
        assert len(small) == 2
        assert small[0]["viewbox"] == small[1]["viewbox"]
        assert "not read" in html

    def test_the_foot_leads_back_to_bytes_and_program(self, record: Classification) -> None:
        made = Provenance("2026-01-02 03:04:05+00:00", "normsniff report x", {"x": "ab" * 32}, "not all")
        html = page([record], made)
        for said in (made.made, made.command, "ab" * 32, "not all", record.header_sha256, record.calibration):
            assert said is not None
            assert said in html[html.index("<footer>") :]

    def test_one_huge_scale_leaves_the_others_visible(self, record: Classification) -> None:
        assert record.norms[0].scale is not None
        norms = [replace(record.norms[0], name=f"n{i}") for i in range(40)]
        norms[7] = replace(norms[7], name="huge", scale=replace(record.norms[0].scale, max=1e30))
        html = page([replace(record, norms=norms, evidence=[])])
        assert "Beyond the axis, an arrowhead at its end: huge (1e+30)." in html

    def test_a_constant_scale_is_drawn(self, record: Classification) -> None:
        assert record.norms[0].scale is not None
        constant = replace(record.norms[0].scale, min=1.0, max=1.0, mean=1.0, std=0.0)
        html = page([replace(record, norms=[replace(record.norms[0], scale=constant)], evidence=[])])
        (body,) = [tag for tag in tags(html, "line") if (tag["class"] or "").startswith("body")]
        assert float(body["y1"] or 0) - float(body["y2"] or 0) >= 2

    def test_ticks_of_scales_are_told_apart_however_small_they_are(self, record: Classification) -> None:
        assert record.norms[0].scale is not None
        small = replace(record.norms[0].scale, min=1e-12, max=2e-12, mean=1.5e-12, std=1e-13)
        html = page([replace(record, norms=[replace(record.norms[0], scale=small)], evidence=[], shadows=[])])
        assert [">5e-13</text>" in html, ">1e-12</text>" in html, html.count(">0</text>")] == [True, True, 1]

    def test_a_name_cannot_become_markup(self, record: Classification) -> None:
        evil = "</svg><script>alert(1)</script>\x1b[31m"
        norms = [replace(record.norms[0], name=evil)]
        shadows = [replace(record.shadows[0], tensor=evil)]
        html = page([replace(record, path=evil, architecture=evil, norms=norms, shadows=shadows, warnings=[evil])])
        assert len(tags(html, "script")) == 1
        assert "\x1b" not in html

    def test_conflicts_and_failures_are_said(self, record: Classification) -> None:
        hidden = replace(record.evidence[0], details={"suspicious": True}, reason="far too much energy")
        html = page([replace(record, evidence=[hidden], rewritten_from="LayerNorm"), FAILURE])
        assert "far too much energy</p>" in html
        assert "looks like a LayerNorm model that was centred" in html
        assert "cut off" in html

    def test_findings_are_said_with_what_to_do(self, record: Classification) -> None:
        found = Finding(
            code="not-finite", severity="error", component="main", norms=("a.ln",), reason="3 NaN", cure="convert again"
        )
        html = page([replace(record, findings=[found])])
        assert 'class="chip error">error</span>' in html
        assert "At a.ln" in html
        assert "What to do: convert again" in html
        assert "Nothing was found." in page([replace(record, findings=[])])
        assert "What is wrong" not in page([replace(record, findings=None)])
        both = page([replace(record, findings=[found, found]), replace(record, findings=None)])
        assert ", 2 errors</p>" in both

    def test_nothing_measured_draws_nothing(self, record: Classification) -> None:
        html = page([replace(record, shadows=[], norms=[], evidence=[], bytes_read=None)])
        assert "ρ</h4>" not in html

    def test_pictures_have_words(self, record: Classification) -> None:
        pictures = tags(page([record]), "svg")
        assert len(pictures) >= 4
        assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)


def test_the_command_writes_the_page_and_says_what_failed(tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.gguf", tmp_path / "report.html"
    broken.write_bytes(b"GGUF")
    result = CliRunner().invoke(cli, ["report", str(FIXTURES / "llama-rms.Q8_0.gguf"), str(broken), "-o", str(out)])
    assert result.exit_code == 2
    html = out.read_text("utf-8")
    assert "RMSNorm" in html
    digest = hashlib.sha256((FIXTURES / "llama-rms.Q8_0.gguf").read_bytes()).hexdigest()
    assert digest in html
    CliRunner().invoke(cli, ["report", "--no-hash", str(FIXTURES / "llama-rms.Q8_0.gguf"), "-o", str(out)])
    assert digest not in out.read_text("utf-8")
    result = CliRunner().invoke(
        cli, ["report", str(FIXTURES / "llama-rms.Q8_0.gguf"), "-o", str(tmp_path / "no" / "x")]
    )
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


class TestInABrowser:
    @pytest.fixture
    def view(self, browser: Any, record: Classification, tmp_path: Path) -> Iterator[Any]:
        """Open a report on two models, and check that it stayed silent and asked the network for nothing."""
        path = tmp_path / "report.html"
        path.write_text(page([record, normsniff.sniff(FIXTURES / "llama-rms.Q8_0.gguf")]), "utf-8")
        complaints: list[str] = []
        view = browser.new_page(viewport={"width": 1300, "height": 800})
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.on("request", lambda request: complaints.append(request.url) if "file:" not in request.url else None)
        view.goto(path.as_uri())
        yield view
        assert complaints == []
        view.close()

    def test_tables_sort_and_filter_by_keyboard(self, view: Any) -> None:
        details = view.locator("details").first
        details.locator("summary").focus()
        view.keyboard.press("Enter")
        names = details.locator("tbody tr:visible th")
        before = names.all_inner_texts()
        details.get_by_role("button", name="Norm", exact=True).focus()
        view.keyboard.press("Enter")
        view.keyboard.press("Enter")
        assert names.all_inner_texts() == sorted(before, reverse=True)
        assert details.locator("th[aria-sort=descending]").count() == 1
        details.get_by_role("button", name="Scale mean").click()
        means = [float(text) for text in details.locator("tbody td:nth-child(7)").all_inner_texts()]
        assert means == sorted(means)
        details.get_by_role("searchbox").fill("BLK.1.")
        assert names.all_inner_texts()
        assert all(name.startswith("blk.1.") for name in names.all_inner_texts())

    def test_models_stand_side_by_side_and_fold_on_a_phone(self, view: Any) -> None:
        def tops() -> set[float]:
            return {view.locator("article").nth(n).bounding_box()["y"] for n in (0, 1)}

        assert len(tops()) == 1
        view.set_viewport_size({"width": 390, "height": 800})
        assert len(tops()) == 2
        assert view.evaluate("document.documentElement.scrollWidth") <= 390

    def test_the_letters_of_every_picture_can_be_read_on_a_phone(self, view: Any) -> None:
        view.set_viewport_size({"width": 390, "height": 800})
        sizes = view.evaluate(
            """[...document.querySelectorAll("main svg text")].filter((t) => t.getClientRects().length)
               .map((t) => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"""
        )
        assert len(sizes) > 50
        assert min(sizes) >= 9  # pixels

    def test_dark_and_print_differ_from_light(self, view: Any) -> None:
        def paper() -> str:
            return str(view.evaluate("getComputedStyle(document.body).backgroundColor"))

        assert paper() == "rgb(255, 255, 255)"
        view.emulate_media(color_scheme="dark")
        assert paper() == "rgb(20, 23, 26)"
        view.emulate_media(media="print")
        assert paper() == "rgb(255, 255, 255)"
        assert len(view.pdf()) > 10_000
        assert view.locator("details[open]").count() == view.locator("details").count()

    def test_a_screen_reader_finds_names(self, view: Any) -> None:
        assert view.get_by_role("img", name=re.compile("Log-odds add up to")).count() == 2
        assert view.get_by_role("navigation", name="Models").get_by_role("link").count() == 2
        assert view.get_by_role("article").get_by_role("heading", level=2).count() == 2
        view.keyboard.press("Tab")
        assert view.evaluate("document.activeElement.textContent") == "Skip to the verdict"
