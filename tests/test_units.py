"""Quantities with units."""

import pytest

from nas2edge.errors import UnitError
from nas2edge.units import (
    format_bytes,
    format_count,
    format_latency,
    parse_bytes,
    parse_count,
    parse_duration_s,
    parse_latency_ms,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20ms", 20.0),
        ("1.5s", 1500.0),
        ("750us", 0.75),
        ("750µs", 0.75),  # micro sign
        ("750μs", 0.75),  # Greek mu
        ("500ns", 0.0005),
        (" 2 ms ", 2.0),
        ("1e-1s", 100.0),
        (".5ms", 0.5),
    ],
)
def test_latencies_are_read_in_milliseconds(text, expected):
    assert parse_latency_ms(text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "expected"), [("300M", 300_000_000), ("1.5k", 1500), ("2G", 2 * 10**9), ("7", 7)])
def test_counts_are_read_in_powers_of_a_thousand(text, expected):
    assert parse_count(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("20min", 1200.0), ("90s", 90.0), ("1h", 3600.0), ("500ms", 0.5)])
def test_durations_are_read_in_seconds(text, expected):
    assert parse_duration_s(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "'fast' is not a latency; expected a positive number and a unit"),
        ("-3ms", "'-3ms' is not a latency"),
        ("20", "the latency '20' has no unit; expected one of: ns, us"),
        ("20kg", "the latency '20kg' has the unit 'kg'"),
        ("20MS", "the latency '20MS' has the unit 'MS'"),
        ("", "'' is not a latency"),
        ("nan ms", "'nan ms' is not a latency"),
        ("0ms", "the latency '0ms' is 0.0; expected a positive number"),
        ("1e999s", "is inf; expected a positive number"),
    ],
)
def test_what_does_not_read_is_told_with_an_example(text, message):
    with pytest.raises(UnitError, match=message) as caught:
        parse_latency_ms(text)
    assert "'20ms'" in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (
            parse_duration_s,
            "2d",
            "the duration '2d' has the unit 'd'; expected one of: ms, s, min, h, for example '20min'",
        ),
        (parse_duration_s, "soon", "'soon' is not a duration"),
        (
            parse_count,
            "300m",
            "the count '300m' has the unit 'm'; expected one of: no unit, k, M, G, for example '300M'",
        ),
        (parse_count, "0", "the count '0' is 0.0; expected a positive number"),
        (parse_count, "0.4", "the count '0.4' is less than 1"),
    ],
)
def test_every_quantity_names_itself_and_its_units(parse, text, message):
    with pytest.raises(UnitError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("count", "text"), [(203_389_568, "203.4M"), (1234, "1.234k"), (12, "12"), (1.9e9, "1.9G"), (0, "0")]
)
def test_counts_are_written_with_four_digits(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(("ms", "text"), [(0.0421, "42.1 us"), (2.5, "2.5 ms"), (1234.0, "1.23 s"), (0.0, "0 ms")])
def test_latencies_are_written_in_the_unit_that_fits(ms, text):
    assert format_latency(ms) == text


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (format_latency, 999.4, "999 ms"),
        (format_latency, 999.6, "1 s"),
        (format_latency, 0.9999, "1 ms"),
        (format_latency, 1_234_000.0, "1230 s"),
        (format_latency, -2.5, "-2.5 ms"),
        (format_count, 999.96, "1k"),
        (format_count, 999_960, "1M"),
        (format_count, 999_999_999, "1G"),
        (format_count, 2e13, "20000G"),
    ],
)
def test_what_rounds_up_to_the_next_unit_is_written_in_it(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    ("text", "size"), [("2MB", 2_000_000), ("1.5 kB", 1500), ("1MiB", 1_048_576), ("700B", 700), ("1GB", 10**9)]
)
def test_sizes_in_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["2", "2M", "-1MB", "MB", "0.1B"])
def test_sizes_without_meaning_are_refused(text):
    with pytest.raises(UnitError, match="size"):
        parse_bytes(text)


@pytest.mark.parametrize(("size", "text"), [(2_097_152, "2.097 MB"), (512, "512 B"), (999_960, "1 MB")])
def test_sizes_as_text(size, text):
    assert format_bytes(size) == text
