"""A page of the documentation, followed to the letter.

block = ```LANGUAGE … ```   in the order of the page; what follows depends on its first line
sql                          run; with `-- FILE` on top, written to that file
bash                         typed into one shell, which lives as long as the page
python                       written to `# FILE`; appended where it says `# FILE, at the end`
toml                         `# FILE`, then a section that takes its namesake's place there
text                         what the block before it has to say, line by line; of a SELECT, its
                             cells, which it may take a moment to have
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    expected: str | None
    """The `text` block that follows it."""

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]


def blocks_of(page: Path, instead: dict[str, str]) -> list[Block]:
    """With some words of the page replaced, all of which must be there."""
    text = page.read_text(encoding="utf-8")
    for old, new in instead.items():
        assert old in text, f"{page.name} says {old} no more"
        text = text.replace(old, new)
    found = _BLOCK.findall(text)
    return [
        Block(language, body, _next_text(found, number))
        for number, (language, body) in enumerate(found)
        if language != "text"
    ]


def _next_text(found: list[tuple[str, str]], number: int) -> str | None:
    following = found[number + 1] if number + 1 < len(found) else ("", "")
    return following[1] if following[0] == "text" else None


# --------------------------------------------------------------------------- a shell


class Shell:
    """One bash, as a reader would have open."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.process = process
        self.directory = directory

    @classmethod
    async def open(cls, directory: Path) -> Shell:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        here = str(Path(sys.executable).parent)
        process = await asyncio.create_subprocess_exec(
            *("bash", "--norc", "--noprofile"),
            cwd=directory,
            env={**kept, "PATH": f"{here}:{kept['PATH']}", "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        shell = cls(process, directory)
        await shell.type("set -m")
        return shell

    async def type(self, text: str) -> str:
        """What it prints until its last command is over; each must succeed."""
        mark = f"end-{secrets.token_hex(8)}"
        lines = "".join(f"{line} || echo {mark} failed: $?\n" for line in text.splitlines() if line)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{lines}echo {mark}\n".encode())
        said = ""
        async with asyncio.timeout(120):
            while not said.endswith(f"{mark}\n"):
                line = await self.process.stdout.readline()
                assert line, f"the shell is gone: {said}"
                said += line.decode()
        said = said.removesuffix(f"{mark}\n")
        assert mark not in said, said.replace(mark, "↑")
        return said

    def logs(self) -> str:
        """The end of what its processes logged."""
        files = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in files)

    async def close(self) -> None:
        """With everything it started in the background: jobs have process groups of their own."""
        groups = (await self.type("jobs -p")).split()
        for group in groups:
            os.killpg(int(group), signal.SIGKILL)
        self.process.kill()
        await self.process.wait()


# --------------------------------------------------------------------------- following


class Reader:
    def __init__(self, shell: Shell, connection: Any) -> None:
        self.shell = shell
        self.connection = connection

    async def follow(self, block: Block) -> None:
        await getattr(self, f"_{block.language}")(block)

    async def _bash(self, block: Block) -> None:
        # A command that goes to the background has no result to wait for.
        said = await self.shell.type(re.sub(r"&$", "& true", block.text, flags=re.MULTILINE))
        for line in (block.expected or "").splitlines():
            assert line in said.splitlines(), f"{line!r} is not in\n{said}"

    async def _sql(self, block: Block) -> None:
        if block.first_line.startswith("-- "):
            self._file(block.first_line[3:]).write_text(block.text, encoding="utf-8")
        elif block.expected is None:
            await self.connection.execute(block.text)
        else:
            await self._sees(block.text, cells(block.expected))

    async def _sees(self, query: str, expected: list[list[str]]) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (seen := shown(await self.connection.fetch(query))) != expected:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{seen} is not {expected}; {self.shell.logs()}")
            await asyncio.sleep(0.1)

    async def _python(self, block: Block) -> None:
        name, _, at_the_end = block.first_line[2:].partition(", ")
        assert at_the_end in ("", "at the end")
        with self._file(name).open("a" if at_the_end else "w", encoding="utf-8") as file:
            file.write(block.text)

    async def _toml(self, block: Block) -> None:
        first, section = block.text.split("\n", 1)
        file = self._file(first[2:])
        header = re.escape(section.split("\n", 1)[0])
        text = file.read_text(encoding="utf-8")
        changed, times = re.subn(
            rf"^{header}\n(?:(?!\s*\[).+\n)*", lambda _: section, text, flags=re.MULTILINE
        )
        assert times == 1, f"{file.name} has {times} sections {header}"
        file.write_text(changed, encoding="utf-8")

    def _file(self, name: str) -> Path:
        return self.shell.directory / name


def cells(text: str) -> list[list[str]]:
    """Of a table as psql prints it: the names, then the rows."""
    lines = [line for line in text.splitlines() if line.strip() and not set(line) <= set("-+")]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def shown(rows: list[asyncpg.Record]) -> list[list[str]]:
    words = {None: "", True: "t", False: "f"}
    names = [list(rows[0].keys())] if rows else []
    values = [
        [words[v] if v is None or isinstance(v, bool) else str(v) for v in row.values()]
        for row in rows
    ]
    return [*names, *values]
