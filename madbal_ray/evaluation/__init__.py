"""Measuring a trained network on whole masks."""
