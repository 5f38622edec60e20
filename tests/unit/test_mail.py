"""The operator's mail server: who logs in where, and what is never sent in the clear."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

from jobs.contract import Held, JobEnds, RetryLater
from jobs.mail import Mailer, MailServer, check_sender
from tests.unit.mailbox import SENDER, Mailbox, login, mailbox
from worker.redaction import without_secrets
from worker.settings import Settings

__all__ = ["mailbox"]


async def test_logging_in(mailbox: Mailbox) -> None:
    url = mailbox.url.replace("smtp://", "smtp://ada%40x:p%3Aw%2Fd@")
    await Mailer(MailServer.parse(url), SENDER).send(note(), ("a",))
    assert len(mailbox.got) == 1
    wrong = MailServer.parse(url.replace("p%3A", "no"))
    with pytest.raises(JobEnds) as ended:
        await Mailer(wrong, SENDER).send(note(), ("a",))
    assert isinstance(ended.value.outcome, Held)


async def test_no_password_is_sent_in_the_clear(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.mail._here", lambda _host: False)  # as if it were elsewhere
    server = MailServer.parse(mailbox.url.replace("smtp://", "smtp://ada%40x:p%3Aw%2Fd@"))
    with pytest.raises(JobEnds, match="offers no TLS"):
        await Mailer(server, SENDER).send(note(), ("a",))
    assert mailbox.got == []


CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mx -addext"
    " subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    subprocess.run(CERTIFICATE.split(), cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Mailbox]:
    """A server that offers STARTTLS, with a certificate for which nobody vouches yet."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, authenticator=login, tls_context=context, hostname="mx"), "127.0.0.1"
    )
    box.url = f"smtp://ada%40x:p%3Aw%2Fd@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield box
    server.close()


async def test_a_certificate_nobody_vouches_for_is_refused(
    secure: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STARTTLS, with a password that may not go elsewhere in the clear."""
    monkeypatch.setattr("jobs.mail._here", lambda _host: False)
    with pytest.raises(JobEnds, match=r"(?i)certificate"):
        await Mailer(MailServer.parse(secure.url), SENDER).send(note(), ("a",))
    assert secure.got == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await Mailer(MailServer.parse(secure.url), SENDER).send(note(), ("a",))
    assert len(secure.got) == 1


async def test_tls_from_the_first_byte_with_a_server_that_has_none(mailbox: Mailbox) -> None:
    server = MailServer.parse(mailbox.url.replace("smtp://", "smtps://"))
    with pytest.raises(JobEnds) as ended:
        await Mailer(server, SENDER).send(note(), ("a",))
    assert isinstance(ended.value.outcome, RetryLater)


def note() -> EmailMessage:
    message = EmailMessage()
    message["To"], message["Subject"] = "ada@example.org", "Hello"
    message.set_content("Hello")
    return message


# --------------------------------------------------------------------------- settings


def test_reading_a_servers_address() -> None:
    assert MailServer.parse("smtps://u%40x:p%2F@mx.example") == MailServer(
        "mx.example", 465, tls=True, user="u@x", password="p/"
    )
    assert MailServer.parse("smtp://mx.example") == MailServer("mx.example", 587, tls=False)


@pytest.mark.parametrize(
    "url",
    ["mx", "http://mx", "smtp://", "smtp://mx/secret", "smtp://u@mx", "smtp://u:secret@mx:x"],
)
def test_what_is_no_address_says_so_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match=r"give|port") as said:
        MailServer.parse(url)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize("text", ["", "Shop", "a@", "Shop <a@b.c>\r\nBcc: e@x"])
def test_what_is_no_sender_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        check_sender(text)


def test_the_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWMILL_SMTP_URL", "smtp://ada:hunter2@mx.example")
    settings = Settings()
    assert settings.mail_server is not None
    assert settings.mail_server.password == "hunter2"
    shown = repr(settings) + str(settings.model_dump()) + repr(settings.mail_server)
    assert "hunter2" not in shown
    assert "hunter2" not in without_secrets("smtp://ada:hunter2@mx.example")
