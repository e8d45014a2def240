"""What every folder may import: errors for people, files written whole, options, terminal output, the packed batch."""
