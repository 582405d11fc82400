"""Configuration: frozen pydantic models over YAML. Read at the edge, turned into plain arguments below it."""
