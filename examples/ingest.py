"""Label every model that is uploaded, keep the record in a database, turn contradictory uploads away.

    pip install normsniff sqlalchemy watchfiles          # and psycopg for PostgreSQL
    python examples/ingest.py uploads/ --database sqlite:///records.db

An upload is a file or a directory that appears in `uploads/`. Uploaders write under a name that starts with a dot and
rename when they are done, so that half an upload is never seen. What is accepted moves to `uploads/accepted/`, what is
rejected to `uploads/rejected/`; either way the record is in the table `uploads`. Whoever has another kind of event (a
queue, a web hook) calls `ingest` from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
import msgspec
import sqlalchemy as sql
import watchfiles

import normsniff

Decision = Literal["accepted", "rejected"]

UPLOADS = sql.Table(
    "uploads",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("name", sql.Text, nullable=False, index=True),
    sql.Column("received", sql.DateTime(timezone=True), nullable=False),
    sql.Column("decision", sql.Text, nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("label", sql.Text, index=True),  # NULL: the upload could not be read
    sql.Column("confidence", sql.Float),
    sql.Column("record", sql.JSON),
)


def ingest(upload: Path, engine: sql.Engine) -> Decision:
    """Label one upload, store its record, move it out of the way.

    Rejected are uploads that cannot be read, and those whose evidence contradicts itself (a file that declares RMSNorm
    while its weights show LayerNorm, say). A model without a label is accepted: an abstention accuses nobody.
    """
    decision: Decision = "accepted"
    reason, record = "", None
    try:
        record = normsniff.sniff(upload)
    except normsniff.NormsniffError as error:
        decision, reason = "rejected", str(error)
    if record is not None and record.contradictions:
        decision, reason = "rejected", record.contradictions[0].statement
    with engine.begin() as connection:  # stored before it is moved: after a crash it is labelled again, never lost
        stored = connection.execute(
            UPLOADS.insert().values(
                name=upload.name,
                received=datetime.now(UTC),
                decision=decision,
                reason=reason,
                label=record.label if record else None,
                confidence=record.confidence if record else None,
                record=msgspec.to_builtins(record) if record else None,
            )
        )
    number = stored.inserted_primary_key[0]
    target = upload.parent / decision / f"{number}-{upload.name}"  # a name may come twice
    target.parent.mkdir(exist_ok=True)
    upload.rename(target)
    return decision


def waiting(folder: Path) -> Iterator[Path]:
    """Yield the uploads that lie in `folder`, oldest first."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in found if path.name not in ("accepted", "rejected")]
    yield from sorted(found, key=lambda path: path.stat().st_mtime)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--database", default="sqlite:///records.db", show_default=True, help="An SQLAlchemy URL.")
@click.option("--once", is_flag=True, help="Take what is there and stop.")
def main(folder: Path, database: str, once: bool) -> None:
    """Ingest the uploads that appear in FOLDER."""
    engine = sql.create_engine(database)
    UPLOADS.metadata.create_all(engine)
    # It also yields every few seconds without a change: an upload that slips in between two looks is found then.
    changes = iter(()) if once else watchfiles.watch(folder, recursive=False, yield_on_timeout=True)
    while True:
        for upload in waiting(folder):
            click.echo(f"{ingest(upload, engine)} {upload.name}")
        if next(changes, None) is None:
            return


if __name__ == "__main__":
    main()
