"""The tables, by subject. docs/architecture.md draws them; the invariants are constraints wherever a constraint can say them.

Importing any of them loads all: foreign keys and migrations need every table to be known.
"""

from hub.registry.models import access, adapters, bases, content, instance, jobs

__all__ = ["access", "adapters", "bases", "content", "instance", "jobs"]
