"""One small addition of each sort that docs/adding.md explains, as somebody outside of the project would write it."""
