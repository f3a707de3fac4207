"""What `scripts/train_glyphclip.py` is made of: drawings, views, prompts, tokenizer, model."""
