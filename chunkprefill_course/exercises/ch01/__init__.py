"""Exercises of chapter 1: what prefilling builds."""
