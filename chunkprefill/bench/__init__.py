"""Timings with provenance: `python -m chunkprefill.bench NAME` writes JSON."""
