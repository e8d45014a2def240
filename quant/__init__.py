"""NF4: four bits a weight, the exact bits of bitsandbytes, and a linear layer that computes from them."""
