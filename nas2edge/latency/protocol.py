"""The measurement protocol, apart from any runtime: order, warm-up, repetition, drift guard, repair, resumption.

Every *item* (a block, a border, or a whole network) is visited in each of two sessions, each in an order of its own.
A visit is timed in slices of some hundredths of a second. Before and after each a reference block is timed: if that is
slower than its floor by more than the drift limit, the machine was disturbed, the slice does not count, and the next
one waits for the disturbance to pass. A block that stays in the cache says nothing of the memory, which other cores use
too; so around items that need much of it a copy from memory to memory is timed as well. Samples during which another
process had the core (their CPU time is short of the time that passed) are dropped. A visit that has too few others, or
too few slices that count, is made again. After the sessions, items whose quiet visits disagree are visited again. All
repetition is bounded; what stays disturbed is kept with a wider error.

A disturbance only ever adds time, so an item's latency comes from its two fastest quiet visits, and the median of a
visit from its fastest run where the two are further apart than usual: what is shorter than a slice slows some of the
samples and hides between two looks at the reference (`without_bursts`). The state of the memory is no disturbance that
passes: it is taken out first (`nas2edge.latency.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nas2edge.latency.guard import Floor, Guard, Look, Timed, warm_up
from nas2edge.latency.memory import power_of_memory
from nas2edge.plan import LayerSpec

Prepare = Callable[["Item"], Timed]
"""Builds an item for execution. One that is `Isolating` also samples it in a process of its own."""

MEMORY_MS, REFERENCE_MS = "memory_ms", "reference_ms"
"""Entries of a table's protocol: see `machine_state`."""

_SLICES = 5
_REWARM_S = 2e-3
_PATIENCE = 4.0  # times its budget that a visit goes on for slices that nothing disturbed
_MIN_REL_SIGMA = 0.005
_CALM = 0.1  # share of the visits that no burst disturbed, at least
_LEAST_VISITS = 20  # of a kind, from which their spread can be told


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thoroughly to measure.

    Args:
        time_per_row_s: Seconds of timed runs an item, over both sessions.
        sessions: Passes over all items.
        sample_s: Least duration of one timed sample; short items run many times within it.
        min_samples: Least number of samples in a visit.
        preempted_limit: Share of a sample that the core may work for others.
        warmup_s: Seconds of untimed runs before a visit, at least two runs.
        drift_limit: How much slower than its floor the reference may be.
        memory_limit: How much slower than its floor the copy in memory may be; by itself it varies by a third.
        spread_limit: How much an item's two fastest visits may differ.
        retries: Visits repeated at once after a disturbance.
        repairs: Further passes over the items that are disturbed or disagree.
        save_every: Visits between two saves.
    """

    time_per_row_s: float = 0.25
    sessions: int = 2
    sample_s: float = 2e-4
    min_samples: int = 5
    preempted_limit: float = 0.02
    warmup_s: float = 0.01
    drift_limit: float = 0.03
    memory_limit: float = 0.5
    spread_limit: float = 0.03
    retries: int = 1
    repairs: int = 3
    save_every: int = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to measure: consecutive layers under a name of its own.

    Args:
        id: Its name in partial files.
        layers: The layers; none for a border.
        share: Factor on the time spent on it.
        border: Of a border between blocks (`nas2edge.latency.borders`), side and channels of its map.
        streams: Whether it needs so much memory that neighbours on other cores matter.
        bordered: Whether thin convolutions enclose it; whole networks have none in any case.
    """

    id: str
    layers: tuple[LayerSpec, ...]
    share: float = 1.0
    border: tuple[int, int] | None = None
    streams: bool = False
    bordered: bool = True


@dataclass(frozen=True, slots=True)
class Samples:
    """What timing an item for a while gave.

    Args:
        runs: Runs in a sample.
        seconds: Of one run, by sample.
        alone: Those during which the core worked for nothing else.
    """

    runs: int
    seconds: tuple[float, ...]
    alone: tuple[float, ...]


Sample = Callable[[float], Samples]
"""Times an item for so many seconds; what it returns adds up to as much or a little more."""


@runtime_checkable
class Isolating(Protocol):
    """Builds items, and executes each in a process of its own, which stands still meanwhile between its turns."""

    def __call__(self, item: Item) -> Timed: ...

    def reference(self, item: Item) -> Look: ...

    def sampling(self, item: Item, *, options: Options) -> AbstractContextManager[Sample]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Statistics of one visit in milliseconds a run.

    Args:
        n: Runs that were timed.
        reference: The slowest of the reference's times around what was kept of it.
        alone: Whether no other process had the core during the samples.
        memory: The slower of the times of the copy in memory before and after; 0 if it was not timed.
        rounding: Error of p50 by the digits that a tool prints.
    """

    n: int
    min: float
    p10: float
    p50: float
    p90: float
    std: float
    reference: float
    alone: bool
    memory: float = 0.0
    rounding: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What the visits of one item come to, in milliseconds.

    Args:
        n: Runs that were timed.
        min: Fastest run; p10, p50 and p90 are quantiles of the runs, std their standard deviation.
        rel_sigma: Expected relative error of p50, from the difference of the two visits and the disturbance.
        quiet: Whether the references were at their floors during both visits.
        memory: The copy in memory at the time; 0 if it was not timed.
        reference: The reference block at the time.
    """

    n: int
    min: float
    p10: float
    p50: float
    p90: float
    std: float
    rel_sigma: float
    quiet: bool
    memory: float = 0.0
    reference: float = 0.0


Visits = dict[str, list[Visit]]


def measure(
    items: Sequence[Item],
    *,
    prepare: Prepare,
    guard: Guard,
    options: Options,
    rng: np.random.Generator,
    visits: Visits,
    save: Callable[[Visits], None],
    progress: Callable[[int, int], None],
    deadline: Callable[[], bool] = lambda: False,
) -> dict[str, Measurement]:
    """Measures all items; returns one measurement an item.

    Args:
        items: What to measure.
        prepare: Builds an item for execution.
        guard: The drift guard.
        options: How thoroughly.
        rng: Draws the order.
        visits: Visits of an interrupted measurement; they count, and new ones are appended.
        save: Called every so many visits with all of them.
        progress: Called after every visit of the sessions with (done, planned), and of the repairs likewise.
        deadline: Whether time is up. Then no further visit starts, and items without one are left out.
    """

    def visit_all(due: Sequence[Item]) -> None:
        _pass(due, prepare=prepare, guard=guard, options=options, rng=rng, visits=visits, save=save, progress=progress,
              deadline=deadline)  # fmt: skip

    for session in range(options.sessions):
        floor = guard.floor
        visit_all(
            [item for item in items if _count_quiet(visits.get(item.id, ()), floor=floor, options=options) <= session]
        )
    for _ in range(options.repairs):
        floor = guard.floor
        usual = as_undisturbed(items, visits)
        due = [item for item in items if _needs_repair(usual.get(item.id, ()), floor=floor, options=options)]
        if not due or deadline():
            break
        visit_all(due)
    save(visits)
    floor, usual = guard.floor, as_undisturbed(items, visits)
    return {item.id: summarise(usual[item.id], floor=floor, options=options) for item in items if visits.get(item.id)}


def summarise(visits: Sequence[Visit], *, floor: Floor, options: Options) -> Measurement:
    """Combines the visits of an item.

    Args:
        visits: The visits, one at least.
        floor: Of the references.
        options: What counts as quiet. If fewer than two visits are, the two fastest of all are taken.
    """
    chosen, quiet = _chosen(visits, floor=floor, options=options)
    medians = [visit.p50 for visit in chosen]
    p50 = float(np.median(medians))
    spread = float(np.std(medians, ddof=1)) / p50 if len(medians) > 1 else 0.0
    slower = max(max(visit.reference / floor.reference, visit.memory / floor.memory) for visit in chosen)
    drift = 0.0 if quiet else slower - 1.0
    return Measurement(
        n=sum(visit.n for visit in chosen),
        min=min(visit.min for visit in chosen),
        p10=float(np.median([visit.p10 for visit in chosen])),
        p50=p50,
        p90=float(np.median([visit.p90 for visit in chosen])),
        std=float(np.sqrt(np.mean([visit.std**2 for visit in chosen]))),
        rel_sigma=max(spread, drift, _MIN_REL_SIGMA, max(visit.rounding for visit in chosen) / p50),
        quiet=quiet,
        memory=float(np.median([visit.memory for visit in chosen])),
        reference=float(np.median([visit.reference for visit in chosen])),
    )


def as_undisturbed(items: Sequence[Item], visits: Visits) -> Visits:
    """Returns the visits of items as they would have been without bursts, in the usual state of the memory."""
    return in_usual_memory(items, without_bursts(items, visits))


def without_bursts(items: Sequence[Item], visits: Visits) -> Visits:
    """Returns the visits with the medians that they would have had if no burst had slowed some of their samples.

    A median is at most as far above the fastest run, relatively, as it is in the calmest tenth of the visits of its
    kind. Kinds with fewer than twenty visits stay as they are.

    Args:
        items: What was visited. Networks and single blocks, and of either those that stream, are of a kind.
        visits: Visits, by item.
    """
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for item in items:
        if item.id in visits:
            kinds.setdefault((len(item.layers) > 1, item.streams), []).append(item.id)
    found = dict(visits)
    for names in kinds.values():
        spreads = [visit.p50 / visit.min for name in names for visit in visits[name]]
        if len(spreads) >= _LEAST_VISITS:
            calm = float(np.quantile(spreads, _CALM))
            for name in names:
                found[name] = [_with_median(visit, min(visit.p50, visit.min * calm)) for visit in visits[name]]
    return found


def _with_median(visit: Visit, ms: float) -> Visit:
    return replace(visit, p50=ms, p10=min(visit.p10, ms))


def in_usual_memory(items: Sequence[Item], visits: Visits) -> Visits:
    """Returns the visits of items with the times that the median state of the memory would have given.

    Args:
        items: What was visited; blocks of a kind, and networks, have a power in common (`nas2edge.latency.memory`).
        visits: Visits, by item; those around which the copy was not timed stay as they are.
    """
    kinds: dict[str, list[str]] = {}
    for item in items:
        if item.streams and any(visit.memory for visit in visits.get(item.id, ())):
            kind = item.layers[0].op if len(item.layers) == 1 else "network"
            kinds.setdefault(kind, []).append(item.id)
    if not kinds:
        return visits
    timed = {name: [visit for visit in visits[name] if visit.memory] for names in kinds.values() for name in names}
    usual = float(np.median([visit.memory for entries in timed.values() for visit in entries]))
    found = dict(visits)
    for names in kinds.values():
        power = power_of_memory(
            [[visit.memory for visit in timed[name]] for name in names],
            [[visit.p50 for visit in timed[name]] for name in names],
        )
        for name in names:
            found[name] = [_scaled(visit, (usual / (visit.memory or usual)) ** power) for visit in visits[name]]
    return found


def _scaled(visit: Visit, factor: float) -> Visit:
    times = {name: getattr(visit, name) * factor for name in ("min", "p10", "p50", "p90", "std")}
    return replace(visit, **times)


def machine_state(found: Iterable[Measurement]) -> dict[str, float | None]:
    """Returns the machine's state as a table's protocol has it: medians of the copy in memory and of the reference.

    The copy is that around items that need much memory, the reference that of items during which the machine was quiet;
    None where there are none.
    """
    measured = list(found)
    return {
        MEMORY_MS: _median([each.memory for each in measured if each.memory]),
        REFERENCE_MS: _median([each.reference for each in measured if each.quiet]),
    }


def _median(times: Sequence[float]) -> float | None:
    return round(float(np.median(times)), 6) if times else None


def visits_from_dict(raw: Mapping[str, Any]) -> Visits:
    """Reads visits as a partial file holds them: by item, a list of `Visit.to_dict`."""
    return {name: [Visit(**visit) for visit in entries] for name, entries in raw.items()}


def _pass(
    items: Sequence[Item],
    *,
    prepare: Prepare,
    guard: Guard,
    options: Options,
    rng: np.random.Generator,
    visits: Visits,
    save: Callable[[Visits], None],
    progress: Callable[[int, int], None],
    deadline: Callable[[], bool],
) -> None:
    for done, index in enumerate(rng.permutation(len(items)).tolist(), start=1):
        if deadline():
            break
        item = items[index]
        sampling = _sampling(item, prepare=prepare, options=options)
        for _ in range(1 + options.retries):
            with sampling() as sample:
                visit = _visit(item, sample, guard=guard, options=options)
            visits.setdefault(item.id, []).append(visit)
            if _is_quiet(visit, floor=guard.floor, options=options):
                break
        if done % options.save_every == 0:
            save(visits)
        progress(done, len(items))


def _sampling(item: Item, *, prepare: Prepare, options: Options) -> Callable[[], AbstractContextManager[Sample]]:
    if isinstance(prepare, Isolating):
        return partial(prepare.sampling, item, options=options)
    timed = prepare(item)
    return lambda: nullcontext(make_sample(timed, options=options))


def _visit(item: Item, sample: Sample, *, guard: Guard, options: Options) -> Visit:
    memory = guard.check_memory() if item.streams else 0.0
    reference, slices = _take_slices(sample, options.time_per_row_s * item.share / options.sessions, guard, options)
    alone = [seconds for each in slices for seconds in each.alone]
    enough = len(alone) >= options.min_samples
    ms = np.array(alone if enough else [seconds for each in slices for seconds in each.seconds]) * 1e3
    p10, p50, p90 = _percentiles(ms)
    return Visit(
        n=slices[0].runs * len(ms),
        min=float(ms.min()),
        p10=p10,
        p50=p50,
        p90=p90,
        std=float(ms.std()),
        reference=reference,
        alone=enough,
        memory=max(memory, guard.check_memory()) if item.streams else 0.0,
    )


def _take_slices(sample: Sample, seconds: float, guard: Guard, options: Options) -> tuple[float, list[Samples]]:
    """Returns the slices that count, all of them if too few do, and the slowest reference around them."""
    limit = guard.floor.reference * (1.0 + options.drift_limit)
    taken: list[tuple[float, Samples]] = []
    first = before = guard.settle(limit)
    while True:
        samples = sample(seconds / _SLICES)
        after = guard.check()
        taken.append((max(before, after), samples))
        kept = [entry for entry in taken if entry[0] <= limit]
        enough = _spent(kept) >= seconds and sum(len(each.alone) for _, each in kept) >= options.min_samples
        most = max(_PATIENCE * seconds, 2 * options.min_samples * min(samples.seconds) * samples.runs)
        if enough or _spent(taken) >= most:
            guard.note(first)  # two a visit, however long it was disturbed
            guard.note(after)
            chosen = kept if enough else taken
            return max(slowest for slowest, _ in chosen), [each for _, each in chosen]
        before = after if after <= limit else guard.settle(limit)


def _spent(slices: Sequence[tuple[float, Samples]]) -> float:
    return sum(each.runs * sum(each.seconds) for _, each in slices)


def make_sample(timed: Timed, *, options: Options) -> Sample:
    """Warms an item up; returns what times it, after a few more runs that are not timed."""
    once = warm_up(timed, seconds=options.warmup_s)
    runs = max(1, math.ceil(options.sample_s / once))
    untimed = max(1, round(_REWARM_S / (runs * once)))

    def sample(seconds: float) -> Samples:
        for _ in range(untimed):
            timed(runs)
        samples: list[float] = []
        alone: list[float] = []
        spent = 0.0
        while spent < seconds:
            elapsed, worked = timed(runs)
            samples.append(elapsed / runs)
            if worked >= elapsed * (1.0 - options.preempted_limit):
                alone.append(elapsed / runs)
            spent += elapsed
        return Samples(runs, tuple(samples), tuple(alone))

    return sample


def _percentiles(ms: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    p10, p50, p90 = np.percentile(ms, [10, 50, 90]).tolist()
    return p10, p50, p90


def _is_quiet(visit: Visit, *, floor: Floor, options: Options) -> bool:
    calm = visit.reference <= floor.reference * (1.0 + options.drift_limit)
    return visit.alone and calm and visit.memory <= floor.memory * (1.0 + options.memory_limit)


def _count_quiet(visits: Sequence[Visit], *, floor: Floor, options: Options) -> int:
    return sum(_is_quiet(visit, floor=floor, options=options) for visit in visits)


def _chosen(visits: Sequence[Visit], *, floor: Floor, options: Options) -> tuple[list[Visit], bool]:
    quiet = [visit for visit in visits if _is_quiet(visit, floor=floor, options=options)]
    enough = len(quiet) >= 2
    return sorted(quiet if enough else visits, key=lambda visit: visit.p50)[:2], enough


def _needs_repair(visits: Sequence[Visit], *, floor: Floor, options: Options) -> bool:
    if not visits:
        return True
    chosen, quiet = _chosen(visits, floor=floor, options=options)
    return not quiet or chosen[1].p50 > chosen[0].p50 * (1.0 + options.spread_limit)
