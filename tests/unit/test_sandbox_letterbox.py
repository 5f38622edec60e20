"""The sandbox's letterbox, with the mailer that workers use."""

from __future__ import annotations

from email.message import EmailMessage

import httpx

from jobs.mail import Mailer, MailServer
from jobs.sandbox.server import Sandbox


async def test_what_a_worker_sends_is_shown() -> None:
    async with Sandbox() as sandbox:
        assert sandbox.letterbox.url is not None
        message = EmailMessage()
        message["To"], message["Subject"] = "ada@example.com", "Ready: lamp at dusk"
        message.set_content("Your video is ready.")
        mailer = Mailer(MailServer.parse(sandbox.letterbox.url), "Shop <shop@example.com>")
        await mailer.send(message, ("video_jobs", "1", "1"))
        async with httpx.AsyncClient() as client:
            told = (await client.get(f"{sandbox.url}/mails")).json()
    (mail,) = told["mails"]
    assert (mail["from"], mail["to"]) == ("shop@example.com", ["ada@example.com"])
    assert mail["subject"] == "Ready: lamp at dusk"
    assert mail["message_id"]
