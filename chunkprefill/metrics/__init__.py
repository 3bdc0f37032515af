"""Metrics of a trace: waits, gaps, summaries, where a step's time goes, how many tasks there were."""
