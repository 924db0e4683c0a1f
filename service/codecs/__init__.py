"""Bytes to arrays and back. No models and no HTTP here."""
