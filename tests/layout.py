"""How the texts of a figure lie: whether one is small, leaves the page or covers another."""

import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def shown_texts(figure):
    """The texts that can be seen, each with its box in pixels, and the renderer's page."""
    figure.draw_without_rendering()
    unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
              for label in (tick.label1, tick.label2) if not axes.axison or not within(tick.get_loc(), axis.get_view_interval())}
    texts = [t for t in dict.fromkeys(figure.findobj(Text)) if t not in unseen and t.get_visible() and t.get_text().strip()]
    boxes = [(t, t.get_window_extent(figure._get_renderer())) for t in texts]
    return [(t, box) for t, box in boxes if box.width > 0]


def within(place, limits):
    return min(limits) - 1e-9 <= place <= max(limits) + 1e-9


def faults(figure):
    """Texts smaller than 7 points, over another text, or off the page."""
    boxes, sheet = shown_texts(figure), figure.bbox.padded(1)
    found = [f"{t.get_text()!r} is small" for t, _ in boxes if t.get_fontsize() < 7]
    found += [f"{t.get_text()!r} leaves the page" for t, box in boxes if (inside := Bbox.intersection(box, sheet)) is None or
              not inside.size == pytest.approx(box.size)]
    return found + [f"{a.get_text()!r} over {b.get_text()!r}" for i, (a, first) in enumerate(boxes) for b, second in boxes[i + 1:]
                    if (shared := Bbox.intersection(first, second)) is not None and min(shared.width, shared.height) > 1]
