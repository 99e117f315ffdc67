"""Draws the bars of docs/images/benchmarks.svg, readable on light and dark: no library is worth its weight for one picture."""

from dataclasses import dataclass
from html import escape

_STYLE = """\
text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-weight:600;font-size:14px}.n{font-size:12px}
.a{fill:#8c959f}.o{fill:#0969da}.w{stroke:#1f2328;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{fill:#6e7681}.o{fill:#4493f8}.w{stroke:#e6edf3}}"""
_ROW, _LEFT, _WIDTH, _BARS = 26, 235, 760, 420


@dataclass(frozen=True)
class Bar:
    """One party's messages a second."""

    label: str
    lowest: float
    median: float
    highest: float
    ours: bool


def svg(charts: dict[str, list[Bar]]) -> str:
    """Give the picture: a chart of bars (median) with whiskers (lowest, highest) for each title."""
    parts: list[str] = []
    y = 0
    for title, bars in charts.items():
        scale = _BARS / max(bar.highest for bar in bars)
        y += 28
        parts.append(f'<text class="h" x="8" y="{y}">{escape(title)}</text>')
        y += 12
        for bar in bars:
            parts += _bar(bar, y, scale)
            y += _ROW
    height = y + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f"<title>Messages a second</title><style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    middle = y + 9
    ends = [_LEFT + value * scale for value in (bar.lowest, bar.median, bar.highest)]
    return [
        f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{"o" if bar.ours else "a"}" x="{_LEFT}" y="{y}" width="{ends[1] - _LEFT:.1f}" height="18" rx="2"/>',
        f'<line class="w" x1="{ends[0]:.1f}" y1="{middle}" x2="{ends[2]:.1f}" y2="{middle}"/>',
        f'<text class="n" x="{ends[2] + 8:.1f}" y="{y + 14}">{bar.median:,.0f}</text>',
    ]
