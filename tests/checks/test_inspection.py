from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

import normsniff
from normsniff.checks.findings import Report
from normsniff.record import SEVERITIES
from tests.helpers.carriers import CARRIERS as MADE
from tests.helpers.faults import (
    CONFIG,
    STATE_FAULTS,
    VALUE_FAULTS,
    StateFault,
    ValueFault,
    inject,
    llama,
    save,
)
from tests.helpers.manifest import FIXTURES, Fixture, models, name
from tests.helpers.real_models import REAL_MODELS, find_real_model
from tests.helpers.servers import RangeServer
from tests.helpers.sparse import llama as sparse_llama
from tests.helpers.sparse import write_safetensors, write_sharded

# One file of every container and type whose scales lie in it as plain bytes.
CARRIERS = (
    "llama-rms",
    "gemma-rms",
    "gpt2-ln",
    "gpt2-ln.bf16.safetensors",
    "llama-rms.F32.gguf",
    "llama-rms.Q4_K.gguf",
    "gpt2-ln.Q8_0.gguf",
    "llama-rms.dynamo23.f16.onnx",
    "gpt2-ln.int8.onnx",
    "plain-rms.f16.h5",
    "gpt2-ln.f16.weights.h5",
    "plain-rms.f16.keras",
    "gpt2-ln.torchscript14.f16.external",
    "llama-rms-sharded",
)
KNOWN = {"llama-rms", "gemma-rms", "gpt2-ln", "llama-rms.F32.gguf", "gemma-rms.F32.gguf"}


def codes(report: Report) -> set[str]:
    return {one.code for one in report.findings}


@pytest.mark.parametrize("fault", [f for f in VALUE_FAULTS if f.code != "scale-offset"], ids=lambda fault: fault.name)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_fault_of_values_is_found_in_every_format(carrier: str, fault: ValueFault, tmp_path: Path) -> None:
    if fault.name == "a huge value" and ".f16." in carrier:
        pytest.skip("float16 holds no such value")
    if fault.name == "zeros" and carrier == "gemma-rms":
        pytest.skip("a stored zero is a scale of 1 there")
    with normsniff.norms(FIXTURES / carrier) as norms:
        names = [norm.name for norm in norms]
    report = normsniff.check(inject(FIXTURES / carrier, fault, tmp_path))
    told = [one for one in report.findings if one.code == fault.code]
    assert told, report
    if fault.at:
        assert {names[at] for at in fault.at} <= {name for one in told for name in one.norms}


@pytest.mark.parametrize("fault", [f for f in VALUE_FAULTS if f.code != "scale-offset"], ids=lambda fault: fault.name)
@pytest.mark.parametrize("kind", MADE)
def test_a_fault_of_values_is_found_in_formats_without_a_fixture(kind: str, fault: ValueFault, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    (tmp_path / "broken").mkdir()
    clean = MADE[kind](tmp_path / "clean")
    report = normsniff.check(clean)
    assert (report.count("error"), report.count("warning"), report.unread) == (0, 0, 0), report.findings
    with normsniff.norms(clean) as norms:
        names = [norm.name for norm in norms]
    carrier = clean.parent if kind == "OpenVINO" else clean  # its weights lie beside it
    found = normsniff.check(inject(carrier, fault, tmp_path / "broken")).findings
    told = [one for one in found if one.code == fault.code]
    assert told, found
    if fault.at:
        assert {names[at] for at in fault.at} <= {name for one in told for name in one.norms}


@pytest.mark.parametrize("path", sorted(KNOWN))
@pytest.mark.parametrize("fault", [f for f in VALUE_FAULTS if f.code == "scale-offset"], ids=lambda fault: fault.name)
def test_a_scale_that_is_shifted_against_its_family_is_found(path: str, fault: ValueFault, tmp_path: Path) -> None:
    report = normsniff.check(inject(FIXTURES / path, fault, tmp_path))
    found = [one for one in report.findings if one.code == "scale-offset" and one.severity != "note"]
    assert len(found) == 1, report
    assert len(found[0].norms) >= 4, "most norms, in the order of the network"
    assert set(found[0].norms) <= {norm.name for norm in normsniff.norms(FIXTURES / path)}


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize("family", ["gemma3_text", "qwen3_5_text", "qwen3_next", "nemotron"])
def test_zero_centred_families_of_small_scales_are_told_in_any_arithmetic(
    family: str, times: int, kind: Any, tmp_path: Path
) -> None:
    random, state = np.random.default_rng(0), llama(blocks=8, d=256, query_key=True)
    norms = [key for key in state if key.endswith("norm.weight")]
    for key in norms:
        w = random.normal(0.15, 0.12, state[key].shape).astype(ml_dtypes.bfloat16).astype(kind)
        for _ in range(times):
            w = (w + kind(1)).astype(kind)
        state[key] = w.astype(np.float32)
    found = normsniff.check(save(state, {"model_type": family, "rms_norm_eps": 1e-6}, tmp_path / "model")).findings
    if not times:
        assert found == ()
        return
    assert [(one.code, one.severity) for one in found] == [("scale-offset", "error")]
    assert set(found[0].norms) == {key.removesuffix(".weight") for key in norms}


@pytest.mark.parametrize("fault", STATE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_names_shapes_types_or_configuration_is_found(fault: StateFault, tmp_path: Path) -> None:
    state, config = llama(), dict(CONFIG)
    fault.change(state, config)
    report = normsniff.check(save(state, config, tmp_path / "model"))
    found = [one for one in report.findings if one.code == fault.code]
    assert [one.severity for one in found] == [fault.severity], report.findings
    assert set(fault.norms) <= set(found[0].norms)


@pytest.mark.parametrize(("distinct", "code"), [(1, "untrained"), (2, None), (10, "repeated"), (16, "repeated")])
def test_copies_are_counted_against_chance(distinct: int, code: str | None, tmp_path: Path) -> None:
    state = llama(query_key=True)
    few = (1 + np.arange(16) % distinct / 128).astype(np.float32)
    for i in (1, 2):
        state[f"model.layers.{i}.self_attn.q_norm.weight"] = few
    found = [one for one in normsniff.check(save(state, CONFIG, tmp_path / "model")).findings if one.norms]
    assert [one.code for one in found if one.severity != "note"] == ([] if code is None else [code])


@pytest.mark.parametrize("heads", [("model", "ema"), ("student.net", "teacher.net"), ("", "copy")])
def test_a_network_that_is_there_twice_is_one_note(heads: tuple[str, str], tmp_path: Path) -> None:
    state = {f"{head}.{key}".lstrip("."): value for head in heads for key, value in llama().items()}
    found = [one for one in normsniff.check(save(state, {}, tmp_path / "model")).findings if one.code == "repeated"]
    assert [(one.severity, len(one.norms)) for one in found] == [("note", sum("norm" in key for key in state))]


def test_a_norm_that_was_mapped_twice_is_an_error_beside_a_copy_of_the_network(tmp_path: Path) -> None:
    one = llama()
    one["model.layers.1.input_layernorm.weight"] = one["model.layers.1.post_attention_layernorm.weight"]
    state = {f"{head}.{key}": value for head in ("net", "ema") for key, value in one.items()}
    found = [one for one in normsniff.check(save(state, {}, tmp_path / "model")).findings if one.code == "repeated"]
    assert {one.severity for one in found} >= {"error"}
    assert any("net.model.layers.1.input_layernorm" in one.norms for one in found if one.severity == "error")


def numbered(head: int) -> bytes:
    """Return a graph as exporters write it that number their nodes, with a norm of another width at its end."""
    model = onnx.load(FIXTURES / "gpt2-ln.dynamo23.f16.onnx")
    graph, rng = model.graph, np.random.default_rng(0)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    for at, node in enumerate(norms):
        node.name = f"node_layer_norm_{at}"
    added = {"w": rng.normal(1, 0.1, head), "b": rng.normal(0, 0.1, head), "project": rng.normal(0, 0.1, (64, head))}
    graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float16), f"head.{k}") for k, v in added.items())
    last = ["projected", "head.w", "head.b"]
    graph.node.extend(
        [
            onnx.helper.make_node("MatMul", [norms[-1].output[0], "head.project"], last[:1], "head"),
            onnx.helper.make_node("LayerNormalization", last, ["classified"], f"node_layer_norm_{len(norms)}"),
        ]
    )
    graph.output.append(onnx.helper.make_tensor_value_info("classified", onnx.TensorProto.FLOAT16, None))
    return bytes(model.SerializeToString())


def test_the_number_of_a_node_is_not_that_of_a_block() -> None:
    report = normsniff.check(numbered(32))
    with normsniff.norms(numbered(32)) as norms:
        assert [one.d for one in norms][-2:] == [64, 32]
    assert report.count("error") == 0, report.findings


def test_a_sound_model_has_no_findings(tmp_path: Path) -> None:
    for query_key in (False, True):
        state = llama(query_key=query_key)
        assert normsniff.check(save(state, CONFIG, tmp_path / "model")).findings == ()
        assert normsniff.check(state).findings == ()


@pytest.mark.parametrize("fixture", models(), ids=name)
def test_clean_fixtures_have_no_error_and_at_most_one_warning(fixture: Fixture) -> None:
    report = normsniff.check(fixture.path)
    assert report.count("error") == 0, report.findings
    assert report.count("warning") <= 1, report.findings
    if "random" in fixture.model:
        assert "untrained" in codes(report)


@pytest.mark.models
@pytest.mark.parametrize("short", REAL_MODELS)
def test_real_models_have_no_error_and_at_most_one_warning(short: str) -> None:
    path = find_real_model(short)
    if path is None:
        pytest.skip("not installed")
    report = normsniff.check(path)
    assert report.count("error") == 0, report.findings
    assert report.count("warning") <= 1, report.findings


def test_no_matrix_is_read_unless_asked_for(tmp_path: Path) -> None:
    path = save(llama(), CONFIG, tmp_path / "model")
    shallow, deep = normsniff.check(path), normsniff.check(path, deep=True)
    vectors = 13 * 64 * 4
    header = 8 + int.from_bytes((path / "model.safetensors").read_bytes()[:8], "little")
    assert shallow.bytes_read is not None
    assert deep.bytes_read is not None
    assert shallow.bytes_read <= header + vectors + (path / "config.json").stat().st_size + 8
    assert deep.bytes_read > 2 * shallow.bytes_read
    assert (shallow.deep, deep.deep) == (False, True)


@pytest.mark.parametrize(("shards", "name"), [(1, "model.safetensors"), (4, ""), (5, "model.safetensors.index.json")])
def test_eight_gigabytes_behind_a_url_take_at_most_twelve_requests(
    shards: int, name: str, server: RangeServer, tmp_path: Path
) -> None:
    report = normsniff.check(server.url(eight_gigabytes(shards, name, tmp_path)))
    assert (report.norms, report.unread) == (41, 0)
    assert report.requests is not None
    assert report.requests == len(server.requests) <= 12
    assert server.sent < 2e6


def test_a_server_of_single_ranges_takes_a_request_for_each_place_and_no_matrix(
    server: RangeServer, tmp_path: Path
) -> None:
    server.several = False
    report = normsniff.check(server.url(eight_gigabytes(1, "model.safetensors", tmp_path)))
    places = 21  # two norms of a block are neighbours in this file
    assert report.unread == 0
    assert len(server.requests) <= places + 3, "the header, the configuration, and one in vain for several ranges"
    assert server.sent < 2e6


def eight_gigabytes(shards: int, name: str, folder: Path) -> str:
    """Write a Llama of 20 blocks, with holes for matrices."""
    model = dict(sparse_llama(20))
    if shards == 1:
        write_safetensors(folder / name, model)
    else:
        write_sharded(folder, model, shards)
    (folder / "config.json").write_text(json.dumps(dict(CONFIG)))
    assert sum(path.stat().st_size for path in folder.iterdir()) > 8e9
    return name


def test_what_the_verdict_knows_is_a_finding(tmp_path: Path) -> None:
    state, config = llama(), dict(CONFIG)
    for change in (fault.change for fault in STATE_FAULTS if fault.name == "shifts in a family without"):
        change(state, config)
    report = normsniff.check(save(state, config, tmp_path / "model"))
    (found,) = [one for one in report.findings if one.code == "contradiction"]
    record = normsniff.sniff(tmp_path / "model", evidence=("declared", "layout"))
    assert found.reason == record.contradictions[0].statement
    assert found.details["between"] == ["declared", "layout"]


def test_a_zero_is_found_in_a_scale_of_several_axes(tmp_path: Path) -> None:
    state = llama(query_key=True)
    for key in [key for key in state if key.endswith("q_norm.weight")]:
        state[key] = np.outer(np.linspace(0.9, 1.1, 4, dtype=np.float32), state[key])
    state["model.layers.0.self_attn.q_norm.weight"][1, 2] = 0
    found = normsniff.check(save(state, CONFIG, tmp_path / "model")).findings
    assert ["model.layers.0.self_attn.q_norm"] in [list(one.norms) for one in found if one.code == "dead"]


def test_another_epsilon_than_the_family_starts_from_is_a_note(tmp_path: Path) -> None:
    model = shutil.copytree(FIXTURES / "bert-ln", tmp_path / "bert")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    (found,) = normsniff.check(model).findings
    assert (found.code, found.severity, found.details["usual"]) == ("epsilon", "note", 1e-12)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("family", "severity"), [("qwen3_5", "warning"), ("gemma3", "warning"), ("qwen2", "note")])
def test_another_epsilon_than_all_models_of_the_family_is_a_warning(
    family: str, severity: str, nested: bool, tmp_path: Path
) -> None:
    own = {"model_type": f"{family}_text", "rms_norm_eps": 1e-5} if nested else {"rms_norm_eps": 1e-5}
    config = {"model_type": family, **({"text_config": own} if nested else own)}
    state = {**llama(), **{k: v - 1 for k, v in llama().items() if "norm" in k and family != "qwen2"}}
    found = [one for one in normsniff.check(save(state, config, tmp_path / "model")).findings if one.code == "epsilon"]
    assert [one.severity for one in found] == [severity], "Qwen2 models have two, its configuration's default is one"
    words = f"{family} models use 1e-06" if severity == "warning" else f"the default of {family} is 1e-06"
    assert found[0].reason.endswith(f"rms_norm_eps = 1e-05; {words}")


def test_an_absurd_epsilon_of_many_norms_is_one_finding_that_names_them() -> None:
    model = onnx.load(FIXTURES / "gpt2-ln.dynamo23.f16.onnx")
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            node.attribute.extend([onnx.helper.make_attribute("epsilon", float("nan"))])
            del node.attribute[:-1]
    found = [one for one in normsniff.check(model.SerializeToString()).findings if one.code == "epsilon"]
    assert [one.reason.partition(":")[0] for one in found] == ["the norm's own epsilon = nan"] * len(found)
    assert max(len(one.norms) for one in found) > 1, "one finding a place of the blocks"


def test_findings_come_gravest_first_and_vectors_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    state, config = llama(), {**CONFIG, "rms_norm_eps": 0.0}
    state["model.norm.weight"][:] = np.nan
    report = normsniff.check(save(state, config, tmp_path / "model"))
    order = [SEVERITIES.index(one.severity) for one in report.findings]
    assert order == sorted(order)
    assert {"not-finite", "epsilon"} <= codes(report)
    assert normsniff.check(state, limits=normsniff.Limits(tensor_bytes=100)).unread == 13


@pytest.mark.parametrize(
    ("fixture", "name", "words"),
    [
        ("gpt2-ln/model.safetensors", "model.gguf", "its content is safetensors, its name ends in .gguf as of GGUF"),
        (
            "gpt2-ln.Q8_0.gguf",
            "model.safetensors",
            "its content is GGUF, its name ends in .safetensors as of safetensors",
        ),
        ("gpt2-ln.int8.onnx", "model.H5", "its content is ONNX, its name ends in .h5 as of Keras"),
    ],
)
def test_a_file_under_the_name_of_another_format_is_found(fixture: str, name: str, words: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / fixture, tmp_path / name)
    record = normsniff.sniff(tmp_path / name)
    assert [(one.severity, one.reason) for one in record.findings or () if one.code == "disguised"] == [
        ("error", words)
    ]


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pth"])
def test_a_file_without_code_under_the_name_of_a_pickle_is_a_warning(name: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "gpt2-ln/model.safetensors", tmp_path / name)
    (found,) = [one for one in normsniff.sniff(tmp_path / name).findings or () if one.code == "disguised"]
    assert (found.severity, found.reason.partition(": ")[2]) == (
        "warning", "loaders that go by it try to unpickle the file"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["model", "model.bin", "model.txt", "model.gguf", "model.Q8.gguf.part"])
def test_other_names_say_nothing_against_a_file(name: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "gpt2-ln.Q8_0.gguf", tmp_path / name)
    assert "disguised" not in {one.code for one in normsniff.sniff(tmp_path / name).findings or ()}


class Calling:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "severity"),
    [(os.system, "error"), (eval, "error"), (os.remove, "error"), (getattr, "warning"), (json.loads, None)],
)
def test_what_a_pickle_would_run_is_found(function: Any, severity: str | None, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    state = load_file(FIXTURES / "gpt2-ln" / "model.safetensors")
    torch.save({"state_dict": state, "more": Calling(function, "1")}, tmp_path / "model.pt")
    found = [one for one in normsniff.sniff(tmp_path / "model.pt").findings or () if one.code == "dangerous-pickle"]
    assert [one.severity for one in found] == ([] if severity is None else [severity])
    assert all(function.__name__ in one.reason for one in found)


def test_alarms_are_told_wherever_findings_are(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from normsniff.cli import cli

    path = tmp_path / "model.gguf"
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", path)
    run = CliRunner().invoke(cli, [str(path), "--strict"])
    assert run.exit_code == 1
    assert f"error: {path}: disguised: " in run.stderr
    assert "  error      disguised: " in run.stdout
    log = json.loads(CliRunner().invoke(cli, [str(path), "--format", "sarif"]).stdout)
    assert "disguised" in {one["ruleId"] for one in log["runs"][0]["results"]}
