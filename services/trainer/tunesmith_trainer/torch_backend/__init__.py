"""Everything of the trainer that needs PyTorch, beside `fingerprint`, which must not."""
