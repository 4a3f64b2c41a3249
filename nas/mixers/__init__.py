"""Token mixers: causal, with a state for decoding."""
