"""Messages on the wire: JSON in, JSON out, and nothing that is executed by reading it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from worker.inbox import PickledMessage, UnreadableMessage, deserialize, serialize

GOOD: dict[str, Any] = {"f": "get", "a": [], "k": {"id": "1"}, "t": None, "et": 1_700_000_000_000}


def test_a_message_comes_back_as_it_was_sent() -> None:
    assert deserialize(serialize(GOOD)) == GOOD


BAD: dict[str, bytes] = {
    "no JSON": b"hello",
    "no UTF-8": b"\xff\xfe",
    "an old pickle": pickle.dumps(GOOD, protocol=0),
    "no object": b"[1]",
    "a bottomless pit": b"[" * 200_000,
    "no function": serialize({**GOOD, "f": ["get"]}),
    "no arguments": serialize({**GOOD, "a": 7}),
    "no fields": serialize({**GOOD, "k": [1]}),
    "no time": serialize({**GOOD, "et": "now"}),
    "the end of time": serialize({**GOOD, "et": 10**30}),
    "no try": serialize({**GOOD, "t": "one"}),
    "nothing": b"",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_arq_would_trip_over_is_not_let_in(data: bytes) -> None:
    with pytest.raises(UnreadableMessage, match="job_serializer="):
        deserialize(data)


class Burglar:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    data = pickle.dumps({**GOOD, "k": {"row": Burglar(stolen)}})
    with pytest.raises(PickledMessage, match="job_serializer="):
        deserialize(data)
    assert not stolen.exists()
    pickle.loads(data)
    assert stolen.exists(), "it would have worked on whoever opens it"
