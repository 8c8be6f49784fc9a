"""Latency tables: measured, derived or estimated milliseconds by block, and what they predict of whole sub-networks.

What is imported here needs neither torch nor onnx; measuring lives in `nas2edge.latency.measure`.
"""

from nas2edge.latency.registry import list_tables, load_table
from nas2edge.latency.table import Calibration, LatencyEstimate, LatencyTable, LayerLatency, TableRow, Validation
from nas2edge.latency.table_file import read_table, write_table

__all__ = [
    "Calibration",
    "LatencyEstimate",
    "LatencyTable",
    "LayerLatency",
    "TableRow",
    "Validation",
    "list_tables",
    "load_table",
    "read_table",
    "write_table",
]
