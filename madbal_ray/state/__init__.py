"""Folders, keys, markers, tables and locks."""
