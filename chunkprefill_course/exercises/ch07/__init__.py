"""Exercises of chapter 7: why a server is slow."""
