"""Training and scoring of candidates: a `Job` in, a `Result` out."""
