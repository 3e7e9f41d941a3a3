"""What `normsniff serve` does under load: many requests at once, hostile files and rude clients among them.

    python -m benchmarks.serve [--requests N] [--jobs N] [--queue N]

The service runs as a process of its own. Two rounds: all requests at the same moment, taking what comes; then the same
with clients that obey Retry-After until they have an answer. Every request must end: with a record, with a problem that
names what is wrong with the file, or with 429. Memory is the sum over all processes, sampled 20 times a second, where
pages that they share count once (PSS) and each time (RSS). Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp

from fuzz.mutations import plain

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
GOOD = ("gpt2-ln.Q8_0.gguf", "llama-rms.Q8_0.gguf", "llama-rms.int8.onnx", "plain-rms.bf16.safetensors")
_TRIES = 200  # of a client that obeys; it waits a second or more between two


class Request(NamedTuple):
    """One request: what it is, its body, and how its sender behaves."""

    kind: str
    body: bytes
    manner: str = "plain"


def requests(n: int, seed: int) -> list[Request]:
    """Return n requests in a random order: half good files, half hostile ones and rude senders."""
    rng = random.Random(seed)
    good = [(FIXTURES / name).read_bytes() for name in GOOD]
    found = [Request("good", rng.choice(good)) for _ in range(n // 2)]
    found += [Request("mutated", plain(rng.choice(good), rng)) for _ in range(n // 5)]
    found += [Request("cut", (data := rng.choice(good))[: rng.randrange(1, len(data))]) for _ in range(n // 10)]
    found += [Request("noise", rng.randbytes(200_000)) for _ in range(n // 20)]
    found += [Request("lying header", _LYING[rng.randrange(len(_LYING))]) for _ in range(n // 20)]
    found += [Request("leaves", rng.choice(good), "leaves") for _ in range(n // 20)]
    found += [Request("slow", rng.choice(good), "slow") for _ in range(n - len(found))]
    rng.shuffle(found)
    return found


_LYING = (
    b"GGUF\x03\0\0\0" + (2**62).to_bytes(8, "little") * 2 + bytes(100_000),  # tensors and keys beyond all bounds
    (2**63 - 1).to_bytes(8, "little") + b"{" * 100_000,  # a safetensors header longer than its file
    (99_992).to_bytes(8, "little") + b"[" * 99_992,  # one that is nested 99,992 times
    b"\x93NUMPY\x01\0v\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % 2**60 + b" " * 70_000,
    b"\x80\x02" + b"(" * 200_000,  # a pickle of marks
)


async def send(session: aiohttp.ClientSession, address: str, one: Request) -> tuple[int, float]:
    """Send one request; returns the status (0: the sender left) and the Retry-After."""
    data: bytes | asyncio.StreamReader = one.body
    if one.manner == "slow":
        data = asyncio.StreamReader()
        asyncio.get_running_loop().create_task(_dribble(data, one.body))
    try:
        patience = 0.2 if one.manner == "leaves" else 600.0
        async with asyncio.timeout(patience), session.post(f"{address}/v1/sniff", data=data) as answer:
            await answer.read()
            return answer.status, float(answer.headers.get("Retry-After", "0"))
    except TimeoutError:
        if one.manner != "leaves":
            raise
        return 0, 0.0


async def _dribble(stream: asyncio.StreamReader, body: bytes) -> None:
    for at in range(0, len(body), max(len(body) // 20, 1)):
        stream.feed_data(body[at : at + max(len(body) // 20, 1)])
        await asyncio.sleep(0.1)
    stream.feed_eof()


async def play(address: str, some: list[Request], *, obey: bool) -> Counter[tuple[str, int]]:
    """Send all requests at once; returns how often each kind ended with which status, -1 for lost."""
    ends: Counter[tuple[str, int]] = Counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as session:

        async def client(one: Request) -> None:
            status, patience = -1, 0.0
            for _ in range(_TRIES if obey else 1):
                try:
                    status, patience = await send(session, address, one)
                except (OSError, aiohttp.ClientError, TimeoutError):
                    status = -1
                if status != 429 or not obey:
                    break
                await asyncio.sleep(patience * random.uniform(0.5, 1.5))
            ends[one.kind, status] += 1

        await asyncio.gather(*map(client, some))
    return ends


class Watch(threading.Thread):
    """Samples the memory of a process and all below it.

    Attributes:
        rss: largest sum of resident pages, in bytes.
        pss: largest sum in which shared pages count once.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.rss = self.pss = 0
        self.over = threading.Event()
        self._pid = pid

    def run(self) -> None:
        """Sample until it is over."""
        while not self.over.wait(0.05):
            sums = [sum(values) for values in zip(*map(_memory, _tree(self._pid)), strict=True)]
            self.rss, self.pss = max(self.rss, sums[0]), max(self.pss, sums[1])


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it has ended; children belong to the thread that started them
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _memory(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes.get("Rss", 0), sizes.get("Pss", 0)


@contextlib.contextmanager
def service(jobs: int, queue: int) -> Iterator[tuple[str, int]]:
    """Run the service; yields its address and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "normsniff", "serve", "--port", str(port), "--jobs", str(jobs)]
    with subprocess.Popen([*command, "--queue", str(queue), "--timeout", "20", "--memory", "1GB"]) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def main() -> None:
    """Run both rounds and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    some = requests(asked.requests, asked.seed)
    with service(asked.jobs, asked.queue) as (address, pid):
        watch = Watch(pid)
        asyncio.run(play(address, some[:5], obey=True))  # warm
        idle = sum(_memory(one)[1] for one in _tree(pid))
        watch.start()
        rounds = {}
        for name, obey in (("at once", False), ("obeying Retry-After", True)):
            begun = time.monotonic()
            rounds[name] = asyncio.run(play(address, some, obey=obey)), time.monotonic() - begun
        watch.over.set()
        watch.join()
    for name, (ends, seconds) in rounds.items():
        print(f"{name}: {asked.requests} requests, {seconds:.1f} s")
        for status in sorted({status for _, status in ends}):
            kinds = ", ".join(f"{kind} {n}" for (kind, one), n in sorted(ends.items()) if one == status)
            said = {-1: "lost", 0: "left"}.get(status, str(status))
            print(f"  {said:>5}: {sum(n for (_, one), n in ends.items() if one == status):4}  ({kinds})")
    print(f"memory of all processes: idle {idle / 1e6:.0f} MB, at most {watch.pss / 1e6:.0f} MB"
          f" ({watch.rss / 1e6:.0f} MB where shared pages count each time)")  # fmt: skip
    if any(status < 0 or status == 500 for ends, _ in rounds.values() for _, status in ends):
        sys.exit(1)


if __name__ == "__main__":
    main()
