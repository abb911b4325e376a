"""Finished runs: their folders and records, and comparisons with other runs and with reports."""
