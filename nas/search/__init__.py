"""What to try next: samplers of Optuna behind small adapters, through ask and tell."""
