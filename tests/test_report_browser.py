"""The page of a search in a real browser: it draws, and a click changes what it shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas2edge import SubnetConfig, plan
from nas2edge.report.search_page import Convergence, Dominated, search_page
from nas2edge.subnet_file import read_subnet
from tests.chromium import Browser, open_browser
from tests.report_cases import SPACE, document, table

pytestmark = pytest.mark.slow

BOARD, PHONE = table("board", overhead_ms=2.0), table("phone", kind="estimated", slower=2.0)
TABLES = {"board": BOARD, "phone": PHONE}
HOSTILE = "</script><script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def show(browser: Browser, folder: Path, page: str, fragment: str = "") -> None:
    (folder / "page.html").write_text(page, encoding="utf-8")
    browser.go((folder / "page.html").as_uri() + fragment)
    assert browser.errors() == []


def test_a_click_on_a_point_changes_the_details(browser, tmp_path):
    raw = document([BOARD, PHONE])
    show(browser, tmp_path, search_page(raw, tables=TABLES))
    first, chosen = raw["points"][0], raw["points"][-1]
    assert chosen["id"] in browser.text("#selected-id")
    assert "73.00 ± 0.90 %" in browser.text("#figures")

    browser.click("circle[data-point='0']")

    assert first["id"] in browser.text("#selected-id")
    assert chosen["id"] not in browser.text("#selected-id")
    assert "70.00 ± 0.90 %" in browser.text("#figures")
    assert "−3.00 points vs. chosen" in browser.text("#figures")
    assert browser.run("return location.hash") == f"#point={first['id']}"
    # Stem, one block, two blocks: a millisecond each; half of one for the head; two of overhead.
    assert "6.50 ms" in browser.text("[data-device=board] .legend")
    assert browser.run("return document.querySelectorAll('[data-device=board] tbody tr').length") == 6
    assert f"nas2edge export subnet-{first['id']}.json --to onnx" in browser.text("#next code")

    browser.click("#to-best")

    assert chosen["id"] in browser.text("#selected-id")
    assert "nas2edge export subnet.json --to onnx" in browser.text("#next code")
    assert browser.errors() == []


def test_what_networks_cost_beyond_their_blocks_is_named(browser, tmp_path):
    board = table("board", slope=2.0, launch_ms=0.25)
    raw = document([board])
    show(browser, tmp_path, search_page(raw, tables={"board": board}), "#point=0")

    text = browser.text("[data-device=board]")
    estimate = board.estimate(plan(SPACE, SubnetConfig.from_dict(raw["points"][0]["subnet"])))

    assert "code out of the nearest cache" in text
    assert "every run" not in text and "last-level" not in text
    assert f"{estimate.ms:.1f} ms" in browser.text("[data-device=board] .legend")


def test_measured_and_estimated_rows_look_and_read_differently(browser, tmp_path):
    show(browser, tmp_path, search_page(document([BOARD, PHONE]), tables=TABLES))

    def styles(device: str) -> set[str]:
        script = (
            "return [...document.querySelectorAll(`[data-device=${arguments[0]}] .bar`)]"
            ".map((bar) => `${bar.getAttribute('aria-label')} ${getComputedStyle(bar).backgroundImage === 'none'}`)"
        )
        return set(browser.run(script, device))

    assert styles("board") == {"measured true", "interpolated false", "fitted true"}
    assert styles("phone") == {"estimated false"}
    assert "estimated: never timed on the device" in browser.text("#status-legend")
    assert "estimated 100 %" in browser.text("[data-device=phone] .legend")
    assert "latency on phone estimated" in " ".join(browser.text("#figures").split())


def test_estimated_accuracies_among_measured_ones_are_hollow(browser, tmp_path):
    raw = document([BOARD])
    raw["points"][0] |= {"accuracy_source": "predictor", "accuracy_sigma": 0.4}
    show(browser, tmp_path, search_page(raw, tables=TABLES), "#point=0")

    hollow = "return [...document.querySelectorAll('#front .hollow')].map((circle) => circle.dataset.point)"
    assert browser.run(hollow) == ["0"]
    assert "accuracy estimated" in browser.text("#front-legend")
    assert "70.00 ± 0.40 %" in browser.text("#figures")


def test_every_choice_is_marked_with_its_limit_and_its_file(browser, tmp_path):
    raw = document([BOARD])
    limits = [9.0, 7.0]
    first = raw["constraints"][0]
    raw["constraints"] = [first | {"limit": limit} for limit in limits]
    raw["choices"] = [
        {"id": raw["points"][i]["id"], "constraints": [{"metric": "latency_ms", "device": "board", "limit": limit}]}
        for i, limit in zip((3, 1), limits, strict=True)
    ]
    show(browser, tmp_path, search_page(raw, tables=TABLES, subnet_path=["subnet-9ms.json", "subnet-7ms.json"]))

    best = "return [...document.querySelectorAll('#front .best[data-point]')].map((node) => node.dataset.point).sort()"
    assert browser.run(best) == ["1", "3"]
    text = browser.run("return document.getElementById('front').textContent")
    assert "limit 9 ms" in text
    assert "limit 7 ms" in text
    assert "chosen for latency on board ≤ 9 ms" in browser.text("#selected-id")

    browser.click("circle[data-point='1']")

    assert "chosen for latency on board ≤ 7 ms" in browser.text("#selected-id")
    assert "null" not in browser.text("#selected-id")
    assert "nas2edge export subnet-7ms.json --to onnx" in browser.text("#next code")
    browser.click("#to-best")
    assert "nas2edge export subnet-9ms.json --to onnx" in browser.text("#next code")


def test_what_the_supernet_gave_stands_beside_its_prediction(browser, tmp_path):
    raw = document([BOARD])
    raw["accuracy"] = {"source": "predictor", "error": 0.4, "note": "made up", "images": 2000}
    for i, point in enumerate(raw["points"]):
        point |= {"accuracy_sigma": 0.4, "measured_accuracy": 72.5 if i == 3 else None}
    show(browser, tmp_path, search_page(raw, tables=TABLES))

    hollow = "return [...document.querySelectorAll('#front .hollow[data-point]')].map((node) => node.dataset.point)"
    assert browser.run(hollow) == ["0", "1", "2"]
    assert "predicted alone" in browser.text("#front-legend")
    assert "73.00 ± 0.40 %" in browser.text("#figures")
    # The binomial error: sqrt(72.5 * 27.5 / 2000).
    assert "72.50 ± 1.00 %" in browser.text("#figures")
    browser.click("circle[data-point='0']")
    assert "evaluated by the supernet" not in browser.text("#figures")
    browser.click("#all summary")
    assert "72.50" in browser.text("#table tbody")


def test_the_fragment_selects_a_point_by_number_or_id(browser, tmp_path):
    raw = document([BOARD])
    page = search_page(raw, tables=TABLES)
    show(browser, tmp_path, page, "#point=1")
    assert raw["points"][1]["id"] in browser.text("#selected-id")

    browser.run("location.hash = arguments[0]; return null", f"#point={raw['points'][2]['id']}")

    assert browser.run("return new Promise((done) => setTimeout(() => done(true), 50))")
    assert raw["points"][2]["id"] in browser.text("#selected-id")


def test_arrow_keys_move_along_the_front_and_keep_the_focus(browser, tmp_path):
    raw = document([BOARD])
    show(browser, tmp_path, search_page(raw, tables=TABLES), "#point=0")

    browser.type("circle[data-point='0']", "\ue014")  # arrow right

    assert raw["points"][1]["id"] in browser.text("#selected-id")
    assert browser.run("return document.activeElement.dataset.point") == "1"
    assert browser.run("return document.querySelectorAll('circle[tabindex=\"0\"]').length") == 1


def test_another_axis_can_be_chosen(browser, tmp_path):
    show(browser, tmp_path, search_page(document([BOARD, PHONE]), tables=TABLES))
    assert "latency on board, ms (measured)" in browser.run("return document.getElementById('front').textContent")

    browser.click("#axes button:nth-child(2)")

    assert "latency on phone, ms (estimated)" in browser.run("return document.getElementById('front').textContent")
    assert "limit 9 ms" in browser.run("return document.getElementById('front').textContent")


def test_a_saved_point_is_a_subnet_file(browser, tmp_path):
    raw = document([BOARD, PHONE])
    show(browser, tmp_path, search_page(raw, tables=TABLES), "#point=0")
    browser.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.href; }; return null")

    browser.click("#next button")

    text = browser.run("return decodeURIComponent(window.saved.split(',').slice(1).join(','))")
    (tmp_path / "saved.json").write_text(text)
    file, point = read_subnet(tmp_path / "saved.json"), raw["points"][0]
    assert (file.space, file.subnet.id, file.device) == (SPACE, point["id"], "board")
    assert file.constraints == {"latency_ms": 9.0, "latency_ms:phone": 9.0}
    assert file.predicted["latency_ms:phone"] == pytest.approx(point["devices"]["phone"]["latency_ms"], rel=1e-5)
    assert file.predicted["latency_kind"] == "measured"
    assert file.predicted["accuracy_source"] == "supernet"


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("tables", [[], [BOARD], [BOARD, PHONE]], ids=["no device", "one", "two"])
def test_every_shape_of_front_is_drawn(browser, tmp_path, tables, points):
    raw = document(tables, points=points)
    page = search_page(
        raw,
        tables={table.device.name: table for table in tables[:1]},
        convergence=Convergence(evaluations=[10, 50, 200], hypervolume=[0.5, 0.9, 1.0]),
        dominated=Dominated(accuracy=[70.0], values={("macs", None): [raw["points"][0]["macs"]]}),
    )

    show(browser, tmp_path, page)

    assert browser.run("return document.querySelectorAll('#front circle[data-point]').length") == points
    assert "reached after 200 evaluations" in browser.text("#convergence-explain")
    assert "NaN" not in browser.run("return document.body.innerHTML.split('<script')[0]")
    assert browser.run("return document.querySelectorAll('.device').length") == len(tables)
    browser.click("#all summary")
    browser.click("#table tbody tr")
    assert raw["points"][0]["id"] in browser.text("#selected-id")
    assert browser.errors() == []


def test_names_that_look_like_html_do_nothing(browser, tmp_path):
    hostile = table(HOSTILE)
    raw = document([hostile], note=HOSTILE)
    raw["space"]["name"] = HOSTILE

    show(browser, tmp_path, search_page(raw, tables={HOSTILE: hostile}, command=HOSTILE))
    browser.click("#all summary")

    assert browser.run("return document.title").startswith("</script><script>")
    assert browser.run("return document.querySelectorAll('img, script').length") == 2  # data and script
    assert HOSTILE in browser.text("#devices h3")


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_window(browser, tmp_path, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.call("POST", "/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=metrics)
    try:
        show(browser, tmp_path, search_page(document([BOARD, PHONE]), tables=TABLES))

        assert browser.run("return document.documentElement.scrollWidth") == width
    finally:
        browser.call("POST", "/goog/cdp/execute", cmd="Emulation.clearDeviceMetricsOverride", params={})


def test_text_has_enough_contrast(browser, tmp_path):
    """4.5 to 1 on whatever lies behind, as WCAG 2 asks of text."""
    show(browser, tmp_path, search_page(document([BOARD, PHONE]), tables=TABLES), "#point=0")

    pairs = json.loads(browser.run(_CONTRAST))

    assert len(pairs) > 5
    assert not [pair for pair in pairs if pair["ratio"] < 4.5]


_CONTRAST = """
const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const found = new Map();
for (const node of document.querySelectorAll("main *, header *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.getClientRects().length) continue;
  const style = getComputedStyle(node);
  let behind = node, fill = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
  if (node.style.fill) continue;  // labels on the heat strip have their own rule
  while (behind && parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const back = behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)";
  const [a, b] = [light(parse(fill).slice(0, 3)), light(parse(back).slice(0, 3))];
  found.set(fill + back, { fill, back, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) });
}
return JSON.stringify([...found.values()]);
"""
