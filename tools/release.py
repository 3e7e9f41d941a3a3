"""Try a release: `python -m tools.release` builds, checks, and uses the wheel in clean environments.

Needs the group `release`. The version stands in src/normsniff/_version.py and nowhere else; a release is a commit that
changes it, with the heading of CHANGELOG.md, and a tag `vVERSION`. What passed here, `twine upload dist/*` may take.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
JOBS = (  # what an installed wheel must do, without a test suite: label in three formats, say its version, its schema
    ("fixtures/gpt2-ln.Q8_0.gguf", "--expect", "LayerNorm"),
    ("fixtures/llama-rms.int8.onnx", "--expect", "RMSNorm"),
    ("fixtures/plain-rms.f16.keras", "--expect", "RMSNorm"),
    ("check", "fixtures/llama-rms.Q8_0.gguf"),
    ("schema",),
)


def version() -> str:
    """Return the version, from its one place."""
    text = (ROOT / "src/normsniff/_version.py").read_text("utf-8")
    found = re.search(r'__version__ = "(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)"', text)
    if found is None:
        raise SystemExit("src/normsniff/_version.py names no version")
    return found.group(1)


def problems(tag: str | None, changelog: str, number: str) -> Iterator[str]:
    """Yield what speaks against releasing under a tag; without one, nothing does."""
    if tag is None:
        return
    if tag != f"v{number}":
        yield f"the tag is {tag}, the version {number}"
    if f"## [{number}]" not in changelog:
        yield f"CHANGELOG.md has no heading [{number}]"


def interpreters(wanted: tuple[str, ...] = PYTHONS) -> dict[str, str | None]:
    """Return by version where a Python of it is on this machine, or None; one that does not start is none."""
    found: dict[str, str | None] = {}
    for name in wanted:
        places = [shutil.which(f"python{name}"), *map(str, Path.home().glob(f".pyenv/versions/{name}.*/bin/python"))]
        found[name] = next((place for place in places if place and _starts(place, name)), None)
    return found


def _starts(python: str, wanted: str) -> bool:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == wanted


def build() -> tuple[Path, Path]:
    """Build an sdist, and from it a wheel; return both once twine finds nothing wrong with them."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", DIST, ROOT], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir()], check=True)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def missing(wheel: Path) -> list[str]:
    """Return the files of src/normsniff that a wheel lacks."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "src/normsniff"], capture_output=True, text=True, check=True
    ).stdout.split()
    return [name for name in files if name.removeprefix("src/") not in packed]


def use(python: str, wheel: Path, number: str) -> None:
    """Install a wheel into a fresh environment, and let it work outside of this repository.

    Raises:
        subprocess.CalledProcessError: a job did not do what it should.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True, env=clean)
        tools = Path(folder, "bin")
        pip = [str(tools / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, str(wheel)], check=True, env=clean)
        said = subprocess.run(
            [tools / "normsniff", "--version"], check=True, capture_output=True, text=True, cwd=folder, env=clean
        ).stdout
        if number not in said:
            raise SystemExit(f"--version says {said!r}, not {number}")
        for job in JOBS:
            words = [str(ROOT / word) if word.startswith("fixtures/") else word for word in job]
            subprocess.run([tools / "normsniff", *words], check=True, cwd=folder, env=clean, stdout=subprocess.DEVNULL)


def main() -> None:
    """Build, check, install and use; say what was done with which Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag of the release, to be held against version and changelog")
    number, tag = version(), parser.parse_args().tag
    against = list(problems(tag, (ROOT / "CHANGELOG.md").read_text("utf-8"), number))
    if against:
        raise SystemExit("\n".join(against))
    sdist, wheel = build()
    if lacking := missing(wheel):
        raise SystemExit(f"the wheel lacks {', '.join(lacking)}")
    print(f"{sdist.name}, {sdist.stat().st_size:,} bytes; {wheel.name}, {wheel.stat().st_size:,} bytes")
    for name, python in interpreters().items():
        if python is None:
            print(f"Python {name}: not on this machine, not tried")
            continue
        use(python, wheel, number)
        print(f"Python {name}: installed, and did {len(JOBS)} jobs")


if __name__ == "__main__":
    main()
