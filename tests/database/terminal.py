"""The real `rowmill` on a terminal: what it asks is read, what is typed is its answer."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import sys
import termios
import time
from asyncio.subprocess import Process
from dataclasses import dataclass

from tests.commandline import ROOT


@dataclass(slots=True)
class Terminal:
    process: Process
    descriptor: int
    shown: str = ""

    @classmethod
    async def open(cls, dsn: str, *arguments: str, **environment: str) -> Terminal:
        mine, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("ROWMILL_")}
        named = {"ROWMILL_DATABASE_URL": dsn, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker.cli", *arguments),
            env=clean | named | {"COLUMNS": "200"} | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        return cls(process, mine)

    async def until(self, text: str, within: float = 30.0) -> None:
        end = time.monotonic() + within
        while text not in self.shown:
            assert time.monotonic() < end, f"it never showed {text!r}: {self.shown}"
            if not await asyncio.to_thread(self._read, 0.5):
                assert text in self.shown, f"it ended without {text!r}: {self.shown}"

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    async def end(self) -> int:
        while await asyncio.to_thread(self._read, 30.0):
            pass
        os.close(self.descriptor)
        return await self.process.wait()

    def _read(self, within: float) -> bool:
        """False once nobody writes there any more."""
        if not select.select([self.descriptor], [], [], within)[0]:
            return True
        try:
            got = os.read(self.descriptor, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += got.decode(errors="replace").replace("\r\n", "\n")
        return bool(got)
