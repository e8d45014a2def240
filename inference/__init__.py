"""Labels for posts from a finished run, and text from any checkpoint."""
