"""Exercises of chapter 5: how big a chunk should be."""
