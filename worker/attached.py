"""Which sources are attached to this database, and which of their lanes a worker can serve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import structlog

from jobs.registry import Registry
from worker.generate.words import mirrors_kind
from worker.maps import MapError, Platform, Source
from worker.store import SourceInfo, Store

log = structlog.get_logger()


class Attached:
    """Read at start and every few seconds: tables are attached, and kinds become possible."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        providers: Collection[str],
        only: Sequence[str],
        *,
        worker: Callable[[], int],
    ) -> None:
        self._store = store
        self._registry = registry
        self._providers = providers
        self._only = only
        self._worker = worker
        self._infos: dict[int, SourceInfo] = {}
        self._platforms: dict[str, Platform] = {}
        self.lanes: list[str] = []
        """What this worker serves."""

    @property
    def platforms(self) -> list[Platform]:
        return list(self._platforms.values())

    @property
    def sources(self) -> list[str]:
        return [info.name for info in self._infos.values()]

    def name_of(self, source: int) -> str | None:
        info = self._infos.get(source)
        return info.name if info else None

    def stoppable(self, source: str) -> bool:
        """Whether its platform has a rule that says which jobs must not run."""
        return any(p.rule(source, "stop") is not None for p in self._platforms.values())

    async def load(self) -> None:
        infos = await self._store.sources()
        self._platforms = self._understood(infos)
        known = [info for info in infos if self._source(info) is not None]
        self._infos = {info.id: info for info in known}
        lanes = sorted({lane for info in known for lane in self._served(info)})
        if self._only:
            lanes = [lane for lane in lanes if lane in self._only]
        if lanes != self.lanes:
            self.lanes = lanes
            await self._store.set_lanes(self._worker(), lanes)

    def _understood(self, infos: Sequence[SourceInfo]) -> dict[str, Platform]:
        """A map that only a newer version knows stops no worker: it goes on by the one it had."""
        platforms = {}
        for info in infos:
            try:
                platforms[info.platform] = Platform.from_definition(info.definition)
            except MapError as error:
                log.warning("platform.too_new", platform=info.platform, error=str(error))
                if known := self._platforms.get(info.platform):
                    platforms[info.platform] = known
        return platforms

    def _source(self, info: SourceInfo) -> Source | None:
        platform = self._platforms.get(info.platform)
        sources = platform.map.sources if platform else []
        return next((s for s in sources if s.name == info.name), None)

    def _served(self, info: SourceInfo) -> list[str]:
        source = self._source(info)
        possible = self._possible(source) if source else []
        return [lane for lane in possible if lane not in info.unserved]

    def _possible(self, source: Source) -> list[str]:
        if source.lane.constant is not None:
            return [source.lane.prefix + source.lane.constant]
        if mirrors_kind(source):
            return [n for n in self._registry.names() if n.startswith(source.kind.prefix)]
        return list(self._providers)
