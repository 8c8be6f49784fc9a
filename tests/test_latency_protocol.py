import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from nas2edge import unique_layers
from nas2edge.latency.guard import Floor, Guard, make_look
from nas2edge.latency.protocol import (
    MEMORY_MS,
    REFERENCE_MS,
    Item,
    Options,
    Visit,
    Visits,
    in_usual_memory,
    machine_state,
    measure,
    summarise,
    without_bursts,
)
from tests.latency_fakes import FakeMachine, layer_ms
from tests.search_spaces import small_space

LAYERS = unique_layers(small_space())[:6]
ITEMS = [Item(id=layer.key, layers=(layer,)) for layer in LAYERS]
QUICK = Options(time_per_row_s=0.002, warmup_s=1e-4)
VISIT = Visit(n=10, min=0.9, p10=0.95, p50=1.0, p90=1.1, std=0.05, reference=2.0, alone=True)


@dataclass
class Reference:
    """A reference block that is slow while `busy` is set, or for so many seconds of its own."""

    busy: bool = False
    left: float = 0.0
    spent: float = 0.0

    def busy_for(self, seconds):
        self.left, self.spent = seconds, 0.0

    def __call__(self, n):
        seconds = n * 1e-4 * (1.5 if self.busy or self.spent < self.left else 1.0)
        self.spent += seconds
        return seconds, seconds


@dataclass
class Disturbed:
    """A machine on which others work during certain builds: all runs and the reference are slower by half."""

    during: frozenset[int]
    reference: Reference = field(default_factory=Reference)
    machine: FakeMachine = field(default_factory=lambda: FakeMachine(session_ms=0.0, border_ms=0.0))

    def prepare(self, item):
        busy = len(self.machine.built) in self.during
        self.reference.busy = busy
        timed = self.machine.prepare(item)
        return (lambda n: tuple(1.5 * seconds for seconds in timed(n))) if busy else timed


def run(device, *, reference=None, visits=None, options=QUICK, save=lambda visits: None):
    return measure(ITEMS, prepare=device.prepare, guard=Guard(make_look(reference or Reference())), options=options,
                   rng=np.random.default_rng(0), visits={} if visits is None else visits, save=save,
                   progress=lambda done, planned: None)  # fmt: skip


def test_every_item_is_visited_in_two_sessions_of_different_order():
    machine = FakeMachine(session_ms=0.0, border_ms=0.0)

    found = run(machine)

    first, second = [item.id for item in machine.built[:6]], [item.id for item in machine.built[6:]]
    assert len(machine.built) == 12
    assert set(first) == set(second) and first != second
    assert {key: result.p50 for key, result in found.items()} == pytest.approx(
        {layer.key: layer_ms(layer) for layer in LAYERS}
    )
    assert all(result.quiet for result in found.values())


def test_short_items_run_many_times_within_a_sample():
    calls = []

    def timed(n):
        calls.append(n)
        return n * 1.5e-6, n * 1.5e-6

    measure(ITEMS[:1], prepare=lambda item: timed, guard=Guard(make_look(Reference())), options=QUICK,
            rng=np.random.default_rng(0), visits={}, save=lambda visits: None,
            progress=lambda done, planned: None)  # fmt: skip

    assert max(calls) == 134  # of 1.5 us, for 200 us


def test_disturbed_items_are_measured_again():
    device = Disturbed(during=frozenset({2, 3, 8}))

    found = run(device, reference=device.reference)

    assert len(device.machine.built) > 12
    assert all(result.quiet for result in found.values())
    assert {key: result.p50 for key, result in found.items()} == pytest.approx(
        {layer.key: layer_ms(layer) for layer in LAYERS}
    )


def test_repetition_is_bounded_and_lasting_disturbance_widens_the_error():
    device = Disturbed(during=frozenset(range(1000)))
    visits: Visits = {}

    found = run(device, reference=device.reference, visits=visits)

    # two sessions and three repairs, two visits each at most
    assert all(len(entries) == 10 for entries in visits.values())
    assert not any(result.quiet for result in found.values())
    assert all(result.rel_sigma == pytest.approx(0.5) for result in found.values())


def test_samples_that_shared_the_core_are_dropped():
    calls = iter(range(10**6))

    def timed(n):
        preempted = next(calls) % 3 == 0
        return (n * 3e-4, n * 1e-4) if preempted else (n * 1e-4, n * 1e-4)

    found = measure(ITEMS[:1], prepare=lambda item: timed, guard=Guard(make_look(Reference())), options=QUICK,
                    rng=np.random.default_rng(0), visits={}, save=lambda visits: None,
                    progress=lambda done, planned: None)  # fmt: skip

    (result,) = found.values()
    assert result.quiet
    assert (result.min, result.p90) == pytest.approx((0.1, 0.1))


def test_items_that_never_have_the_core_alone_count_as_disturbed():
    found = measure(ITEMS[:1], prepare=lambda item: lambda n: (n * 2e-4, n * 1e-4), guard=Guard(make_look(Reference())),
                    options=QUICK, rng=np.random.default_rng(0), visits={}, save=lambda visits: None,
                    progress=lambda done, planned: None)  # fmt: skip

    assert not next(iter(found.values())).quiet


def test_interrupted_measurements_go_on_where_they_stopped():
    saved = {}

    def interrupt(visits):
        saved.update(visits)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FakeMachine(), options=replace(QUICK, save_every=4), save=interrupt)
    machine = FakeMachine()
    found = run(machine, visits=saved)

    assert len(machine.built) == 12 - 4
    assert set(found) == {item.id for item in ITEMS}


def test_two_fastest_quiet_visits_count():
    visits = [VISIT, replace(VISIT, p50=1.04), replace(VISIT, p50=1.09), replace(VISIT, p50=0.96, reference=3.0)]

    result = summarise(visits, floor=Floor(2.0), options=QUICK)

    assert result.quiet
    assert result.p50 == pytest.approx(1.02)
    assert result.rel_sigma == pytest.approx(0.04 / 1.02 / 2**0.5)
    assert result.n == 20


def test_bursts_within_a_visit_do_not_count():
    """Of thirty blocks, half lie 1 % above their fastest run, one less; bursts hit the others, by up to 30 %."""
    blocks = [Item(id=f"block {i}", layers=ITEMS[0].layers) for i in range(30)]
    medians = [1.002] + [1.01] * 14 + np.linspace(1.011, 1.3, 15).tolist()
    before = {
        item.id: [replace(VISIT, min=1.0, p10=(1.0 + p50) / 2, p50=p50, p90=1.5)]
        for item, p50 in zip(blocks, medians, strict=True)
    }

    found = without_bursts(blocks, before)

    assert [visit.p50 for (visit,) in found.values()] == pytest.approx([1.002] + [1.01] * 29)
    assert [visit.p10 for (visit,) in found.values()] == pytest.approx(
        [min((1.0 + p50) / 2, 1.01) for p50 in medians]
    )  # still in order
    for name, (visit,) in found.items():
        (was,) = before[name]
        assert replace(visit, p10=was.p10, p50=was.p50) == was


def test_each_kind_tells_how_calm_its_visits_can_be():
    layers = ITEMS[0].layers
    kinds = {
        1.01: Item(id="", layers=layers),
        1.02: Item(id="", layers=layers, streams=True),
        1.03: Item(id="", layers=layers * 2),
        1.04: Item(id="", layers=layers * 2, streams=True),
    }
    items = [replace(item, id=f"{calm} {i}") for calm, item in kinds.items() for i in range(20)]
    visits = {item.id: [replace(VISIT, min=1.0, p10=1.0, p50=2.0, p90=3.0)] for item in items}
    visits |= {f"{calm} {i}": [replace(VISIT, min=1.0, p10=1.0, p50=calm, p90=3.0)] for calm in kinds for i in range(5)}

    found = without_bursts(items, visits)

    assert {name: visit.p50 for name, (visit,) in found.items()} == pytest.approx(
        {item.id: float(item.id.split()[0]) for item in items}
    )
    assert without_bursts(items[:19], visits) == visits  # of a kind with fewer visits nothing is known


def test_a_machine_full_of_bursts_is_measured_as_if_it_were_calm():
    """Three of five samples take 30 % longer in all visits but every fifth; the reference sees none of it."""
    visited = []

    def prepare(item):
        visited.append(item.id)
        calm, calls = len(visited) % 5 == 0, iter(range(10**6))
        ms = 1.0 + ITEMS.index(item)

        def timed(n):
            seconds = n * ms * 1e-3 * (1.0 if calm or next(calls) % 5 < 2 else 1.3)
            return seconds, seconds

        return timed

    found = measure(ITEMS, prepare=prepare, guard=Guard(make_look(Reference())),
                    options=Options(time_per_row_s=0.5, sessions=5), rng=np.random.default_rng(0), visits={},
                    save=lambda visits: None, progress=lambda done, planned: None)  # fmt: skip

    assert {name: result.p50 for name, result in found.items()} == pytest.approx(
        {item.id: 1.0 + i for i, item in enumerate(ITEMS)}
    )


def test_the_state_of_the_memory_is_taken_out_of_what_streams():
    """Networks here take 4 ms times the square root of the copy's time; a heavy block, twice the copy's time."""
    rng = np.random.default_rng(0)
    nets = [Item(id=f"net {i}", layers=ITEMS[0].layers * 2, streams=True) for i in range(15)]
    block = Item(id="block", layers=ITEMS[0].layers, streams=True)
    small = Item(id="small", layers=ITEMS[0].layers)

    def visit(ms, copy):
        return replace(VISIT, min=ms, p10=ms, p50=ms, p90=ms, std=0.0, memory=copy)

    copies = {item.id: rng.uniform(1.0, 2.0, 4).tolist() for item in nets}
    visits = {name: [visit(4.0 * copy**0.5, copy) for copy in entries] for name, entries in copies.items()}
    visits |= {"block": [visit(2.0 * copy, copy) for copy in np.linspace(1.0, 2.0, 25).tolist()]}
    visits |= {"small": [VISIT]}

    found = in_usual_memory([*nets, block, small], visits)

    usual = np.median([visit.memory for entries in visits.values() for visit in entries if visit.memory])
    for net in nets:
        assert [visit.p50 for visit in found[net.id]] == pytest.approx([4.0 * usual**0.5] * 4)
    assert [visit.p50 for visit in found["block"]] == pytest.approx([2.0 * usual] * 25)
    assert [visit.memory for visit in found["net 0"]] == copies["net 0"]
    assert found["small"] == [VISIT]


def test_a_few_visits_tell_nothing_of_the_memory():
    item = replace(ITEMS[0], streams=True)
    visits = {item.id: [replace(VISIT, memory=1.0), replace(VISIT, memory=2.0, p50=1.5)]}

    assert in_usual_memory([item], visits) == visits


def test_what_the_copy_in_memory_varies_by_itself_is_no_disturbance():
    """On a quiet machine its 5th and 95th percentile are a factor of 1.35 apart."""
    visits = [replace(VISIT, memory=memory) for memory in (1.0, 1.35)]

    result = summarise(visits, floor=Floor(2.0, 1.0), options=QUICK)

    assert result.quiet
    assert result.memory == pytest.approx(1.175)


def test_the_state_of_the_memory_is_that_of_the_items_that_need_it():
    small = summarise([VISIT, VISIT], floor=Floor(2.0), options=QUICK)
    large = [summarise([replace(VISIT, memory=ms)] * 2, floor=Floor(2.0, 1.0), options=QUICK) for ms in (1.0, 1.2, 2.0)]

    assert machine_state([small, *large])[MEMORY_MS] == pytest.approx(1.2)
    assert machine_state([small]) == {MEMORY_MS: None, REFERENCE_MS: VISIT.reference}
    assert machine_state([replace(small, quiet=False)])[REFERENCE_MS] is None


def test_items_that_need_memory_are_measured_again_while_others_use_it():
    copies = iter([1e-3] * 12 + [2e-3] * 6 + [1e-3] * 1000)  # three copies a check, before and after each visit
    visits: Visits = {}

    def memory(n):
        seconds = next(copies)
        return seconds, seconds

    (item,) = [replace(ITEMS[0], streams=True)]
    found = measure([item], prepare=FakeMachine().prepare, guard=Guard(make_look(Reference()), memory=memory),
                    options=QUICK, rng=np.random.default_rng(0), visits=visits, save=lambda visits: None,
                    progress=lambda done, planned: None)  # fmt: skip

    assert [visit.memory for visit in visits[item.id]] == [1.0, 1.0]
    assert found[item.id].quiet
    busy = replace(VISIT, memory=1.8)
    assert not summarise([busy, busy], floor=Floor(2.0, 1.0), options=QUICK).quiet
    assert summarise([busy, busy], floor=Floor(2.0, 1.0), options=QUICK).rel_sigma == pytest.approx(0.8)


def test_no_visit_starts_after_the_deadline():
    machine = FakeMachine()

    found = measure(ITEMS, prepare=machine.prepare, guard=Guard(make_look(Reference())), options=QUICK,
                    rng=np.random.default_rng(0), visits={}, save=lambda visits: None,
                    progress=lambda done, planned: None, deadline=lambda: len(machine.built) >= 4)  # fmt: skip

    assert set(found) == {item.id for item in machine.built}
    assert len(found) == 4


def test_a_visit_waits_for_seconds_until_a_neighbour_is_done():
    reference = Reference()
    guard = Guard(make_look(reference))
    reference.busy_for(3.0)

    assert guard.settle(0.103) == pytest.approx(0.1)
    assert reference.spent == pytest.approx(3.0, rel=0.05)


def test_a_machine_that_is_never_quiet_is_waited_for_less_and_less():
    reference, waits = Reference(), []
    guard = Guard(make_look(reference))

    for _ in range(8):
        reference.busy_for(1000.0)
        assert guard.settle(0.103) == pytest.approx(0.15)
        waits.append(reference.spent)
    reference.busy_for(0.0)
    guard.settle(0.103)
    reference.busy_for(1000.0)
    guard.settle(0.103)

    assert waits == pytest.approx([5.0, 2.5, 1.25, 0.625, 0.3125, 0.15625, 0.1, 0.1], rel=0.1)
    assert reference.spent == pytest.approx(5.0, rel=0.05)


@dataclass
class SharedMachine:
    """Its reference and its item are slower by half between two moments of its clock."""

    busy: tuple[float, float] = (math.inf, math.inf)
    now: float = 0.0

    def timed(self, once):
        def run(n):
            seconds = n * once * (1.5 if self.busy[0] <= self.now < self.busy[1] else 1.0)
            self.now += seconds
            return seconds, seconds

        return run


@pytest.mark.parametrize("lasts", [0.03, 3.0])
def test_slices_that_were_disturbed_do_not_count(lasts):
    machine, visits = SharedMachine(), {}
    guard = Guard(make_look(machine.timed(1e-4)))
    machine.busy = (machine.now + 0.1, machine.now + 0.1 + lasts)

    found = measure(ITEMS[:1], prepare=lambda item: machine.timed(1e-3), guard=guard,
                    options=Options(time_per_row_s=0.2, sessions=1, retries=0, repairs=0),
                    rng=np.random.default_rng(0), visits=visits, save=lambda visits: None,
                    progress=lambda done, planned: None)  # fmt: skip

    (visit,) = visits[ITEMS[0].id]
    assert machine.now > machine.busy[1]
    assert (visit.min, visit.p50, visit.p90, visit.n) == pytest.approx((1.0, 1.0, 1.0, 200))
    assert visit.reference == pytest.approx(0.1)
    assert found[ITEMS[0].id].p50 == pytest.approx(1.0)


@pytest.mark.parametrize(("p50", "again"), [((1.0, 1.02), False), ((1.0, 1.04), True), ((1.0, 1.04, 1.02), False)])
def test_what_streams_is_visited_until_its_two_fastest_visits_agree(p50, again):
    item = replace(ITEMS[0], streams=True)
    visits = {item.id: [replace(VISIT, p50=value, reference=0.1, memory=1.0) for value in p50]}
    memory = lambda n: (n * 1e-3, n * 1e-3)  # noqa: E731

    measure([item], prepare=FakeMachine().prepare, guard=Guard(make_look(Reference()), memory=memory),
            options=replace(QUICK, repairs=1), rng=np.random.default_rng(0), visits=visits,
            save=lambda visits: None, progress=lambda done, planned: None)  # fmt: skip

    assert len(visits[item.id]) == len(p50) + again
