"""What may be asked of the workers: one module a kind of job, each with its request and how that is checked and pinned."""
