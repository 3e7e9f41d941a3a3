"""Draw the pictures of reports that the docs show, light and dark: `python -m tools.draw_report`, with a Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import normsniff
from normsniff.render.report import page

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
SHOWN = ("fixtures/gpt2-ln.Q8_0.gguf", "fixtures/llama-rms.Q8_0.gguf")
SIZE = {"width": 1240, "height": 1180}
NARROW = {"width": 760, "height": 900}


def main() -> None:
    """Write docs/pictures/report.png and verdict.png, and each as it is in the dark."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here")
    records = [normsniff.sniff(path) for path in SHOWN]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        both, one = Path(folder, "both.html"), Path(folder, "one.html")
        both.write_text(page(records), "utf-8")
        one.write_text(page(records[:1]), "utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme, end in (("light", ""), ("dark", "-dark")):
            view = browser.new_page(viewport=SIZE, color_scheme=scheme)
            view.goto(both.as_uri())
            view.screenshot(path=PICTURES / f"report{end}.png")
            view.set_viewport_size(NARROW)
            view.goto(one.as_uri())
            frame, last = view.locator("article").bounding_box(), view.locator(".picture").first.bounding_box()
            frame["height"] = last["y"] + last["height"] - frame["y"] + 16
            view.screenshot(path=PICTURES / f"verdict{end}.png", clip=frame, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
