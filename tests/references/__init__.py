"""Naive references of the mixers, one module for each room of nas/mixers."""
