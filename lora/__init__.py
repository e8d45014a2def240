"""LoRA: a small trainable product beside each frozen linear, where it goes, what is saved."""
