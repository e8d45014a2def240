"""How many kernels an operation of PyTorch launches on a card.

Most launch one. Views, empty tensors and questions about a tensor launch none. Some launch several, and those are in a
table here, by the way in which PyTorch's CUDA code computes them; it is right to a few per cent, no more: how many
kernels a sort takes, or whether cuBLAS splits a product of few rows in two, depends on sizes, cards and versions. Where
there is a card, test_launches.py holds the table against the profiler.
"""

import math

NONE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "lift_fresh",
        "detach", "detach_", "alias", "_local_scalar_dense", "is_pinned", "record_stream", "_reshape_alias", "equal",
        "_unsafe_view", "is_same_size", "_has_compatible_shallow_copy_type", "device"}
# index_put with accumulation sorts the indices: linear index, sort (histogram, sums, two passes), sums by index
MANY = {"index_put": 6, "_index_put_impl_": 6, "sort": 4, "cumsum": 2, "topk": 3, "embedding_dense_backward": 6,
        # rows of any length: the kernel, and the unused state of its random numbers; backward prepares, computes,
        # rounds dq, and adds up dk and dv of the query heads that share a key head
        "_varlen_attn": 2, "_varlen_attn_backward": 5,
        "_scaled_dot_product_flash_attention_backward": 3, "_flash_attention_backward": 3,
        "_scaled_dot_product_efficient_attention_backward": 2, "multinomial": 4}
# Operations on a list of tensors, such as all adapters: how many of them one kernel takes (multi_tensor_apply)
TENSORS = {"_fused_adamw_": 36, "_foreach_norm": 110, "_foreach_add_": 110, "_foreach_mul_": 110, "_foreach_copy_": 64,
           "stack": 128}
CAT = 128  # tensors that one kernel of `cat` joins


def of_many(name: str, tensors: int) -> int:
    """Kernels of an operation on a list of so many tensors."""
    return math.ceil(tensors / TENSORS.get(name, 36)) + (name == "_foreach_norm")


def kernels(func, args: tuple, kwargs: dict) -> int:
    """Kernels that `func(*args, **kwargs)` launches, its tensors being on a card; at least."""
    name = func.overloadpacket.__name__
    if name in NONE or func.is_view:
        return 0
    if name in TENSORS or name.startswith("_foreach_"):
        return of_many(name, len(args[0]))
    if name == "cat":
        return math.ceil(len(args[0]) / CAT)
    if name in ("index_put_", "_index_put_impl_", "index_put"):
        accumulates = kwargs.get("accumulate", args[3] if len(args) > 3 else False)
        return MANY["index_put"] if accumulates else 1
    return MANY.get(name, 1)
