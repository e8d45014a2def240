"""NF4: four bits a weight, the exact bits of bitsandbytes, and a linear that computes from them; GGUF's blocks."""
