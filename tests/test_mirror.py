"""Modules of src/normsniff/<room> are tested in tests/<room>/test_<module>.py, or a table says where and why."""

from __future__ import annotations

import ast

import pytest

from tests.helpers.manifest import ROOT
from tools.rooms import House

HOUSE = House()
TRIVIAL = 40  # lines; declarations and re-exports

# Modules without a file of their own: where they are tested, and why there.
ELSEWHERE = {
    "dead/test_pruning.py": (
        "cli.prune dead.rewriting dead.verification dead.wirings",
        "rows and rewrites: judged by the outputs of what is pruned",
    ),
    "checks/test_inspection.py": (
        (
            "checks.container checks.copies checks.epsilon checks.findings checks.labels checks.offset checks.presence"
            " checks.lengths checks.storage checks.subject checks.numbers"
        ),
        "families of findings: by the faults that are put in",
    ),
    "cli/test_check.py": (
        "checks.baseline cli.explain render.check_text",
        "a report by what is told of it",
    ),
    "cli/test_sniff.py": (
        "cli cli.options render.brief",
        "what commands share: by the one that is the default",
    ),
    "anatomy/graph/test_arithmetic.py": (
        (
            "anatomy.graph.arithmetic anatomy.graph.arithmetic.elementwise anatomy.graph.arithmetic.layouts"
            " anatomy.graph.arithmetic.normalising anatomy.graph.arithmetic.operation anatomy.graph.arithmetic.products"
            " anatomy.graph.arithmetic.quantised anatomy.graph.arithmetic.reductions anatomy.graph.arithmetic.windows"
        ),
        "operators of one table: all by the test data of the package onnx",
    ),
    "dead/test_directions.py": ("cli.direction", "the command beside what it prints"),
    "checks/test_stored.py": ("render.scale_words", "what is stored, by what is said of it"),
    "measure/test_plan.py": ("cli.plan", "the command beside what it prints"),
    "dead/test_readouts.py": (
        "cli.readout kernel.spectrum decode.rows",
        "streams of rows and their spectra: against an SVD of the whole",
    ),
    "render/report/test_page.py": (
        (
            "cli.report render.report.charts render.report.multiples render.report.provenance render.report.scales"
            " render.report.spectra"
        ),
        "a page is looked at as a whole, in a browser too",
    ),
    "training/test_tracking.py": (
        "cli.track render.run_plot render.run_table training.summary",
        "a run by what is told of it",
    ),
    "batch/test_scan.py": (
        "cli.scan batch.tally batch.journal render.table render.row render.parquet",
        "a scan by its process and its table",
    ),
    "batch/test_answers.py": ("batch.content", "what is known again by its content"),
    "test_pipeline.py": (
        "anatomy anatomy.parts course model render.text",
        "parts that every label passes",
    ),
    "test_parameters.py": ("cli.norms", "the numbers of norms, by what the command prints of them"),
    "test_verdict.py": ("evidence.weights", "the arithmetic of a record: its parts add up"),
    "anatomy/graph/test_probe.py": (
        "anatomy.graph.bench anatomy.graph.places anatomy.graph.trial",
        "what is run, where and on what: by the norms that are found so",
    ),
    "anatomy/graph/test_describe.py": (
        (
            "anatomy.graph.after anatomy.graph.doubts anatomy.graph.moments anatomy.graph.norms anatomy.graph.poolings"
            " anatomy.graph.roles anatomy.graph.sizes anatomy.graph.unmatched anatomy.graph.view"
            " anatomy.graph.vocabulary"
        ),
        "steps of one search: a graph goes in, norms and roles come out",
    ),
    "anatomy/names/test_describe.py": (
        (
            "anatomy.names.conventions anatomy.names.hints anatomy.names.matrices anatomy.names.patterns"
            " anatomy.names.candidates anatomy.names.readings anatomy.names.telling anatomy.names.towers"
        ),
        "tables of words: by the names that they explain",
    ),
    "formats/test_ctranslate2.py": ("anatomy.names.ctranslate2", "the names of one format: beside its files"),
    "decode/test_values.py": ("decode.blocks decode.ggml", "every dtype by its values"),
    "evidence/test_evidence.py": (
        "evidence.declared evidence.kernel evidence.layout evidence.substitutes",
        "all kinds on the same anatomies",
    ),
    "evidence/test_calibration.py": ("evidence.features", "the terms of the fit, by the fit"),
    "families/test_facts.py": (
        "families.architectures families.configurations families.tables",
        "names and rows by the facts that they give",
    ),
    "formats/test_table.py": ("formats formats.row", "the table and its rows"),
    "formats/keras/test_reader.py": ("formats.archives formats.keras.hdf5 formats.keras.layers", "parts of one file"),
    "formats/hdf5/test_structure.py": (
        (
            "formats.hdf5.attributes formats.hdf5.chunks formats.hdf5.datasets formats.hdf5.datatypes formats.hdf5.file"
            " formats.hdf5.groups formats.hdf5.headers formats.hdf5.heaps formats.hdf5.layouts formats.hdf5.slabs"
            " formats.hdf5.trees"
        ),
        "structures inside each other: by whole files of h5py",
    ),
    "formats/onnx/test_reader.py": (
        "formats.onnx.graph formats.onnx.nbits formats.onnx.quantised formats.onnx.tensors formats.onnx.wire",
        "parts of one file: by models of the onnx package",
    ),
    "formats/openvino/test_reader.py": ("formats.openvino.weights formats.openvino.xml", "parts of one file"),
    "formats/pytorch/test_reader.py": (
        "formats.pytorch.pickle_notes formats.pytorch.pickles formats.pytorch.tensors formats.strided",
        "parts of one file",
    ),
    "formats/tflite/test_reader.py": ("formats.tflite.flatbuffer formats.tflite.ops", "parts of one file"),
    "formats/test_flax.py": ("formats.messagepack", "what its tree is packed in"),
    "formats/test_gguf.py": ("formats.window", "the window that its header is read through"),
    "inputs/test_walk.py": ("inputs.opening", "what a directory is, and that it opens"),
    "inputs/test_shards.py": ("inputs.configs", "files beside each other"),
    "hostile/test_records.py": ("json_text batch.identity", "what once made a record that nobody could read"),
    "serve/test_app.py": (
        (
            "cli.serve serve.api serve.calls serve.doors serve.gate serve.metrics serve.openapi serve.problems"
            " serve.service serve.settings serve.subjects"
        ),
        "a service by what it answers and refuses",
    ),
    "serve/test_session.py": (
        "serve.dropped serve.exchange serve.line",
        "a drop by what the page is asked for and told",
    ),
    "training/test_penalties.py": ("kernel.penalty", "the value and its gradients"),
    "measure/test_samples.py": ("measure.shadows measure.sites", "what is sampled, and what comes of it"),
    "packed/test_schemes.py": ("packed.slabs", "a scheme by the values that it unpacks"),
    "render/test_sarif.py": ("render.cyclonedx", "two documents about the same records"),
    "source/test_local.py": ("source.views", "all that reads like a file"),
    "source/remote/test_paths.py": ("source.remote.fetched", "ranges that are kept and merged"),
    "source/remote/test_http.py": (
        "source.remote.link source.remote.source source.remote.answers source.remote.files",
        "what happens on the way: with a server that misbehaves",
    ),
}
UNTESTED = {
    "__init__": "a table of names; tests/cli/test_sniff.py imports each",
    "checkpoint": "declarations",
    "outputs": "every test of a file that is written, and its interruptions in batch/test_scan.py",
}


def path_of(name: str) -> str:
    """Return where a module is tested by the rule."""
    if name != "__init__" and HOUSE.modules[name].name == "__init__.py":
        return f"{name.replace('.', '/')}/test_{name.rpartition('.')[2]}.py"
    room, _, module = name.rpartition(".")
    return f"{room.replace('.', '/')}/test_{module}.py".lstrip("/")


def elsewhere() -> dict[str, str]:
    return {name: path for path, (names, _) in ELSEWHERE.items() for name in names.split()}


@pytest.mark.parametrize("name", sorted(HOUSE.modules))
def test_a_module_has_a_test_file_of_its_name(name: str) -> None:
    if len(HOUSE.modules[name].read_text(encoding="utf-8").splitlines()) > TRIVIAL and name not in UNTESTED:
        assert (ROOT / "tests" / elsewhere().get(name, path_of(name))).is_file()


def test_the_table_has_no_row_too_many() -> None:
    for name, path in elsewhere().items():
        assert name in HOUSE.modules
        assert not (ROOT / "tests" / path_of(name)).is_file(), f"{name} has a file of its own; take it out of {path}"


def test_a_file_that_is_named_like_a_module_mirrors_one() -> None:
    """Files that mirror no module stand at the top or in a room of their own subject."""
    own = {"oracle", "tools", "property", "hostile", "benchmarks", "examples", "helpers"}
    rooms = {name.rpartition(".")[0] for name in HOUSE.modules} | set(HOUSE.modules)
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = ".".join(path.relative_to(ROOT / "tests").parent.parts)
        assert room in rooms or room.partition(".")[0] in own, path


def test_tests_import_what_they_share_from_helpers_and_patch_no_path() -> None:
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                assert node.module is not None
                assert node.module.startswith("tests.helpers"), path
        assert "sys.path.insert(" not in text or path.name == "test_mirror.py", path
