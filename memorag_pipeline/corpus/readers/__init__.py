"""Readers of document formats, one file for each; `corpus/parser.py` lists them by media type."""
