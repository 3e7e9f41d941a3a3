"""Draw the pictures of a report that the docs show, light and dark: `python -m tools.draw_report`, with a Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import normsniff
from normsniff.render.report import page
from normsniff.render.report.provenance import Provenance

ROOT = Path(__file__).parents[1]
SHOWN = ("fixtures/gpt2-ln.Q8_0.gguf", "fixtures/llama-rms.Q8_0.gguf")
SIZE = {"width": 1240, "height": 1180}


def main() -> None:
    """Write docs/pictures/report.png and report-dark.png."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here")
    records = [normsniff.sniff(path) for path in SHOWN]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "report.html")
        path.write_text(page(records, Provenance()), "utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme, name in (("light", "report"), ("dark", "report-dark")):
            view = browser.new_page(viewport=SIZE, color_scheme=scheme)
            view.goto(path.as_uri())
            view.screenshot(path=ROOT / f"docs/pictures/{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
