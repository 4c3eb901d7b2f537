"""The version of this program. pyproject.toml, /healthz, OpenAPI, the header of every answer and results' manifests take it from here."""

VERSION = "0.2.0"
HEADER = "X-Loraloom-Version"
