"""Exercises of chapter 6: what scheduling costs."""
