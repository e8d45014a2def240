"""Rounding inside Triton kernels: float32 to the dtype of the result, to nearest, ties to even.

On a card that is one instruction, `cvt.rn`. Triton's interpreter, with which the tests run the kernels on a CPU, cuts a
bfloat16 off instead; so there the same rounding is spelled out in integers. Which of the two is meant was settled when
the process started: `triton.jit` itself returns something else in a process that interprets.
"""

import triton
import triton.language as tl

if triton.knobs.runtime.interpret:

    @triton.jit
    def rounded(x, dtype: tl.constexpr):
        """x float32 -> the same shape in `dtype`."""
        if dtype == tl.bfloat16:
            bits = x.to(tl.uint32, bitcast=True)
            # Half a unit of the last place that stays, less one, plus that place's own bit: ties go to even.
            bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            bits = tl.where(x != x, 0x7FC0, bits)  # a NaN stays one
            return bits.to(tl.uint16).to(tl.bfloat16, bitcast=True)
        return x.to(dtype)

else:

    @triton.jit
    def rounded(x, dtype: tl.constexpr):
        """x float32 -> the same shape in `dtype`."""
        return x.to(dtype)
