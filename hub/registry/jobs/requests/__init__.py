"""Requests for jobs. Each kind has one module: its request, and the code that checks it and pins its inputs."""
