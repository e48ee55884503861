"""Rollouts that other programs saved, one file per format, read as a stream of completions."""
