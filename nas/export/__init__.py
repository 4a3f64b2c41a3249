"""Trained candidates as folders that load anywhere nas is installed, with their model cards."""
