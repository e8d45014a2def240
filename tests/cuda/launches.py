"""How many kernels an operation of PyTorch launches on a card.

Most launch one. Views, empty tensors and questions about a tensor launch none. The others are in a table here: what
they launch was read in PyTorch's CUDA sources (2.11); where it depends on sizes, the least. cuBLAS may split a product
of few rows in two kernels, which is not counted either, so a real step launches a few more.
"""

import math

import torch

aten = torch.ops.aten
NONE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "lift_fresh",
        "detach", "detach_", "alias", "_local_scalar_dense", "is_pinned", "record_stream", "_reshape_alias", "equal",
        "_unsafe_view", "is_same_size", "_has_compatible_shallow_copy_type", "device"}
# index_put with accumulation sorts the indices: linear index, sort (histogram, sums, two passes), sums by index
MANY = {"index_put": 6, "_index_put_impl_": 6, "sort": 4, "cumsum": 2, "topk": 3, "embedding_dense_backward": 6,
        "_scaled_dot_product_flash_attention_backward": 3, "_flash_attention_backward": 3,
        "_scaled_dot_product_efficient_attention_backward": 2, "multinomial": 4}
# multi_tensor_apply: tensors in one launch, by the number of lists that a kernel walks together
FOREACH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
CAT = 128  # tensors that one kernel of `cat` joins
COPIES = {aten._to_copy.default, aten.clone.default, aten.copy_.default, aten.contiguous.default}


def kernels(func, args: tuple, kwargs: dict) -> int:
    """Kernels that `func(*args, **kwargs)` launches, its tensors being on a card; at least."""
    name = func.overloadpacket.__name__
    if name in NONE or func.is_view:
        return 0
    if name == "_fused_adamw_":
        return math.ceil(len(args[0]) / FOREACH[4])
    if name.startswith("_foreach_"):
        lists = sum(isinstance(value, list | tuple) and bool(value) and isinstance(value[0], torch.Tensor)
                    for value in args)
        count = math.ceil(len(args[0]) / FOREACH[min(lists + (not name.endswith("_")), 5)])
        return count + 1 if name == "_foreach_norm" else count
    if name in ("cat", "stack"):
        return math.ceil(len(args[0]) / CAT)
    if name in ("index_put_", "_index_put_impl_", "index_put"):
        accumulates = kwargs.get("accumulate", args[3] if len(args) > 3 else False)
        return MANY["index_put"] if accumulates else 1
    return MANY.get(name, 1)
