"""Runs that are done: their folders and records, compared with one another and with reports."""
