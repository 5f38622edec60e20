"""A real SMTP server on loopback, that keeps what it is sent."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.policy import default as modern
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

SENDER = "EcomVideo <no-reply@shop.example>"


@dataclass
class Mailbox:
    """An SMTP server that keeps what it is sent, and refuses what it is told to."""

    refuse: dict[str, str] = field(default_factory=dict)
    """rcpt, sender or data → the answer."""
    got: list[Any] = field(default_factory=list)
    url: str = ""

    async def handle_MAIL(  # noqa: N802 - the server's name for it
        self, _s: SMTP, _se: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if "sender" in self.refuse:
            return self.refuse["sender"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _s: SMTP, _se: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if "rcpt" in self.refuse:
            return self.refuse["rcpt"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _s: SMTP, _se: Any, envelope: Envelope) -> str:  # noqa: N802
        if "data" in self.refuse:
            return self.refuse["data"]
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=modern)
        self.got.append((envelope.mail_from, envelope.rcpt_tos, message))
        return "250 kept"


def login(_s: Any, _se: Any, _e: Any, _mechanism: str, given: Any) -> AuthResult:
    return AuthResult(success=given == LoginPassword(b"ada@x", b"p:w/d"), handled=False)


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, authenticator=login, auth_require_tls=False, hostname="mx"), "127.0.0.1"
    )
    box.url = f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield box
    server.close()
    await server.wait_closed()
