"""Networks: blocks, families, the factory that builds them, and generation."""
