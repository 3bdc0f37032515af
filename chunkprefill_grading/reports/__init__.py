"""What students and instructors are shown: feedback, summaries, tables."""
