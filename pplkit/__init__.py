"""Proactive privacy-preserving learning for retrieval (AAAI 2021), as a course and a small library."""

__version__ = "0.1.0"
