"""Contracts between what submits a job, the worker that runs it, and what shows it: the params, result and manifest of each kind.

JSON is their form in the database's columns and in `loraloom.json`, and nowhere else.
"""
