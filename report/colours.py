"""How well two colours stand out against each other, as WCAG 2.2 counts it, and the ink that can be read on a shade.

    contrast("#000000", "#ffffff") -> 21.0        ink_on("#3f86b8") -> "#000000"

Text needs 4.5 to 1 (1.4.3), what carries meaning in a picture 3 to 1 (1.4.11).
"""

from matplotlib.colors import to_rgb


def luminance(colour) -> float:
    """Relative luminance, 0.2126 R + 0.7152 G + 0.0722 B of the linear sRGB parts (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    """Contrast ratio of two colours, (L1 + 0.05) / (L2 + 0.05) with L1 the lighter one's relative luminance."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink_on(shade) -> str:
    """Black or white, whichever contrasts more with the shade: at least 4.5 to 1 on any."""
    return "#000000" if contrast(shade, "#000000") >= contrast(shade, "#ffffff") else "#ffffff"
