"""All columns but status and priority: what each is likely for, by its name and type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from worker.guessing import vocabulary as known
from worker.guessing.proposal import Guess, Section
from worker.guessing.states import told
from worker.guessing.table import Column, Table
from worker.guessing.vocabulary import bare

GROUPS = ("start", "progress", "success", "retry", "failure", "cancel", "requeue")
ENDS = ("success", "failure", "cancel")
Test = Callable[[Column], bool]


def find(table: Table, names: Iterable[str], test: Test) -> Column | None:
    """The column with the likeliest of these names, if its type can be right."""
    usable = [c for c in table.columns if c.usable and not c.generated and test(c)]
    for name in names:
        for column in usable:
            if bare(column.name) == name:
                return column
    return None


def _moment(column: Column) -> bool:
    return column.moment


def _integer(column: Column) -> bool:
    return column.integer


# --------------------------------------------------------------------------- what it is, whose


def kind_and_lane(table: Table, name: str, kinds: Sequence[str]) -> list[Guess]:
    """`kinds` are those a handler is known for."""
    column = find(table, known.KIND, lambda c: c.wordy)
    if column is None:
        own = f"background:{name}"
        why = "no column tells kinds of work apart; the handler is @kind"
        return [
            Guess("kind", {"constant": own}, "likely", f'{why}("{own}")'),
            Guess("lane", {"constant": own}, "likely", "", _lanes(table)),
        ]
    words = list(dict.fromkeys([*column.words, *([column.default] if column.default else [])]))
    media = any(f"media:{word}" in kinds for word in words)
    prefix = "media:" if media else "background:"
    value = {"column": column.name, "prefix": prefix}
    seen = f"kinds: {told([prefix + word for word in words])}" if words else "no kind was seen yet"
    if column.default and not column.required:
        value["default"] = column.default
    provider = find(table, known.LANE, lambda c: c.wordy)
    if media and provider is not None:
        lane = Guess("lane", {"column": provider.name}, "likely", "who is paid for it")
    else:
        lane = Guess("lane", value, "likely", "a lane per kind of work", _lanes(table))
    return [Guess("kind", value, "likely", seen), lane]


def _lanes(table: Table) -> tuple[str, ...]:
    provider = find(table, known.LANE, lambda c: c.wordy)
    if provider is None:
        return ()
    return (f'lane = {{ column = "{provider.name}" }}   # if it names the provider of all work',)


def tenant(table: Table) -> Guess:
    column = find(table, known.TENANT, lambda c: not c.moment and c.type != "boolean")
    if column is not None:
        return Guess("tenant", {"column": column.name}, "likely", "whose job it is")
    for column in table.columns:
        if column.usable and column.parent and _last(column.parent[0]) in known.TENANT_TABLES:
            why = f"leads to {column.parent[0]}"
            return Guess("tenant", {"column": column.name}, "likely", why)
    return Guess(
        "tenant",
        None,
        "unsure",
        "optional: no column tells whose job it is",
        ('tenant = { column = "…" }',),
    )


def _last(table: str) -> str:
    return bare(table.rsplit(".", 1)[-1])


# --------------------------------------------------------------------------- when, how often


def schedule(table: Table) -> Guess:
    column = find(table, known.SCHEDULE, _moment)
    if column is not None:
        return Guess("schedule", column.name, "likely", "not before this time")
    maybe = find(table, known.MAYBE_SCHEDULE, _moment)
    line = f'schedule = "{maybe.name if maybe else "…"}"'
    why = "optional: a column with the time before which a job must not run"
    return Guess("schedule", None, "unsure", why, (line,))


def tries(table: Table) -> tuple[Section | None, Guess | None]:
    """A section, or the one line that stands in for it."""
    for counts, names, limits in (
        ("retries", known.RETRIES, (*known.MAX_RETRIES, *known.MAX_ATTEMPTS)),
        ("attempts", known.ATTEMPTS, (*known.MAX_ATTEMPTS, *known.MAX_RETRIES)),
    ):
        column, most = find(table, names, _integer), find(table, limits, _integer)
        if column is None:
            continue
        if most is None:
            why = f"{column.name} has no column for the most there may be, so it isn't kept up"
            return None, Guess("max_retries", 3, "likely", why)
        return Section("tries", tuple(_tries(column, counts, most))), None
    return None, Guess("max_retries", 3, "likely", "for all rows: no columns count them")


def _tries(column: Column, counts: str, most: Column) -> Iterable[Guess]:
    of_attempts = bare(most.name) in known.MAX_ATTEMPTS
    fits = of_attempts == (counts == "attempts")
    yield Guess("column", column.name, "likely")
    yield Guess(
        "counts",
        counts,
        "likely" if fits else "unsure",
        '"retries", or "attempts" where the first one counts, too',
    )
    yield Guess("max", most.name, "likely")
    if most.default and most.default.isdigit():
        retries = int(most.default) - (1 if counts == "attempts" else 0)
        yield Guess("default_max", max(0, retries), "likely", "retries, where it is NULL")


# --------------------------------------------------------------------------- what is written


class Sets:
    """Collects `[sources.set.*]`: per group, column = field."""

    def __init__(self, table: Table, taken: Iterable[str]) -> None:
        self.table = table
        self.taken = set(taken)
        self.groups: dict[str, list[Guess]] = {group: [] for group in GROUPS}

    def find(self, names: Iterable[str], test: Test) -> Column | None:
        column = find(self.table, names, lambda c: test(c) and c.name not in self.taken)
        if column is not None:
            self.taken.add(column.name)
        return column

    def put(self, column: Column | None, field: str, *groups: str, why: str = "") -> None:
        for group in groups if column else ():
            assert column is not None
            self.groups[group].append(Guess(column.name, field, "likely", why))

    def maybe(self, column: Column | None, field: str, group: str, why: str) -> None:
        """A line to uncomment."""
        if column is not None:
            line = f'{column.name} = "{field}"'
            self.groups[group].append(Guess(column.name, None, "unsure", why, (line,)))

    def clear(self, column: Column | None, *groups: str) -> None:
        if column is not None and not column.required:
            self.put(column, "null", *groups)

    def sections(self) -> list[Section]:
        return [Section(f"set.{group}", tuple(g)) for group, g in self.groups.items() if g]


def sets(table: Table, taken: Iterable[str]) -> list[Section]:
    found = Sets(table, taken)
    _times(found)
    _course(found)
    _results(found)
    _costs(found)
    return found.sections()


def _times(found: Sets) -> None:
    started = found.find(known.STARTED, _moment)
    found.put(started, "first_now", "start")
    succeeded = found.find(known.SUCCEEDED, _moment)
    found.put(succeeded, "now", "success")
    failed, cancelled = found.find(known.FAILED, _moment), found.find(known.CANCELLED, _moment)
    found.put(failed, "now", "failure")
    found.put(cancelled, "now", "cancel")
    ended = found.find(known.ENDED, _moment)
    found.put(ended, "now", *ENDS)
    for column in (started, succeeded, failed, cancelled, ended):
        found.clear(column, "requeue")
    updated = found.find(known.UPDATED, _moment)
    found.put(updated, "now", *(group for group in GROUPS if group != "progress"))


def _course(found: Sets) -> None:
    error = found.find(known.ERROR, lambda c: c.text)
    found.put(error, "error", "retry", "failure", "cancel", why="clipped to the column")
    found.clear(error, "success", "requeue")
    progress = found.find(known.PROGRESS, lambda c: c.number and (c.high or 100) >= 100)
    found.put(progress, "progress", "progress", why="0 to 100")
    found.put(progress, "full", "success")
    found.put(progress, "zero", "requeue")
    external = found.find(known.EXTERNAL, lambda c: c.text)
    found.put(external, "external_id", "progress", "success", why="the provider's own id")


def _results(found: Sets) -> None:
    url = found.find(known.URL, lambda c: c.text)
    if url is not None and bare(url.name) not in known.SURE_URL:
        found.maybe(url, "url", "success", "if it is the result, not the input")
    else:
        found.put(url, "url", "success")
    found.put(found.find(known.THUMBNAIL, lambda c: c.text), "thumbnail_url", "success")
    found.put(found.find(known.TEXT, lambda c: c.text), "text", "success")
    found.put(found.find(known.METADATA, lambda c: c.type == "jsonb"), "metadata", "success")
    data = found.find(known.DATA, lambda c: c.type == "jsonb")
    why = (
        "what a handler returns as `data` is written by a finish.sql; this is what a provider told"
    )
    found.maybe(data, "metadata", "success", why)
    media = found.find(known.MEDIA, lambda c: c.type == "uuid")
    found.maybe(media, "media_id", "success", "with an output.sql that inserts the file's row")


def _costs(found: Sets) -> None:
    found.put(found.find(known.TOKENS, _integer), "tokens", "success")
    cents = found.find(known.CENTS, lambda c: c.number)
    found.put(cents, "cost_cents", "success", "failure", why="what providers took, in cents")
    dollars = found.find(known.DOLLARS, lambda c: c.type == "numeric")
    found.put(dollars, "cost_usd", "success", "failure", why="what providers took, in dollars")
    found.put(found.find(known.MILLISECONDS, _integer), "duration_ms", "success")
    found.put(found.find(known.SECONDS, lambda c: c.number), "duration_seconds", "success")
    seconds = found.find(known.MAYBE_SECONDS, lambda c: c.number)
    found.maybe(seconds, "duration_seconds", "success", "if it is how long the job took")
    found.put(found.find(known.MODEL_USED, lambda c: c.text), "model", "success")
    found.put(found.find(known.PROVIDER_USED, lambda c: c.text), "provider", "success")
