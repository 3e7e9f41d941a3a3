from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff import MissingExtra, SourceError, sniff
from normsniff.errors import FormatError, redact
from normsniff.limits import Limits
from normsniff.source.places import is_inside, place_of
from normsniff.source.remote.fetched import Extents, merge
from normsniff.source.remote.paths import RemotePath
from tests.helpers.servers import RangeServer
from tests.helpers.sparse import llama, write_safetensors


def remote(url: str) -> RemotePath:
    place = place_of(url, Limits())
    assert isinstance(place, RemotePath)
    return place


@pytest.mark.parametrize("text", ["model.gguf", "/a/b", "C://x", "a:b", "dir/http:"])
def test_paths_are_no_urls(text: str) -> None:
    assert place_of(text, Limits()) == Path(text)


def test_a_url_is_taken_apart_like_a_path() -> None:
    path = remote("HTTPS://me:pw@host:8080/org%20x/m%231.safetensors?sig=a%2Fb%3D#part")
    assert (path.name, path.suffix) == ("m#1.safetensors", ".safetensors")
    assert path.url == "https://me:pw@host:8080/org%20x/m%231.safetensors?sig=a%2Fb%3D"
    assert path.with_name("config.json").url == "https://me:pw@host:8080/org%20x/config.json?sig=a%2Fb%3D"
    assert path.with_name("a?b/c#d%2e.bin").url.startswith("https://me:pw@host:8080/org%20x/a%3Fb/c%23d%252e.bin?")
    assert path.with_suffix(".bin").name == "m#1.bin"
    assert str(path) == "https://host:8080/org%20x/m%231.safetensors?sig=…"
    key = remote("s3://bucket/a?b#c%20/")
    assert (key.name, key.url, key.folder) == ("a?b#c%20", "s3://bucket/a?b#c%20", True)
    assert remote("s3://bucket").parent.url == "s3://bucket"
    assert remote("hf://org/model").is_repository
    assert not remote("hf://org/model@main/a.gguf").is_repository
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 - our own


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", ".", "", "a//b", "/x"])
@pytest.mark.parametrize("root", ["https://host/dir", "s3://bucket/dir", "hf://org/model"])
def test_names_do_not_lead_out_of_a_directory(root: str, name: str) -> None:
    directory = remote(root)
    assert not is_inside(directory, directory.joinpath(name))
    assert is_inside(directory, directory.joinpath("a..b"))
    assert not is_inside(directory, remote(root + "2/x"))
    assert not is_inside(directory, Path("x"))
    assert not is_inside(Path(), directory)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "http://other/x", "a\\..\\b"])
def test_an_index_behind_a_url_names_no_file_elsewhere(server: RangeServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FormatError, match="unsafe-path"):
        sniff(server.url("model.safetensors.index.json"))
    assert server.paths == ["/model.safetensors.index.json"]


@pytest.mark.parametrize("url", ["ftp://me:hunter2@host/x", "file:///etc/passwd", "github://a/b"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(SourceError, match="not supported") as caught:
        sniff(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("https://host/x", "aiohttp", "remote"),
        ("https://host/x", "fsspec", "remote"),
        ("s3://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gs"),
        ("hf://org/model", "huggingface_hub", "hf"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("normsniff.source.remote.", "fsspec.implementations"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Exception, match=rf"reading from \w+:// needs .*pip install .*\[{extra}\]'") as caught:
        sniff(url)
    assert type(caught.value) is MissingExtra


@pytest.mark.parametrize(
    ("page", "url"),
    [
        ("https://huggingface.co/org/model", "hf://org/model"),
        ("https://huggingface.co/org/model/", "hf://org/model"),
        ("https://hf.co/org/model?x=1#y", "hf://org/model"),
        ("https://huggingface.co/org/model/tree/main", "hf://org/model@main"),
        ("https://huggingface.co/org/model/tree/v1/onnx", "hf://org/model@v1/onnx"),
        ("https://huggingface.co/org/model/blob/main/a%20b.gguf", "hf://org/model@main/a b.gguf"),
        (
            "https://huggingface.co/org/model/resolve/main/a.gguf",
            "https://huggingface.co/org/model/resolve/main/a.gguf",
        ),
        ("https://huggingface.co/datasets/org", "https://huggingface.co/datasets/org"),
        ("https://example.com/org/model", "https://example.com/org/model"),
    ],
)
def test_pages_of_the_hub_are_read_as_repositories(page: str, url: str) -> None:
    assert RemotePath.parse(page, Limits()).url == url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/a?b=c", "https://h/a?b=…"),
        ("no https://h/a?k: yes", "no https://h/a?…: yes"),
        ("('https://h/a?x=1&y=2&')", "('https://h/a?x=…&y=…')"),
        ("hf://org/model@main/a.gguf", "hf://org/model@main/a.gguf"),
        ("what? a=b", "what? a=b"),
        ("s3://k:s@bucket/a", "s3://bucket/a"),
    ],
)
def test_credentials_are_taken_out_of_urls(text: str, shown: str) -> None:
    assert redact(text) == shown


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda one: (one[0], sum(one))), max_size=8)


@given(ranges=RANGES, gap=st.integers(0, 5), largest=st.integers(1, 30))
def test_merged_ranges_cover_what_was_asked_and_little_more(
    ranges: list[tuple[int, int]], gap: int, largest: int
) -> None:
    wanted = {i for start, stop in ranges for i in range(start, stop)}
    merged = merge(ranges, gap, largest)
    covered = [i for start, stop in merged for i in range(start, stop)]
    assert len(covered) == len(set(covered))
    assert wanted <= set(covered)
    assert all(0 < stop - start <= largest for start, stop in merged)
    assert all(any(j in wanted or j in {s for s, _ in ranges} for j in range(i - gap, i + gap + 1)) for i in covered)


@given(ranges=RANGES, asked=st.tuples(st.integers(0, 70), st.integers(1, 30)))
def test_extents_hand_out_what_was_put_in(ranges: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    data = bytes(range(100))
    kept, known = Extents(), set[int]()
    for start, stop in ranges:
        for low, high in kept.missing(start, stop):
            assert not known & set(range(low, high))
            kept.add(low, data[low:high])
            known |= set(range(low, high))
        assert set(range(start, stop)) <= known
    start, n = asked
    found = kept.get(start, n)
    assert (found is not None) == (set(range(start, start + n)) <= known)
    assert found is None or bytes(found) == data[start : start + n]
    assert {i for low, high in kept.missing(start, start + n) for i in range(low, high)} == set(
        range(start, start + n)
    ) - known


def test_the_command_line_takes_urls(server: RangeServer, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from normsniff.cli import cli

    write_safetensors(tmp_path / "m.safetensors", llama(2, d=64, f=128, vocabulary=512))
    url = server.url("m.safetensors?token=sesame")
    done = CliRunner().invoke(cli, ["sniff", "--json", url, server.url("none.gguf?token=sesame")])
    record, failure = map(json.loads, done.stdout.splitlines())
    assert (record["label"], record["path"]) == ("RMSNorm", url.replace("sesame", "…"))
    assert failure["error"]["message"].endswith("none.gguf?token=…: no such file")
    assert "sesame" not in done.output
    assert done.exit_code == 2
    text = CliRunner().invoke(cli, [url]).output
    assert f"in {record['requests']} requests, " in text
    assert CliRunner().invoke(cli, ["plan", url]).exit_code == 0
    assert CliRunner().invoke(cli, ["sniff", "ftp://me:pw@host/x"]).exit_code == 2


@pytest.mark.parametrize(("name", "asked"), [("\udcff.gguf", "%FF.gguf"), ("\ud800.gguf?\udcff", "%ED%A0%80.gguf?%FF")])
def test_bytes_that_are_no_text_are_asked_for_as_they_are(name: str, asked: str) -> None:
    """A command line and a list of a scan may hold any bytes."""
    path = RemotePath.parse(f"https://host/{name}", Limits())
    assert path.url == f"https://host/{asked}"
    assert path.with_name("\udcfe.json").where == "host/%FE.json"


@pytest.mark.parametrize("mark", "/?#")
def test_a_password_that_cuts_its_url_off_is_no_port(mark: str) -> None:
    with pytest.raises(SourceError, match="must be percent-encoded") as caught:
        RemotePath.parse(f"https://me:hunter2{mark}@host/m.gguf", Limits())
    assert "hunter2" not in str(caught.value)
    for fine in ("https://[::1]/a@b", "https://[::1]:80/a@b", "https://host:80/a@b", "https://host/a:c@b"):
        assert RemotePath.parse(fine, Limits()).url == fine
