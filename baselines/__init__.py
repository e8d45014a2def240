"""What people would use instead of a fine-tuned model: TF-IDF with a regression, and sentence encoders."""
