"""Timing of artefacts on this machine: alone, interleaved with others, and as a gate."""
