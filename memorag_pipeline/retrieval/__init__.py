"""Retrieval: embedding models, the Faiss index, search, and the choice of evidence."""
