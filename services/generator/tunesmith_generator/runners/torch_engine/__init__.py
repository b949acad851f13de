"""The part of the embedded runner that needs PyTorch, transformers and PEFT. Imported only inside its threads."""
