#!/usr/bin/env python3
"""Makes the fixtures of tests/unit/quant.c: NAME.bin is some blocks of the type NAME, then the float32 values that the Python
package gguf (0.19.0) finds in them. The blocks are random bits, but every scale is finite. The tests need only the files.

    python3 tests/quant/make_fixtures.py
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, GGML_QUANT_SIZES, quants

# Where each type's f16 scales are in a block.
HALVES = {
    "F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}
COUNT = {"F32": 64, "F16": 512, "BF16": 512, "MXFP4": 256}
# Both zeros; the smallest and the largest subnormal, the smallest normal, the largest, of either sign; one.
SPECIAL = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00]


def finite_halves(rng, n):
    """n finite f16, specials first, then half of them of a size that weights have, half any."""
    any_ = rng.integers(0, 0x7C00, n)
    usual = rng.integers(0x1000, 0x2C00, n)
    h = np.where(rng.random(n) < 0.5, any_, usual) | rng.integers(0, 2, n) << 15
    k = min(n, len(SPECIAL))
    h[:k] = SPECIAL[:k]
    return h.astype("<u2")


def blocks_of(name, rng):
    per, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    n = COUNT.get(name, 18 if per == 256 else 48)
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if name == "F32":
        v = b.view("<u4")
        v[(v & 0x7F800000) == 0x7F800000] = 0x3F800000
    elif name == "BF16":
        v = b.view("<u2")
        v[(v & 0x7F80) == 0x7F80] = 0x3F80
        v[: len(SPECIAL), 0] = [0, 0x8000, 1, 0x8001, 0x7F, 0x807F, 0x80, 0x8080, 0x7F7F, 0xFF7F, 0x3F80, 0xBF80]
    elif name == "MXFP4":
        b[:, 0] = np.arange(n)
    elif len(HALVES[name]) == 2:
        # Every special scale with a usual minimum and the other way round.
        k = len(SPECIAL)
        d, m = finite_halves(rng, n), finite_halves(rng, n)
        m[:k] = rng.permutation(m[:k])
        b[:, HALVES[name][0] : HALVES[name][0] + 2] = d.view(np.uint8).reshape(n, 2)
        b[:, HALVES[name][1] : HALVES[name][1] + 2] = m.view(np.uint8).reshape(n, 2)
    else:
        at = HALVES[name][0]
        b[:, at : at + 2] = finite_halves(rng, n).view(np.uint8).reshape(n, 2)
    if name == "Q8_0":  # the only type with too many codes for chance to reach them all
        b[-8:, 2:] = np.arange(256, dtype=np.uint8).reshape(8, 32)
    return b


def main():
    here = pathlib.Path(__file__).parent
    for name in ["F32", "BF16", "MXFP4", *HALVES]:
        rng = np.random.default_rng(list(name.encode()))
        b = blocks_of(name, rng)
        with np.errstate(over="ignore"):  # the largest scales of MXFP4
            values = quants.dequantize(b, GGMLQuantizationType[name]).astype("<f4")
        assert not np.isnan(values).any(), name
        (here / f"{name}.bin").write_bytes(b.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
