"""Timings with provenance: `python -m benchmarks NAME` writes JSON. Not installed with the packages."""
