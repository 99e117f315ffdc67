"""Power loss at any moment (rows 13, 15): the spool's system calls are recorded, and cut short at many places.

After each cut the disk holds all that was synced, and of the rest any part: whole writes, torn ones, none; names of files
only if their folder was synced, or by luck. Recovery must then find every message that was acknowledged before the cut, whole.
The model is ALICE (Pillai et al., OSDI 2014). Mapped files (the log's index, the journal of attempts) are not recorded: SQLite
makes its index anew, and the other is not meant to outlive a power loss.
"""

import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from postbud.spool.sqlite import Spool
from postbud.spool.values import Filter
from tests.system.spool_child import SMALL, is_whole
from tests.system.test_spool_damage import strace

ROOT = Path(__file__).parents[2]

WORK = """
import asyncio, os, sys
from pathlib import Path
from postbud.spool.sqlite import Spool
from tests.system.spool_child import SMALL, accepted, delivered, receive
async def main():
    spool = await Spool.open(Path(sys.argv[1]), SMALL)
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
    async def client(name):
        for number in range(12):
            size = 60_000 if number % 4 == 3 else 1500
            batch = accepted(spool, await receive(spool, f"{name}-{number}", size))
            await spool.commit(batch)
            os.write(log, b"accepted " + batch.messages[0].message.id.encode())
            if number % 3 == 0:
                os.write(log, b"settling " + batch.messages[0].message.id.encode())
                await spool.commit(delivered(spool, *batch.messages[0].deliveries))
                os.write(log, b"settled " + batch.messages[0].message.id.encode())
    await asyncio.gather(client("a"), client("b"))
    await spool.close()
asyncio.run(main())
"""

LINE = re.compile(r"^(\d+) +(?:([\d.]+) )?(\w+)\((.*)\) += (-?\d+)(.*)$")
FD = re.compile(r"^\d+<((?:\\x[0-9a-f]{2}|[^>])*)>")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Call:
    name: str
    path: str
    octets: bytes = b""
    at: int = 0
    target: str = ""
    returned_at: float = 0.0  # where the trace has times (-ttt)


def parse(trace: str) -> list[Call]:
    """Turn strace's lines into calls, in the order in which they returned."""
    unfinished: dict[str, str] = {}
    sizes: dict[str, int] = {}
    calls: list[Call] = []
    for raw in trace.splitlines():
        line = raw
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        if (resumed := re.match(r"^(\d+) +([\d.]+ )?<\.\.\. \w+ resumed>(.*)$", line)) is not None:
            line = unfinished.pop(thread) + resumed[3]
        if (found := LINE.match(line)) is None or found[5].startswith("-"):
            continue
        name, arguments, result = found[3], found[4], int(found[5])
        returned_at, known = float((resumed and resumed[2]) or found[2] or 0), len(calls)
        texts = [plain(text) for text in TEXT.findall(arguments)]
        at_fd = FD.match(arguments)
        path = (plain(at_fd[1]) if at_fd[1].startswith("\\x") else at_fd[1].encode()).decode() if at_fd else ""
        if name == "pwrite64":
            calls.append(Call("write", path, texts[0][:result], int(arguments.rsplit(",", 1)[1])))
        elif name == "write":
            calls.append(Call("write", path, texts[0][:result], sizes.get(path, 0)))
            sizes[path] = sizes.get(path, 0) + result
        elif name in {"fsync", "fdatasync"}:
            calls.append(Call("sync", path))
        elif name == "ftruncate":
            calls.append(Call("truncate", path, at=int(arguments.rsplit(",", 1)[1])))
        elif name == "rename":
            calls.append(Call("rename", texts[0].decode(), target=texts[1].decode()))
        elif name == "unlink":
            calls.append(Call("unlink", texts[0].decode()))
        elif name == "openat" and "O_CREAT" in arguments:
            calls.append(Call("create", texts[0].decode()))
        for call in calls[known:]:
            call.returned_at = returned_at
    return calls


@dataclass
class Disk:
    """A disk that keeps what was synced; the rest is up to the dice."""

    files: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[Call]] = field(default_factory=dict)  # by file: writes not synced
    names: list[Call] = field(default_factory=list)  # creations, renames and deletions not synced
    data: dict[str, list[Call]] = field(default_factory=dict)

    def feed(self, call: Call) -> None:
        folder = str(Path(call.path).parent)
        if call.name in {"write", "truncate"}:
            self.pending.setdefault(call.path, []).append(call)
        elif call.name in {"create", "rename", "unlink"}:
            self.names.append(call)
            if call.name == "rename":
                self.pending[call.target] = self.pending.pop(call.path, [])
        elif any(str(Path(name.target or name.path).parent) == call.path or folder == "" for name in self.names):
            mine = [name for name in self.names if str(Path(name.target or name.path).parent) == call.path]
            self.names = [name for name in self.names if name not in mine]
            for name in mine:
                self.apply_name(name)
        else:
            for write in self.pending.pop(call.path, []):
                self.apply_write(write, call.path)

    def key(self, path: str) -> str:
        """Give the name under which a file is on the disk: a rename may not be there yet."""
        for name in reversed(self.names):
            if name.name == "rename" and name.target == path:
                path = name.path
        return path

    def apply_write(self, write: Call, path: str) -> None:
        octets = self.files.setdefault(self.key(path), bytearray())
        if write.name == "truncate":
            del octets[write.at :]
            octets.extend(bytes(write.at - len(octets)))
            return
        octets.extend(bytes(max(0, write.at - len(octets))))
        octets[write.at : write.at + len(write.octets)] = write.octets

    def apply_name(self, name: Call) -> None:
        if name.name == "create":
            self.files.setdefault(name.path, bytearray())
        elif name.name == "rename" and name.path in self.files:
            self.files[name.target] = self.files.pop(name.path)
        elif name.name == "unlink":
            self.files.pop(name.path, None)

    def crash(self, dice: random.Random) -> dict[str, bytes]:
        """Give one of the states that a power loss may leave."""
        left = Disk({path: bytearray(octets) for path, octets in self.files.items()}, {}, list(self.names))
        keep = dice.choice([0.0, 0.5, 1.0])
        for path, writes in self.pending.items():
            for write in writes:
                if dice.random() < keep:
                    torn = (
                        write.octets[: dice.randrange(len(write.octets) + 1) // 512 * 512]
                        if dice.random() < 0.3
                        else write.octets
                    )
                    left.apply_write(Call(write.name, path, torn, write.at), path)
        for name in self.names:
            if dice.random() >= keep:
                break  # names of one folder reach the disk in order, as every journalling file system has it
            left.apply_name(name)
        return {path: bytes(octets) for path, octets in left.files.items()}


@pytest.mark.row("13", "15")
async def test_power_loss_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path):
    folder, log, trace = tmp_path / "spool", tmp_path / "log", tmp_path / "trace"
    await (await Spool.open(folder, SMALL)).close()
    start = {str(path): bytearray(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    calls_of = "pwrite64,write,fsync,fdatasync,ftruncate,rename,unlink,openat"
    command = strace()
    command[command.index("/dev/null")] = str(trace)
    command += ["-y", "-xx", "-s", "300000", "-e", f"trace={calls_of}", sys.executable, "-c", WORK, str(folder), str(log)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    calls = [call for call in parse(trace.read_text()) if call.path.startswith((str(folder), str(log)))]
    assert sum(call.name == "sync" for call in calls) > 20
    dice = random.Random(11)
    cuts = sorted(dice.sample(range(len(calls)), min(120, len(calls))))
    disk = Disk(start)
    accepted: set[str] = set()
    settled: set[str] = set()
    settling: set[str] = set()
    for number, call in enumerate(calls):
        if call.path == str(log):
            words = {"accepted": accepted, "settled": settled, "settling": settling}
            word, _, identifier = call.octets.decode().partition(" ")
            if word:
                words[word].add(identifier)
        elif not call.path.endswith(("-shm", "/inflight")):
            disk.feed(call)
        if number in cuts:
            await recover(folder, disk.crash(dice), accepted, settling, settled)
    assert len(accepted) == 24


async def recover(folder: Path, files: dict[str, bytes], accepted: set[str], settling: set[str], settled: set[str]) -> None:
    """Lay the files out and open them; every promise must hold."""
    shutil.rmtree(folder)
    for path in (folder / "incoming", folder / "content"):
        path.mkdir(parents=True)
    for path, octets in files.items():
        Path(path).write_bytes(octets)
    spool = await Spool.open(folder, SMALL)
    found = {message.id for message, _ in await spool.find(Filter(), 1000)}
    assert accepted - settling <= found
    assert not settled & found
    for message_id in found:
        assert is_whole((await spool.content(message_id)).content)
    assert spool.counters.quarantined == 0
    await spool.close()
