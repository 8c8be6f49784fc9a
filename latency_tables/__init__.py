"""Latency tables, one JSON a device, runtime, precision and mode. Data only."""
