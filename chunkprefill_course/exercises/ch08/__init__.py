"""Exercises of chapter 8: real engines."""
