"""A seat before a terminal: a real pseudo-terminal, a real process in it, and the screen it draws.

seat = await Seat.take("watch", dsn=dsn, size=(80, 24))
await seat.shows("Lanes"); seat.press("p"); seat.line("replicate"); seat.resize(120, 40)
await seat.ended(); seat.leave()
"""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pyte

from tests.commandline import ROOT
from tests.process.fleet import WITHIN, until

ALTERNATE, MAIN = "\x1b[?1049h", "\x1b[?1049l"
KEYBOARD, KEYBOARD_BACK = "\x1b[>", "\x1b[<u"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"

_UNKNOWN = re.compile(r"\x1b\[[<>=][0-9;]*u|\x1b\[\?[0-9;]*\$p")
"""The keyboard protocol and questions for modes: pyte would print their last letters."""

KEYS = {
    "enter": "\r",
    "tab": "\t",
    "escape": "\x1b",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "ctrl+z": "\x1a",
}


class Seat:
    """One process with a terminal of its own as standard input, output and error."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, slave: int) -> None:
        self.process = process
        self.sent = ""
        """Everything it wrote to the terminal."""
        self._master, self._slave = master, slave
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self._screen)
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._rest = ""
        self.before: list[Any] = []

    @classmethod
    async def take(
        cls,
        *words: str,
        dsn: str,
        size: tuple[int, int] = (80, 24),
        program: tuple[str, ...] = ("-m", "worker.cli"),
        **environment: str,
    ) -> Self:
        """Run `rowmill words…` in a terminal of that size."""
        master, slave = pty.openpty()
        _set_size(slave, size)
        clean = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("ROWMILL_", "TEXTUAL", "NO_COLOR", "COLUMNS", "LINES"))
        }
        ours = {"ROWMILL_DATABASE_URL": dsn, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        before = termios.tcgetattr(slave)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, *words),
            env=clean | ours | environment,
            cwd="/",
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        seat = cls(process, master, slave)
        seat.before = before
        seat._screen.resize(lines=size[1], columns=size[0])
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, seat._read)
        return seat

    def _read(self) -> None:
        try:
            got = os.read(self._master, 65536)
        except (BlockingIOError, OSError):
            return
        text = self._decode(got)
        self.sent += text
        text = self._rest + text
        # A sequence may be cut in two.
        cut = text.rfind("\x1b", max(0, len(text) - 24))
        whole = cut < 0 or re.match(r"\x1b(\[[0-?]*[ -/]*[@-~]|[^\[])", text[cut:])
        self._rest = "" if whole else text[cut:]
        self._stream.feed(_UNKNOWN.sub("", text if whole else text[:cut]))

    # ------------------------------------------------------------------ looking

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def line(self, part: str) -> str:
        """The first line that holds it."""
        return next((line for line in self.lines if part in line), "")

    async def sees(self, look: Callable[[Self], Any], *, within: float = WITHIN) -> Any:
        """Wait until the screen is as `look` wants it."""

        async def looked() -> Any:
            if self.process.returncode is not None:
                raise AssertionError(
                    f"it ended with {self.process.returncode}:\n{self.sent[-3000:]}"
                )
            return look(self)

        try:
            return await until(looked, within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.text}") from None

    async def shows(self, *parts: str, within: float = WITHIN) -> None:
        await self.sees(lambda seat: all(part in seat.text for part in parts), within=within)

    @property
    def modes(self) -> list[Any]:
        """The terminal's attributes, without those of the hardware."""
        return termios.tcgetattr(self._slave)

    @property
    def restored(self) -> bool:
        """The attributes as before, the main screen, the cursor, the keyboard's own protocol."""
        at = {code: self.sent.rfind(code) for code in (ALTERNATE, MAIN, HIDE, SHOW)}
        kept = self.sent.count(KEYBOARD) == self.sent.count(KEYBOARD_BACK)
        return (
            kept
            and self.modes == self.before
            and at[MAIN] >= at[ALTERNATE]
            and at[SHOW] >= at[HIDE]
        )

    # ------------------------------------------------------------------ acting

    def press(self, *keys: str) -> None:
        """Names of keys, or text to type."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines=lines, columns=columns)
        _set_size(self._slave, (columns, lines))

    async def ended(self, *, within: float = WITHIN) -> int:
        async with asyncio.timeout(within):
            code = await self.process.wait()
        self._read()
        return code

    def hang_up(self) -> None:
        """The window is closed."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = -1

    async def leave(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        if self._master >= 0:
            self.hang_up()


def _own_terminal() -> None:
    """In the child: what is standard input becomes the terminal of its session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(terminal: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))


# --------------------------------------------------------------------------- kept screens


def kept(name: str, screen: str, directory: Path) -> str:
    """The kept screen of that name; with ROWMILL_TEST_KEEP=1 this one becomes it."""
    path = directory / f"{name}.txt"
    if os.environ.get("ROWMILL_TEST_KEEP"):
        path.write_text(screen + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").removesuffix("\n")
