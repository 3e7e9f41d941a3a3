"""The page in a real browser: a dropped file gets its verdict, by mouse, by keyboard, in silence, from nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifest import FIXTURES

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from normsniff.serve.front import ASSETS, POLICY, _read
from normsniff.serve.settings import Settings
from tests.helpers.services import served

GPT2, LLAMA = FIXTURES / "gpt2-ln.Q8_0.gguf", FIXTURES / "llama-rms.Q8_0.gguf"
SECONDS = 60_000  # milliseconds, for a machine that is busy with other tests


def test_nothing_of_the_page_comes_from_elsewhere_and_nothing_is_inline() -> None:
    for package, name, _ in ASSETS.values():
        text = _read(package, name).decode()
        assert not re.search(r"https?://(?!huggingface\.co/…|www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"@import|url\(|<script>|<style|\son\w+=", text), name
    assert "unsafe" not in POLICY
    assert {"'self'", "'none'"} >= {word for part in POLICY.split(";") for word in part.split()[1:]}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("uvicorn")
    pytest.importorskip("websockets")
    with served(Settings(jobs=1, root=FIXTURES)) as address:
        yield address


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Return what opens the page; afterwards, it has said nothing on its console and asked nobody else."""
    complaints: list[str] = []
    contexts = []

    def make(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        view = contexts[-1].new_page()
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "blob:", "data:")) else complaints.append(request.url)
            ),
        )
        view.goto(address)
        return view

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def finished(view: Any, number: int = 1) -> Any:
    """Wait until so many models have a verdict; returns their articles."""
    articles = view.locator("article[aria-busy=false]:has(.verdict)")
    articles.nth(number - 1).wait_for(timeout=SECONDS)
    return articles


def drop(view: Any, files: dict[str, Path]) -> None:
    """Drop files onto the page, as an event that carries them."""
    content = {name: list(path.read_bytes()) for name, path in files.items()}
    view.evaluate(
        """(files) => {
          const data = new DataTransfer();
          for (const [name, bytes] of Object.entries(files)) data.items.add(new File([new Uint8Array(bytes)], name));
          document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer: data, bubbles: true }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        content,
    )


def test_a_chosen_real_model_gets_its_verdict_for_a_small_part_of_its_bytes(
    opened: Callable[..., Any], real_model: Callable[[str], Path]
) -> None:
    view = opened()
    sent: list[int] = []
    view.on("websocket", lambda socket: socket.on("framesent", lambda data: sent.append(len(data))))
    model = real_model("smollm2")
    view.set_input_files("#pick-files", str(model))
    article = finished(view).first
    assert "RMSNorm" in article.locator(".verdict .chip").inner_text()
    assert view.locator("#status").inner_text() == f"{model.name}: RMSNorm, 99.8% sure"
    assert sum(sent) < 0.1 * model.stat().st_size


def test_dropped_files_stand_side_by_side_and_a_bad_one_is_told(opened: Callable[..., Any], tmp_path: Path) -> None:
    view = opened(viewport={"width": 1300, "height": 900})
    (tmp_path / "bad.gguf").write_bytes(GPT2.read_bytes()[:3000])
    drop(view, {"gpt2.gguf": GPT2, "llama.gguf": LLAMA, "bad.gguf": tmp_path / "bad.gguf"})
    articles = finished(view, 2)
    view.locator(".failure").wait_for(timeout=SECONDS)
    boxes = [articles.nth(number).bounding_box() for number in range(2)]
    assert len({box["x"] for box in boxes}) == 2
    assert view.locator("#models li").count() == 3
    assert {"LayerNorm", "RMSNorm"} == set(view.locator(".verdict .chip").all_inner_texts())
    assert "bad.gguf" in view.locator("article:has(.failure) h2").inner_text()


def test_a_folder_is_one_model(opened: Callable[..., Any]) -> None:
    view = opened()
    view.set_input_files("#pick-folder", str(FIXTURES / "gpt2-ln"))
    article = finished(view).first
    assert article.locator("h2").first.inner_text() == "gpt2-ln/model.safetensors"
    assert view.locator("article").count() == 1


def test_a_folder_and_a_file_are_dropped_by_a_mouse(opened: Callable[..., Any]) -> None:
    view = opened()
    mouse = view.context.new_cdp_session(view)
    data = {"items": [], "files": [str(FIXTURES / "gpt2-ln"), str(LLAMA)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})
        assert view.locator("body.over").count() == (kind != "drop")
    names = {one.inner_text() for one in finished(view, 2).locator("h2").all()}
    assert names == {"gpt2-ln/model.safetensors", LLAMA.name}


def test_everything_goes_by_keyboard_and_is_announced(opened: Callable[..., Any]) -> None:
    view = opened()
    view.keyboard.press("Tab")
    assert view.locator(".skip").evaluate("(one) => one === document.activeElement")
    names = []
    for _ in range(4):
        view.keyboard.press("Tab")
        names.append(view.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert names == ["files", "folder", "name", "Look"]
    view.locator("#name").focus()
    view.keyboard.type("gpt2-ln.Q8_0.gguf")
    view.keyboard.press("Enter")
    article = finished(view).first
    status = view.locator("#status")
    assert status.get_attribute("aria-live") == "polite"
    assert "LayerNorm" in status.inner_text()
    article.locator("summary").first.focus()
    view.keyboard.press("Enter")
    assert article.locator("details").first.get_attribute("open") is not None
    article.get_by_role("button", name="Remove").focus()
    view.keyboard.press("Enter")
    assert view.locator("article").count() == 0
    assert view.evaluate("document.activeElement.id") == "files"


def test_a_url_that_is_not_allowed_is_refused_in_words(opened: Callable[..., Any]) -> None:
    view = opened()
    view.locator("#name").fill("https://models.example/a.gguf")
    view.get_by_role("button", name="Look").click()
    view.locator(".failure").wait_for(timeout=SECONDS)
    assert "not among the allowed hosts" in view.locator(".failure").inner_text()


def test_a_report_is_saved_whole(opened: Callable[..., Any], tmp_path: Path) -> None:
    view = opened()
    drop(view, {"gpt2.gguf": GPT2})
    finished(view)
    for link, ending, begin in (("Save report", "html", "<!DOCTYPE html>"), ("Save JSON", "json", '{"schema_version"')):
        with view.expect_download() as waiting:
            view.get_by_role("link", name=link).click()
        waiting.value.save_as(tmp_path / "saved")
        assert waiting.value.suggested_filename == f"gpt2.gguf.{ending}"
        assert (tmp_path / "saved").read_text("utf-8").startswith(begin)


def test_a_name_that_looks_like_a_program_is_text(opened: Callable[..., Any]) -> None:
    view = opened()
    name = "<img src=x onerror=document.title='gone'>.gguf"
    drop(view, {name: GPT2})
    article = finished(view).first
    assert article.locator("h2").first.inner_text() == name
    assert view.locator("img").count() == 0
    assert view.title().startswith("normsniff")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Callable[..., Any], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    view = opened(color_scheme=scheme, bypass_csp=True)  # for the script of axe
    for step in ("empty", "full"):
        if step == "full":
            drop(view, {"gpt2.gguf": GPT2, "bad.gguf": FIXTURES / "manifest.toml"})
            finished(view)
            view.locator(".failure").wait_for(timeout=SECONDS)
            for one in view.locator("summary").all():
                one.click()
        found = axe.Axe().run(view)
        assert found.violations_count == 0, found.generate_report()


def test_a_phone_shows_it_without_scrolling_sideways(opened: Callable[..., Any]) -> None:
    view = opened(viewport={"width": 390, "height": 844})
    drop(view, {"gpt2.gguf": GPT2, "a-name-that-is-rather-long-and-has-no-place-to-break-" * 3 + ".gguf": LLAMA})
    finished(view, 2)
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
