"""The page of a search as text: what it holds, what it never holds, and what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest

from nas2edge import SubnetConfig, plan
from nas2edge.costs import count_params
from nas2edge.errors import FormatError, InputError
from nas2edge.latency.table import Calibration, count_launches
from nas2edge.report.blocks import describe_block, distinct_blocks, split_blocks
from nas2edge.report.search_page import MAX_DOMINATED, MAX_POINTS, Convergence, Dominated, search_page, table_notes
from tests.report_cases import SPACE, document, table

BOARD, PHONE = table("board"), table("phone", kind="estimated", slower=2.0)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


class _Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_is_loaded_from_anywhere():
    page = search_page(document([BOARD]), tables={"board": BOARD})
    policy = [attrs["content"] for _, attrs in _Elements(page).found if "http-equiv" in attrs]

    loading = {"src", "href", "srcset", "action", "poster", "data", "ping", "background"}
    assert not [(tag, attrs) for tag, attrs in _Elements(page).found if loading & attrs.keys()]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|import\(", page)
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'; ")
    # The only address is text of the table, in the data.
    assert re.findall(r"https?://[^\"\s]*", page) == ["https://example.org/"]


def test_the_policy_allows_this_script_and_no_other():
    import base64
    import hashlib

    page = search_page(document([BOARD]))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)

    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in page


def test_names_that_look_like_html_stay_text():
    hostile = table(HOSTILE)
    raw = document([hostile], note=HOSTILE)
    raw["space"]["name"] = HOSTILE
    raw["search"]["stop"] = HOSTILE

    page = search_page(raw, tables={HOSTILE: hostile}, subnet_path=HOSTILE, command=HOSTILE)

    assert {tag for tag, _ in _Elements(page).found} == {tag for tag, _ in _Elements(search_page(document([]))).found}
    assert "<img" not in page
    assert len(re.findall("<script", page)) == 2
    assert data_of(page)["accuracy"]["note"] == HOSTILE
    assert data_of(page)["export"]["command"] == HOSTILE


@pytest.mark.parametrize("tables", [[], [BOARD], [BOARD, PHONE]], ids=["no device", "one", "two"])
def test_axes_are_the_objectives_and_what_else_every_point_has(tables):
    names = [table.device.name for table in tables]
    axes = data_of(search_page(document(tables)))["axes"]

    assert [(axis["metric"], axis["device"]) for axis in axes] == [
        *(("latency_ms", name) for name in names), ("macs", None), ("params", None)
    ]  # fmt: skip
    assert [axis["origin"] for axis in axes] == [*(table.kind for table in tables), "exact", "exact"]
    assert [axis["limits"] for axis in axes] == [*([[9.0, "9 ms"]] for _ in names), [], []]


def test_a_metric_that_this_version_does_not_know_becomes_an_axis():
    raw = document([BOARD])
    for i, point in enumerate(raw["points"]):
        point["size_bytes"] = 1000 + i
        point["devices"]["board"] |= {"energy_mj": 2.0 + i, "energy_sigma_mj": 0.5}

    axes = {axis["title"]: axis for axis in data_of(search_page(raw))["axes"]}

    assert list(axes) == ["latency on board", "energy on board", "MACs", "parameters", "model size in bytes"]
    assert axes["energy on board"]["unit"] == "mJ"
    energy = list(axes).index("energy on board")
    assert [point["sigmas"][energy] for point in data_of(search_page(raw))["points"]] == [0.5] * 4


def test_blocks_and_what_is_fitted_add_up_to_the_estimate():
    board = table("board", overhead_ms=2.0, slope=0.5, cache_mb=0.001, spill_ms_per_mb=100.0, launch_ms=0.25)
    raw = document([board])
    data = data_of(search_page(raw, tables={"board": board}))
    (device,) = data["devices"]

    for i, point in enumerate(raw["points"]):
        layers = plan(SPACE, SubnetConfig.from_dict(point["subnet"]))
        rows = [device["rows"][k] for k in data["members"][i]]
        assert [data["blocks"][k][0] for k in data["members"][i]] == [layer.name for layer in layers]
        # Each row takes 1 ms, the head 0.5.
        assert [ms for ms, _, _ in rows] == [1.0] * (len(rows) - 1) + [0.5]
        assert [data["statuses"][status] for _, _, status in rows] == ["measured"] * (len(rows) - 1) + ["interpolated"]
        weights = 100 * (sum(map(count_params, layers)) * 4e-6 - 0.001)
        expected = {"overhead": 2.0, "weights": weights, "launches": 0.25 * sum(map(count_launches, layers))}
        beyond = {name: times[i] for name, times in device["beyond"].items()}
        assert beyond == pytest.approx(expected, rel=1e-5)  # the page keeps six digits
        total = device["slopes"][i] * sum(ms for ms, _, _ in rows) + sum(beyond.values())
        assert total == pytest.approx(board.estimate(layers).ms, rel=1e-5)


def test_parts_that_no_network_has_are_left_out():
    board = table("board", overhead_ms=2.0, cache_mb=1.0, spill_ms_per_mb=100.0)

    (device,) = data_of(search_page(document([board]), tables={"board": board}))["devices"]

    assert set(device["beyond"]) == {"overhead"}  # all weights stay in the cache


def test_small_and_large_networks_each_have_the_parts_of_their_kind():
    small, large = (plan(SPACE, subnet) for subnet in (SPACE.smallest(), SPACE.largest()))
    weights = [sum(map(count_params, layers)) * 4e-6 for layers in (small, large)]
    other = Calibration(overhead_ms=2.0, slope=0.75)
    board = table("board", overhead_ms=1.0, slope=0.5, cache_mb=sum(weights) / 2, large=other)

    split = split_blocks([small, large], board)

    _, members = distinct_blocks([small, large])
    assert split.slopes == pytest.approx((0.5, 0.75))
    for of, slope, part, overhead in zip(members, split.slopes, split.parts, (1.0, 2.0), strict=True):
        assert part.blocks == pytest.approx(slope * sum(split.blocks[k].ms for k in of))
        assert part == pytest.approx((overhead, part.blocks, 0.0, 0.0))
    for layers, part in zip((small, large), split.parts, strict=True):
        assert sum(part) == pytest.approx(board.estimate(layers).ms)


def test_a_split_of_two_plans_shares_their_blocks():
    small, large = (plan(SPACE, subnet) for subnet in (SPACE.smallest(), SPACE.largest()))
    layers, members = distinct_blocks([small, small, large])
    split = split_blocks([small, small, large], BOARD)

    assert members[0] == members[1] == list(range(len(small)))
    assert [layers[i] for i in members[2]] == list(large)
    assert len(split.blocks) == len(layers) == len(small) + len(large)
    assert split.parts[0] == split.parts[1]


def test_blocks_are_described_in_a_few_words():
    stem, first, *_, head = plan(SPACE, SPACE.largest())

    assert describe_block(stem) == "conv 3×3 /2, 3→16 at 24²"
    assert describe_block(first) == "3×3, 16→32→16 at 12²"
    assert describe_block(plan(SPACE, SPACE.largest())[3]) == "5×5 /2, 16→48→16 at 12², SE"
    assert describe_block(head) == "pool + classifier, 16→32→16→3"


def test_a_device_without_its_table_gets_a_note_and_no_split():
    raw = document([BOARD, PHONE])
    changed = table("phone", kind="estimated", slower=3.0)

    notes = table_notes(raw, {"phone": changed})
    devices = {device["name"]: device for device in data_of(search_page(raw, tables={"phone": changed}))["devices"]}

    assert notes["board"].startswith("its latency table was not at hand")
    assert f"(digest {changed.digest}, then {PHONE.digest})" in notes["phone"]
    assert {name: device["note"] for name, device in devices.items()} == notes
    assert not [name for name, device in devices.items() if "rows" in device]


def test_genes_have_the_choices_of_the_space():
    genes = data_of(search_page(document([])))["genes"]

    assert genes[0] == {"field": "resolution", "index": None, "choices": [16, 24]}
    assert {"field": "kernel_size", "index": 1, "choices": [3, 5]} in genes
    assert len(genes) == len(SPACE.genes)


def test_long_fronts_are_thinned_evenly_and_keep_the_chosen_one():
    raw = document([BOARD])
    one = raw["points"][0]
    points = [one | {"id": f"p{i}", "accuracy": 50 + i / 1000} for i in range(2 * MAX_POINTS)]
    data = data_of(search_page(raw | {"points": points, "best": "p1001"}))
    kept = [int(point["id"][1:]) for point in data["points"]]

    assert (len(kept), data["total"]) == (MAX_POINTS, 2 * MAX_POINTS)
    assert kept[data["best"]] == 1001
    assert max(b - a for a, b in zip(kept, kept[1:], strict=False)) <= 4


def test_size_is_bounded():
    raw = document([BOARD, PHONE])
    points = [raw["points"][i % 4] | {"id": f"{i:012d}"} for i in range(5000)]
    page = search_page(
        raw | {"points": points, "best": points[0]["id"]},
        tables={"board": BOARD, "phone": PHONE},
        dominated=Dominated(accuracy=[70.123456] * 50_000, values={("macs", None): [123456.0] * 50_000}),
    )

    assert len(search_page(document([BOARD]), tables={"board": BOARD}).encode()) < 64_000
    assert len(page.encode()) < 1_000_000


def test_dominated_points_are_sampled_and_say_how_many_there_were():
    dominated = Dominated(accuracy=[60.0] * 4000, values={("latency_ms", "board"): [5.0] * 4000}, total=49_000)
    data = data_of(search_page(document([BOARD]), dominated=dominated))["dominated"]

    assert data["total"] == 49_000
    assert len(data["accuracy"]) == MAX_DOMINATED
    assert [None if column is None else len(column) for column in data["values"]] == [MAX_DOMINATED, None, None]


def test_the_course_comes_from_the_argument_or_the_document():
    course = {"evaluations": [10, 20], "hypervolume": [0.5, 1.0]}

    assert data_of(search_page(document([])))["convergence"] is None
    assert data_of(search_page(document([]) | {"convergence": course}))["convergence"] == course
    assert data_of(search_page(document([]), convergence=Convergence(**course)))["convergence"] == course


def test_courses_and_dominated_points_are_checked():
    with pytest.raises(InputError, match="2 evaluations and 1 hypervolumes"):
        Convergence(evaluations=[1, 2], hypervolume=[1.0])
    with pytest.raises(InputError, match="do not ascend"):
        Convergence(evaluations=[2, 1], hypervolume=[1.0, 1.0])
    with pytest.raises(InputError, match="2 accuracies and 1 values of"):
        Dominated(accuracy=[1.0, 2.0], values={("macs", None): [1.0]})


def test_points_may_have_an_accuracy_source_and_error_of_their_own():
    raw = document([])
    raw["points"][1] |= {"accuracy_source": "predictor", "accuracy_sigma": 0.4}
    points = data_of(search_page(raw))["points"]

    assert [(point["origin"], point["error"]) for point in points] == [
        ("measured", 0.9), ("estimated", 0.4), ("measured", 0.9), ("measured", 0.9)
    ]  # fmt: skip


def test_limits_say_what_the_space_reaches_and_whether_they_bind():
    raw = document([BOARD])
    raw["constraints"].append({"metric": "macs", "limit": 5e6, "device": None, "least": 1e6, "greatest": 2e6,
                               "binds": False})  # fmt: skip
    limits = [text for name, text in data_of(search_page(raw))["facts"] if name == "limit"]

    assert limits == [
        "latency on board ≤ 9 ms (the space: 4.5 ms to 9.9 ms)",
        "MACs ≤ 5M (the space: 1M to 2M; it does not bind)",
    ]


def test_estimated_accuracies_are_called_so():
    raw = document([])
    origins = {}
    for source in ("supernet", "predictor", "published-points"):
        raw["accuracy"]["source"] = source
        origins[source] = data_of(search_page(raw))["accuracy"]["origin"]

    assert origins == {"supernet": "measured", "predictor": "estimated", "published-points": "estimated"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "nas2edge.subnet"}, "the document is 'nas2edge.subnet' version 1"),
        ({"points": []}, "which is the id of no point"),
        ({"best": "other"}, "'best' is 'other', which is the id of no point"),
        ({"points": [{"id": 1}]}, "expected an object with id, accuracy, devices and subnet"),
        ({"points": [{"id": "a", "accuracy": "high", "subnet": {"depth": [1]}}]}, "accuracy 'high'"),
        ({"points": [{"id": "a", "accuracy": 1.0, "subnet": {"depth": [1]}}]}, "devices is None"),
        ({"points": [{"id": "a", "accuracy": 1.0, "devices": {}, "subnet": {"depth": ["x"]}}]}, "subnet.depth is"),
        ({"devices": None}, "'devices' is None"),
    ],
)
def test_documents_that_are_no_front_are_refused(change, message):
    with pytest.raises(FormatError, match=re.escape(message)):
        search_page(document([BOARD]) | change)


def test_points_of_different_spaces_are_refused():
    raw = document([BOARD])
    raw["points"][0]["subnet"] = {"depth": [1]}

    with pytest.raises(FormatError, match="different fields"):
        search_page(raw)
