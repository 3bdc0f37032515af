"""Exercises of chapter 2: building the cache in pieces."""
