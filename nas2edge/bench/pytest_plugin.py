"""A pytest plugin: latency tests that do not flake.

::

    @pytest.mark.latency(max_slowdown="5%", budget="30s")
    def test_the_model_is_not_slower(latency):
        latency("build/model.onnx", baseline="tests/baseline.onnx")

The test fails on a regression, and is skipped, with the reason, where noise allows no verdict. Measurements wait for
each other, also between the processes of pytest-xdist. Verdict and figures become properties of the test in JUnit XML,
and stand in pytest's summary. Nothing but pytest is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nas2edge.bench.check import Report, Request

MARKER = "latency"
_PREFIX = "nas2edge."
_HELP = (
    "latency(max_slowdown='5%', max_growth=None, max_latency=None, device=None, gate='auto', budget='60s', "
    "runtime=None, threads=1, inconclusive='skip'): how the fixture `latency` checks networks; each is an option of "
    "`nas2edge check`, and inconclusive is 'skip', 'fail' or 'pass'"
)
_DEFAULTS: dict[str, Any] = {
    "max_slowdown": "5%",
    "max_growth": None,
    "max_latency": None,
    "device": None,
    "tables": None,
    "gate": "auto",
    "budget": "60s",
    "runtime": None,
    "threads": 1,
    "input_shape": None,
    "different_inputs": False,
    "inconclusive": "skip",
}
_INCONCLUSIVE = ("skip", "fail", "pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCheck:
    """What the fixture `latency` is: call it with a network and its baseline.

    Args:
        settings: Of the test's marker, over those of the command line and the defaults.
        record: Writes a property of the test.
    """

    settings: dict[str, Any]
    record: Callable[[str, object], None]

    def __call__(self, new: str | Path, *, baseline: str | Path | None = None) -> Report:
        """Checks a network; the test ends here if the verdict is not "passed".

        Args:
            new: A bundle, or a file that a runtime loads.
            baseline: What it is compared with: a bundle, a file, or a stored result (.json). None where only
                `max_latency` is checked.

        Returns:
            The report, for further assertions.
        """
        from nas2edge.bench.check import DETERMINISTIC, check
        from nas2edge.bench.lock import measuring_alone

        request = _request(self.settings, new, baseline)
        with nullcontext() if request.mode == DETERMINISTIC else measuring_alone():
            report = check(request)
        self._record(report)
        lines = [f"{gate.name}: {gate.detail}" for gate in report.gates if gate.hard and gate.verdict != "passed"]
        text = f"{new}: {report.verdict}; {'; '.join(lines)}"
        if report.verdict == "failed":
            pytest.fail(text, pytrace=False)
        if report.verdict == "inconclusive" and self.settings["inconclusive"] != "pass":
            (pytest.skip if self.settings["inconclusive"] == "skip" else pytest.fail)(text)
        return report

    def _record(self, report: Report) -> None:
        self.record(f"{_PREFIX}verdict", report.verdict)
        for gate in report.gates:
            name = gate.name.replace(" ", "_")
            self.record(f"{_PREFIX}{name}.verdict", gate.verdict if gate.hard else f"{gate.verdict} (advisory)")
            if gate.decision is None:
                continue
            self.record(f"{_PREFIX}{name}.rounds", len(gate.decision.rounds))
            self.record(f"{_PREFIX}{name}.seconds", round(gate.decision.seconds, 2))
            found = gate.decision.comparison
            if found is not None:
                for part, interval in (("ratio", found.ratio), ("control", found.control)):
                    for end in ("estimate", "low", "high"):
                        self.record(f"{_PREFIX}{name}.{part}.{end}", round(getattr(interval, end), 5))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds options that override what markers say."""
    group = parser.getgroup("nas2edge", "latency tests of nas2edge")
    group.addoption("--latency-gate", choices=("auto", "measured", "deterministic"), help="gate of all latency tests")
    group.addoption("--latency-budget", help="budget of each latency test, such as 30s")


def pytest_configure(config: pytest.Config) -> None:
    """Announces the marker."""
    config.addinivalue_line("markers", _HELP)


@pytest.fixture
def latency(request: pytest.FixtureRequest) -> LatencyCheck:
    """Checks the latency and costs of a network against a baseline: `latency(new, baseline=old)`."""
    marker = request.node.get_closest_marker(MARKER)
    given = dict(marker.kwargs) if marker is not None else {}
    wrong = [*(marker.args if marker is not None else ()), *sorted(set(given) - set(_DEFAULTS))]
    if wrong:
        raise pytest.UsageError(
            f"@pytest.mark.latency takes {', '.join(_DEFAULTS)}, each by its name; got {', '.join(map(repr, wrong))}"
        )
    settings = _DEFAULTS | given
    if settings["inconclusive"] not in _INCONCLUSIVE:
        raise pytest.UsageError(
            f"inconclusive is {settings['inconclusive']!r}; expected one of {', '.join(_INCONCLUSIVE)}"
        )
    for name in ("gate", "budget"):
        settings[name] = request.config.getoption(f"--latency-{name}") or settings[name]
    # Not record_property: it does no more than this, and warns where JUnit XML is of the family xunit2, the default.
    properties = request.node.user_properties
    return LatencyCheck(settings=settings, record=lambda name, value: properties.append((name, value)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Lists the verdicts; under xdist too, since properties travel with the reports."""
    lines = []
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            found = dict(getattr(report, "user_properties", ()))
            if report.when == "call" and f"{_PREFIX}verdict" in found:
                lines.append(f"{report.nodeid}: {found[f'{_PREFIX}verdict']}{_figures(found)}")
    if lines:
        terminalreporter.section("latency")
        for line in lines:
            terminalreporter.line(line)


def _figures(found: dict[str, Any]) -> str:
    parts = []
    for name, measured in (("measured_latency", True), ("absolute_latency", False)):
        values = {key.removeprefix(f"{_PREFIX}{name}."): value for key, value in found.items()}
        if "ratio.estimate" not in values:
            continue
        estimate, low, high = (values[f"ratio.{end}"] for end in ("estimate", "low", "high"))
        if measured:
            parts.append(f"measured {estimate - 1.0:+.1%} [{low - 1.0:+.1%}, {high - 1.0:+.1%}] {values['verdict']}")
        else:
            parts.append(f"{estimate:.1%} of the limit [{low:.1%}, {high:.1%}] {values['verdict']}")
        control = values["control.estimate"] - 1.0
        parts.append(f"A/A {control:+.1%}, {values['rounds']} rounds, {values['seconds']:.0f} s")
    return "".join(f", {part}" for part in parts)


def _request(settings: dict[str, Any], new: str | Path, baseline: str | Path | None) -> Request:
    from nas2edge.bench.artefact import find_artefact
    from nas2edge.bench.check import Request
    from nas2edge.bench.measure import Options
    from nas2edge.bench.quantities import parse_growth, parse_shape, parse_share
    from nas2edge.bench.result import read_stored
    from nas2edge.latency.registry import load_table
    from nas2edge.units import parse_duration_s, parse_latency_ms

    def read(name: str, parse: Callable[[str], Any]) -> Any:
        value = settings[name]
        return None if value is None else parse(str(value))

    shape = read("input_shape", parse_shape)
    where: dict[str, Any] = {"runtime": settings["runtime"], "shape": shape}
    old = None
    if baseline is not None:
        stored = Path(baseline).suffix == ".json"
        old = read_stored(Path(baseline)) if stored else find_artefact(str(baseline), **where)
    tables = None if settings["tables"] is None else Path(settings["tables"])
    return Request(
        new=find_artefact(str(new), **where),
        old=old,
        max_slowdown=read("max_slowdown", parse_share),
        max_growth=read("max_growth", parse_growth),
        max_latency_ms=read("max_latency", parse_latency_ms),
        table=read("device", lambda name: load_table(name, tables=tables)),
        mode=settings["gate"],
        budget_s=read("budget", parse_duration_s),
        options=Options(threads=settings["threads"], same_input=not settings["different_inputs"]),
    )
