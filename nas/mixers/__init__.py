"""Token mixers: causal but for a prefix, with a state for decoding."""
