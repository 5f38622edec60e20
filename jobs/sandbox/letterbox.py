"""A mail server that delivers nothing: it takes every letter, and shows them at `/mails`.

Of the demo extra (aiosmtpd): a sandbox without it takes no mail.
"""

from __future__ import annotations

import asyncio
import email
from email.policy import default as modern
from typing import Any

from aiohttp import web

KEPT = 1000


class Letterbox:
    def __init__(self) -> None:
        self.letters: list[dict[str, Any]] = []
        self.url: str | None = None
        self._server: asyncio.Server | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/mails", self._show)]

    async def open(self, host: str) -> None:
        try:
            from aiosmtpd.smtp import SMTP  # noqa: PLC0415 - of the demo extra
        except ImportError:
            return
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(self, hostname="sandbox", enable_SMTPUTF8=True), host, 0
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"smtp://{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """What aiosmtpd calls with a whole letter."""
        letter = email.message_from_bytes(envelope.content, policy=modern)
        self.letters.append(
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": str(letter["subject"] or ""),
                "message_id": str(letter["message-id"] or ""),
            }
        )
        del self.letters[:-KEPT]
        return "250 kept"

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response({"mails": self.letters})
