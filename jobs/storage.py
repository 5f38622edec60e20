"""Where outputs live: S3, Google Cloud, Azure, a local disk or memory, all behind obstore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

PIECE = 1 << 20
PARTS_AT_ONCE = 2
"""Of a large file, 5 MiB each. obstore's own 12 would hold 60 MiB for every job."""


@dataclass(frozen=True, slots=True)
class Storage:
    store: ObjectStore
    base_url: str
    """What a key is appended to, to make the URL that readers get."""

    def url(self, key: str) -> str:
        return f"{self.base_url}/{quote(key)}"

    async def put(self, content: Path | bytes, key: str, mime_type: str) -> str:
        """Stream a file into storage and return its URL. Overwrites what is under the key."""
        # A local disk has nowhere to keep a content type, and obstore refuses to drop it silently.
        local = isinstance(self.store, LocalStore)
        attributes = None if local else {"Content-Type": mime_type}
        await obstore.put_async(
            self.store, key, content, attributes=attributes, max_concurrency=PARTS_AT_ONCE
        )
        return self.url(key)

    async def get(self, key: str) -> bytes:
        found = await obstore.get_async(self.store, key)
        return bytes(await found.bytes_async())

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Piece by piece, for files that memory shouldn't hold whole."""
        found = await obstore.get_async(self.store, key)
        async for piece in found.stream(min_chunk_size=PIECE):
            yield bytes(piece)

    def key_of(self, reference: str) -> str | None:
        """The key a reference names: the key itself, or one of our own URLs. None: neither.

        A row's text decides here what is read, so it must stay within our storage.
        """
        own = reference.startswith(f"{self.base_url}/")
        key = unquote(reference.removeprefix(f"{self.base_url}/")) if own else reference
        return key if is_key(key) else None

    async def delete(self, key: str) -> None:
        await obstore.delete_async(self.store, key)


def is_key(text: str) -> bool:
    """Whether it is a plain path below our storage: no URL, nothing absolute, no way up."""
    parts = text.split("/")
    controls = any(mark < " " or mark == "\x7f" for mark in text)  # obstore takes none of them
    plain = not controls and "\\" not in text and "://" not in text
    return plain and all(part not in ("", ".", "..") for part in parts)


def open_storage(url: str, public_base_url: str | None = None) -> Storage:
    """Open `file:///…`, `memory:///`, `s3://…`, `gs://…` or `az://…`.

    Credentials come from the environment, as each cloud's own tools read them. Without
    `public_base_url` (a CDN or a bucket's web address) readers get the storage's own URL.
    """
    local = url.startswith("file:")
    # Two calls: obstore takes `mkdir` for another cloud's unknown setting.
    store = LocalStore.from_url(url, mkdir=True) if local else from_url(url)
    return Storage(store, (public_base_url or url).rstrip("/"))
