"""Where jobs run: in this process, in long-lived local workers, or on a Dask cluster."""
