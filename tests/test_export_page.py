"""report.md: every row and stage, whatever became of it."""

from nas2edge.export.page import report_markdown
from nas2edge.export.rows import Row
from nas2edge.export.stages import Stage


def item(block: str, sqnr_db: float | None, *, finite: bool = True) -> dict[str, object]:
    return {"block": block, "sqnr_db": sqnr_db, "flips": 1, "images": 8, "finite": finite}


def test_blocks_are_listed_the_most_sensitive_first():
    found = [item("calm", None), item("b", 30.0), item("broken", None, finite=False), item("a", 12.5)]
    stage = Stage(name="int8", verdict="passed", summary="x", details={"sensitivity": found, "handed_back": ["a"]})

    page = report_markdown("title", {}, [stage], {})

    rows = [line for line in page.splitlines() if line.startswith(("| calm", "| b", "| broken", "| a"))][1:]
    assert rows == [
        "| broken | not finite | 1 |  |",
        "| a | 12.5 dB | 1 | handed back to float32 |",
        "| b | 30.0 dB | 1 |  |",
        "| calm | no difference | 1 |  |",
    ]
    assert "on 8 calibration images." in page


def test_rows_say_what_was_not_built_or_not_run():
    rows = [
        Row(target="onnx", precision="fp32", files=("m",), size_bytes=1_500_000, accuracy=80.0, parity=1.0),
        Row(target="trt", precision="fp32", files=("e",), size_bytes=10_000, accuracy=80.0, note="no GPU"),
        Row(target="ncnn", precision="int8", note="it takes | float32\nand nothing else"),
    ]

    page = report_markdown("title", {}, [], {}, rows)

    assert "| onnx | fp32 | 1.50 MB | 1.000000 | 80.00 % |  |" in page
    assert "| trt | fp32 | 0.01 MB | not run | 80.00 % | no GPU |" in page
    assert "| ncnn | int8 | not built | not run |  | it takes \\| float32 |" in page


def test_one_row_is_no_table():
    assert "What was made" not in report_markdown("title", {}, [], {}, [Row(target="onnx", precision="fp32")])
