"""From what a provider brought to a file of ours: download, look, store. And back again.

    keep(RemoteFile | bytes) ──> temp file (capped, hashed) ──> inspect ──> storage ──> Output, …
    keep_file(path) ──────────────────────────────────────────> inspect ──> storage ──> Output
    borrow(key | URL) ─────────> temp file (capped)

Keys are derived from the submission, so the same work done twice overwrites itself and nothing
else. Nothing is retried here; the runner does that, and reads the failure's kind to know whether
it may help.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import httpx
from obstore.exceptions import BaseError as StorageError
from obstore.exceptions import NotFoundError

from jobs.contract import Failure, FailureKind, Output
from jobs.network import HostPolicy, HostRefused, decoded, fetch
from jobs.probe import Media, Unreadable, inspect
from jobs.storage import Storage

MAX_BYTES = 2 * 1024**3
GONE = (404, 410)
STORAGE = "storage"
"""The code of a failure of our own storage."""
MAX_NAME = 200
WEB = ("http://", "https://")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Some providers ask for their key on downloads too. Dropped on a redirect elsewhere."""


class OutputError(Exception):
    def __init__(self, kind: FailureKind, message: str, code: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message, code)


class OutputStore:
    def __init__(
        self,
        storage: Storage,
        client: httpx.AsyncClient,
        policy: HostPolicy,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._storage = storage
        self._client = client
        self._policy = policy
        self._max_bytes = max_bytes

    async def keep(
        self,
        item: RemoteFile | bytes,
        *,
        key_prefix: str,
        index: int = 0,
        expected: str | None = None,
        filename_hint: str = "",
    ) -> tuple[Output, ...]:
        """Store a file and, of a picture or a video, its thumbnail. Raises `OutputError`."""
        with _storing(), _folder() as folder:
            file, thumbnail = Path(folder, "file"), Path(folder, "thumbnail.jpg")
            size, sha256 = await self._bring(item, file)
            media = await _inspect(file, thumbnail, expected)
            stem = _stem(filename_hint, item, index)
            key = f"{key_prefix}/{index}.{media.extension}"
            main = await self._main(file, key, stem=stem, media=media, size=size, sha256=sha256)
            if media.thumbnail is None:
                return (main,)
            key = f"{key_prefix}/{index}-thumbnail.jpg"
            return main, await self._thumbnail(thumbnail, key, stem, media.thumbnail)

    async def keep_file(self, file: Path, key: str) -> Output:
        """Store a file of our own making. Raises `OutputError`."""
        with _storing(), _folder() as folder:
            media = await _inspect(file, Path(folder, "thumbnail.jpg"), None)
            size, sha256 = await asyncio.to_thread(_measure, file)
            stem = PurePosixPath(key).stem
            return await self._main(file, key, stem=stem, media=media, size=size, sha256=sha256)

    @asynccontextmanager
    async def borrow(self, reference: str) -> AsyncIterator[Path]:
        """A copy of a file of ours, or of anyone's by URL. Raises `OutputError`."""
        with _folder() as folder:
            file = Path(folder, "file")
            key = self._storage.key_of(reference)
            if key is not None:
                await self._copy(key, file)
            elif reference.startswith(WEB):
                await self._bring(RemoteFile(reference), file)
            else:
                message = f"{reference!r} is neither a key of our storage nor an http(s) URL"
                raise OutputError(FailureKind.INVALID, message, "reference")
            yield file

    def link(self, reference: str) -> str | None:
        key = self._storage.key_of(reference)
        if key is not None:
            return self._storage.url(key)
        return reference if reference.startswith(WEB) else None

    async def _copy(self, key: str, file: Path) -> None:
        with _storing():
            try:
                await _write(self._storage.stream(key), file, self._max_bytes)
            except (NotFoundError, FileNotFoundError) as error:
                message = f"there is no {key!r} in the storage"
                raise OutputError(FailureKind.GONE, message, "no_file") from error

    async def save(self, key: str, content: bytes) -> None:
        """Put it away as it is. Raises `OutputError`."""
        with _storing():
            await self._storage.put(content, key, "application/octet-stream")

    async def load(self, key: str) -> bytes:
        """Raises `OutputError`."""
        with _storing():
            return await self._storage.get(key)

    async def drop(self, key: str) -> None:
        """If that fails, a file stays that nothing refers to."""
        with suppress(StorageError, OSError):
            await self._storage.delete(key)

    async def _bring(self, item: RemoteFile | bytes, file: Path) -> tuple[int, str]:
        if isinstance(item, bytes):
            return await _write(_once(item), file, self._max_bytes)
        try:
            async with fetch(self._client, self._policy, item.url, _plain(item)) as response:
                _check_response(response, self._max_bytes)
                return await _write(decoded(response), file, self._max_bytes)
        except HostRefused as error:
            raise OutputError(FailureKind.INVALID, str(error), "host_refused") from error
        except httpx.DecodingError as error:
            raise OutputError(FailureKind.TRANSIENT, f"the output: {error}", "encoding") from error
        except httpx.HTTPError as error:
            message = f"downloading the file failed: {str(error) or type(error).__name__}"
            raise OutputError(FailureKind.TRANSIENT, message, "download") from error

    async def _main(
        self, file: Path, key: str, *, stem: str, media: Media, size: int, sha256: str
    ) -> Output:
        return Output(
            role="main",
            key=key,
            url=await self._storage.put(file, key, media.mime_type),
            mime_type=media.mime_type,
            file_type=media.file_type,
            size=size,
            sha256=sha256,
            filename=f"{stem}.{media.extension}",
            width=media.width,
            height=media.height,
            duration_seconds=media.duration_seconds,
            codec=media.codec,
            frame_rate=media.frame_rate,
            bit_rate=media.bit_rate,
        )

    async def _thumbnail(self, file: Path, key: str, stem: str, size: tuple[int, int]) -> Output:
        content = file.read_bytes()
        return Output(
            role="thumbnail",
            key=key,
            url=await self._storage.put(file, key, "image/jpeg"),
            mime_type="image/jpeg",
            file_type="image",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            filename=f"{stem}-thumbnail.jpg",
            width=size[0],
            height=size[1],
        )


def key_for(source: str, row_key: str, name: str) -> str:
    """Where what a job makes itself is kept. Any text may be a row's key; few make a good path."""
    if not PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain file name")
    plain = PLAIN_NAME.fullmatch(row_key) is not None
    folder = row_key if plain else hashlib.sha256(row_key.encode()).hexdigest()
    return f"{source}/{folder}/{name}"


def _folder() -> tempfile.TemporaryDirectory[str]:
    """A thread of a job that is cancelled may still write into it, which must not be an error."""
    return tempfile.TemporaryDirectory(prefix="rowmill-", ignore_cleanup_errors=True)


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except (StorageError, OSError) as error:
        raise OutputError(
            FailureKind.TRANSIENT, f"storing the output failed: {_first_line(error)}", STORAGE
        ) from error


# --------------------------------------------------------------------------- download


def _plain(item: RemoteFile) -> dict[str, str]:
    """Ask for the bytes as they are: media doesn't compress."""
    return {"Accept-Encoding": "identity", **item.headers}


def _check_response(response: httpx.Response, max_bytes: int) -> None:
    status = response.status_code
    if status in GONE:
        raise OutputError(FailureKind.GONE, f"the file is gone ({status})", f"http_{status}")
    if status != httpx.codes.OK:
        raise OutputError(
            FailureKind.TRANSIENT, f"downloading the file answered {status}", f"http_{status}"
        )
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)


async def _write(chunks: AsyncIterator[bytes], file: Path, max_bytes: int) -> tuple[int, str]:
    """Write and hash as it comes. On the loop: a chunk costs less than handing it to a thread."""
    size, digest = 0, hashlib.sha256()
    with file.open("wb") as out:
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise _too_large(max_bytes)
            digest.update(chunk)
            out.write(chunk)
    if size == 0:
        raise OutputError(FailureKind.INVALID, "the file is empty", "empty")
    return size, digest.hexdigest()


def _measure(file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        return file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _too_large(max_bytes: int) -> OutputError:
    return OutputError(
        FailureKind.INVALID, f"the file is larger than {max_bytes:,} bytes", "too_large"
    )


# --------------------------------------------------------------------------- look


async def _inspect(file: Path, thumbnail: Path, expected: str | None) -> Media:
    try:
        media = await asyncio.to_thread(inspect, file, thumbnail)
    except (Unreadable, MemoryError) as error:  # in this process, only absurd files ask for that
        reason = str(error) or "it needs too much memory"
        raise OutputError(FailureKind.INVALID, f"the file: {reason}", "unreadable") from error
    if expected and media.file_type != expected:
        message = f"the file is {media.mime_type}, expected a file of type {expected}"
        raise OutputError(FailureKind.INVALID, message, "wrong_type")
    return media


def _stem(hint: str, item: RemoteFile | bytes, index: int) -> str:
    """A file name people recognise, without its extension (the true one is added)."""
    path = "" if isinstance(item, bytes) else urlsplit(item.url).path
    name = PurePosixPath(hint or unquote(path)).stem
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:MAX_NAME] or f"output-{index}"


def _first_line(error: Exception) -> str:
    """Without the page of debug output that obstore appends."""
    return (str(error) or type(error).__name__).split("\n", 1)[0]
