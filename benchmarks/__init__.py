"""Measurements: ratios, taken interleaved in one run."""
