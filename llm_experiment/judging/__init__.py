"""Pairwise comparison of transcripts, by numbers and by language models."""
