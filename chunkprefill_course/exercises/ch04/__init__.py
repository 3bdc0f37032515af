"""Exercises of chapter 4: who waits for whom."""
