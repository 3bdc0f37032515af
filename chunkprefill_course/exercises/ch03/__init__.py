"""Exercises of chapter 3: who runs next."""
