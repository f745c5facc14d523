"""What can be derived from what: the tables and pictures of docs/layouts.md.

    python examples/derived_layouts.py            # rewrites both
    python examples/derived_layouts.py A B OUT.svg   # a picture of layout B derived from A

Layout A must be one that the toy data know: kinectv2_25, smpl_24, smplx_42, berkeley_mhad_43.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from msclr import layouts
from msclr.data.toy import body
from msclr.data.toy.conventions import SENSORS
from msclr.errors import InputError
from msclr.layouts import Layout

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAIRS = [
    ("kinectv2_25", "coco_19"),
    ("kinectv2_25", "h36m_17"),
    ("kinectv2_25", "smpl_24"),
    ("smplx_42", "kinectv2_25"),
    ("berkeley_mhad_43", "smpl_24"),
]
SCALE, MARGIN, PANEL = 150, 12, 200  # pixels a metre; pixels around and of one view


def standing_body(layout: str) -> np.ndarray:
    """The joints (V, 3) of a standing body with its arms a little apart."""
    someone = body.Subjects(*(field[:1] for field in body.draw_subjects(0)))
    controls = np.zeros((1, body.CONTROLS), np.float32)
    for side in "lr":
        controls[:, body.CONTROL[side + "hand"]] = 0.4, -0.85, 0.1, 0, 0
        controls[:, body.CONTROL[side + "foot"]] = 0.1, 0, 0, 0
    ground = np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32)
    bones = body.pose_bones(controls, someone, ground)  # (1, 3, B, 4)
    return (bones.reshape(3, -1) @ SENSORS[layout].skin).T


def picture(source: Layout, target: Layout) -> str:
    """SVG: the joints of `source` in grey, those derived from them in colour, from two sides."""
    from_joints = standing_body(source.name)  # (V, 3)
    to_joints = layouts.derivation(source, target) @ from_joints
    height = from_joints[:, 1].max() + 0.1
    parts = []
    for view, axis in enumerate((0, 2)):  # from the front and from its left
        sign = 1 if axis == 0 else -1
        for layout, joints, style in ((source, from_joints, "s"), (target, to_joints, "d")):
            x = MARGIN + PANEL * (view + 0.5) + SCALE * sign * joints[:, axis]
            y = MARGIN + SCALE * (height - joints[:, 1])
            parts.append(f'<g class="{style}">{_drawn(layout, np.stack([x, y], axis=1))}</g>')
    width, tall = 2 * (PANEL + MARGIN), round(2 * MARGIN + SCALE * height)
    style = (
        ".s{stroke:#999;fill:#999;stroke-width:4;stroke-opacity:.45;fill-opacity:.6}"
        ".d{stroke:#c2410c;fill:#c2410c;stroke-width:1.3}text{font:11px sans-serif;fill:#555}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{tall + 16}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}'
        f'<text x="{MARGIN}" y="{tall + 6}">{target.name} (red) derived from {source.name} (grey)'
        "</text></svg>\n"
    )


def _drawn(layout: Layout, at: np.ndarray) -> str:
    lines = [
        f'<line x1="{at[a, 0]:.1f}" y1="{at[a, 1]:.1f}" x2="{at[b, 0]:.1f}" y2="{at[b, 1]:.1f}"/>'
        for a, b in layout.bone_indices
    ]
    return "".join(lines + [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in at])


def table() -> str:
    """Markdown: which layouts give each layout, and what speaks against the others."""
    sources = {name: layouts.derivable(layouts.get(name)) for name in layouts.names()}
    rows, never = (
        ["| layout | derived from |", "|---|---|"],
        ["| never derived | because |", "|---|---|"],
    )
    for target in map(layouts.get, sources):
        giving = [name for name, targets in sources.items() if target.name in targets]
        without = [name for name in sources if name not in (*giving, target.name)]
        if giving:
            rest = f"all but {', '.join(without)}" if without else "all"
            shown = rest if len(giving) > len(without) else ", ".join(giving)
            rows.append(f"| {target.name} | {shown} |")
        else:
            free = [joint for joint in target.joints if joint not in dict(target.derived)]
            shown = ", ".join(free[:12]) + (f" and {len(free) - 12} more" if free[12:] else "")
            never.append(f"| {target.name} | no rule for {shown} |")
    return "\n".join([*rows, "", *never])


def main() -> None:
    if len(sys.argv) == 4:
        source, target = map(layouts.get, sys.argv[1:3])
        Path(sys.argv[3]).write_text(picture(source, target), encoding="utf-8")
        return
    page = DOCS / "layouts.md"
    marked = r"(<!-- table derivable -->\n).*?(\n<!-- end -->)"
    text = page.read_text(encoding="utf-8")
    text = re.sub(marked, lambda m: m[1] + table() + m[2], text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")
    for source, target in PAIRS:
        svg = picture(layouts.get(source), layouts.get(target))
        (DOCS / "layouts" / f"{target}_from_{source}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
