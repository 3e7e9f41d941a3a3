"""``python -m calibration train|observe|features|kinds|counts|fit|report``: see README.md beside this file."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m calibration", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    train = stages.add_parser("train", help="train the runs of the plan; resumable")
    train.add_argument("--out", type=Path, default=Path("calibration/kept"))
    train.add_argument("--second", action="store_true", help="the second part of the plan instead of the first")
    train.add_argument("--third", action="store_true", help="the third part instead")
    train.add_argument("--runs", type=int, default=240, help="as many of it (the second part has 200, the third 400)")
    train.add_argument("--part", type=int, default=0, help="which share of them this process takes")
    train.add_argument("--parts", type=int, default=1)
    observe = stages.add_parser(
        "observe", help="look at the kept weights as the tool does, into raw results; resumable"
    )
    observe.add_argument("--kept", type=Path, default=Path("calibration/kept"))
    observe.add_argument("--raw", type=Path, default=Path("calibration/raw"))
    observe.add_argument("--part", type=int, default=0, help="which share of the runs this process takes")
    observe.add_argument("--parts", type=int, default=1)
    features = stages.add_parser("features", help="turn the raw results into the committed table")
    features.add_argument("--raw", type=Path, help="put these raw results into the archive first")
    counts = stages.add_parser("counts", help="count how often declared and layout evidence is right")
    counts.add_argument("tables", nargs="*", type=Path, help="gguf_arch_norms.json and transformers_norms.json, if any")
    stages.add_parser("kinds", help="label made files of every kind into the committed table")
    stages.add_parser("fit", help="fit on the table and write the numbers that are shipped")
    stages.add_parser("report", help="write docs/calibration.md and its picture")
    stages.add_parser("spread", help="write the spread of ρ that reports are drawn against")
    given = parser.parse_args()
    if given.stage == "train":
        from .plan import plan, second, third
        from .train import work

        runs = third()[: given.runs] if given.third else second()[: given.runs] if given.second else plan(given.runs)
        work(given.out, runs[given.part :: given.parts])
    elif given.stage == "observe":
        from .raw import work as observe_all

        observe_all(given.kept, given.raw, given.part, given.parts)
    elif given.stage == "features":
        from .table import build, pack

        if given.raw is not None:
            pack(given.raw)
        build()
    elif given.stage == "counts":
        from .counts import write as count

        count(*given.tables)
    elif given.stage == "kinds":
        from .kinds.count import write as write_kinds

        write_kinds()
    elif given.stage == "fit":
        from .shipped import write

        write()
    elif given.stage == "spread":
        from .spread import write as write_spread

        write_spread()
    else:
        from .report import write as write_report

        write_report()


if __name__ == "__main__":
    main()
