"""`Layout`: one skeleton convention, checked once and never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msclr.errors import InputError
from msclr.layouts import _check, _notes, _tree
from msclr.layouts._mirror import pairs_from_names

if TYPE_CHECKING:
    import torch

REQUIRED_KEYS = ("name", "joints", "bones", "center")
OPTIONAL_KEYS = ("aliases", "flip", "outside_graph", "landmarks", "derived")


@dataclass(frozen=True, init=False, repr=False)
class Layout:
    """One skeleton convention. Immutable and hashable; equal when all its fields are equal, but for
    `landmarks` and `derived`: they say how to make joints, not what joints there are.

    name: lower-case letters, digits and underscores.
    joints: 1 to 128 different joint names; their order is the order of the joint axis V.
    bones: (child, parent) pairs of joint names, the parent nearer to the centre. A bone that closes
        a loop comes after the ones that form the tree: a joint's parent is that of its first bone.
        Of the joints that bones join to the centre, one alone is without a parent.
    center: the joint from which graph distances are counted.
    aliases: further names that `msclr.layouts.get` answers to.
    flip: the (left, right) pairs of joints that change places in a mirror. None derives them from
        the names: "lhip"/"rhip", "LUpperArm"/"RUpperArm", "HipLeft"/"HipRight", "hip_l"/"hip_r";
        or left, right, l or r as a part of its own: "wingL4"/"wingR4", "Bip01 L Hand"/"Bip01 R
        Hand", "mixamorig:LeftArm"/"mixamorig:RightArm"; always only where both joints exist. Given
        pairs replace that rule; [] says that there are none. They are kept in `mirror_pairs`; the
        attribute `flip` is the permutation.
    outside_graph: those of `bones` that are no links of `adjacency`. They serve the bone stream and
        pictures, where a published graph leaves joints without a link that its weights rely on.
    landmarks: places of the body that these joints tell, by name: a joint, or weights over joints
        that sum to 1, also negative ones. `msclr.layouts.derivation` makes other layouts of them.
    derived: how joints of this layout follow from landmarks, another layout's: a landmark or
        weights over landmarks that sum to 1. A joint that `landmarks` gives as a landmark follows
        from that landmark and need not be named here; the first counts if there are several. Other
        joints without an entry cannot be derived.

    Raises InputError, one line that names the key and the mend, for anything else. What is odd but
    may be meant so is logged as a warning, once a layout: joints that no bone joins to the centre,
    or no left-right pair among the names.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]
    center: str
    aliases: tuple[str, ...]
    mirror_pairs: tuple[tuple[str, str], ...]
    outside_graph: tuple[tuple[str, str], ...]
    landmarks: _check.Rules = field(compare=False)
    derived: _check.Rules = field(compare=False)

    def __init__(
        self,
        name: str,
        joints: Sequence[str],
        bones: Sequence[Sequence[str]],
        center: str,
        aliases: Sequence[str] = (),
        flip: Sequence[Sequence[str]] | None = None,
        outside_graph: Sequence[Sequence[str]] = (),
        landmarks: Mapping[str, str | Mapping[str, float]] | None = None,
        derived: Mapping[str, str | Mapping[str, float]] | None = None,
    ) -> None:
        name = _check.name(name)
        try:
            joints = _check.joints(joints)
            bones = _check.bones(bones, joints)
            center = _check.center(center, joints)
            _tree.check(bones, center)
            rules = _check.rules(landmarks or {}, derived or {}, joints)
            fields = {
                "name": name,
                "joints": joints,
                "bones": bones,
                "center": center,
                "aliases": _check.aliases(aliases, name),
                "mirror_pairs": (
                    pairs_from_names(joints) if flip is None else _check.flip(flip, joints)
                ),
                "outside_graph": _check.outside_graph(outside_graph, bones, joints),
                "landmarks": rules[0],
                "derived": rules[1],
            }
        except InputError as error:
            raise InputError(f"layout {name!r}: {error}") from None
        for key, value in fields.items():
            object.__setattr__(self, key, value)  # the dataclass is frozen
        unpaired = flip is None and not self.mirror_pairs
        _notes.log(name, joints, bones, center, unpaired)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "layout") -> Layout:
        """The layout that `to_dict` described, or that a layout file holds.

        fields: `name`, `joints`, `bones`, `center` and, where wanted, `aliases`, `flip`,
        `outside_graph`, `landmarks` and `derived`. source: what to call the fields' origin in an
        error, such as a file.
        Raises InputError for missing or unknown keys and for whatever `Layout` refuses.
        """
        _check.keys(fields, REQUIRED_KEYS, OPTIONAL_KEYS, source)
        try:
            return cls(**fields)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def to_dict(self, rules: bool = False) -> dict[str, Any]:
        """All fields as strings and lists, ready for JSON; `from_dict` reads them back.

        rules: also `landmarks` and `derived`, if there are any.
        """
        fields = {
            "name": self.name,
            "joints": list(self.joints),
            "bones": [list(bone) for bone in self.bones],
            "center": self.center,
            "aliases": list(self.aliases),
            "flip": [list(pair) for pair in self.mirror_pairs],
            "outside_graph": [list(bone) for bone in self.outside_graph],
        }
        for key in ("landmarks", "derived") if rules else ():
            if kept := getattr(self, key):
                fields[key] = {name: dict(weights) for name, weights in kept}
        return fields

    @property
    def structure(self) -> tuple:
        """What clips and graphs follow from: joints, bones, centre, mirror pairs, outside_graph."""
        return self.joints, self.bones, self.center, self.mirror_pairs, self.outside_graph

    def __repr__(self) -> str:
        return (
            f"Layout({self.name!r}, {self.num_joints} joints, {len(self.bones)} bones, "
            f"center {self.center!r})"
        )

    @property
    def num_joints(self) -> int:
        """V, the number of joints."""
        return len(self.joints)

    @property
    def center_index(self) -> int:
        """Index of the centre on the joint axis."""
        return self.joints.index(self.center)

    @cached_property
    def bone_indices(self) -> tuple[tuple[int, int], ...]:
        """`bones` as (child, parent) indices on the joint axis."""
        index = {joint: i for i, joint in enumerate(self.joints)}
        return tuple((index[child], index[parent]) for child, parent in self.bones)

    # The tensors below are made at each call, so that writing into one spoils no other's.

    @property
    def parents(self) -> torch.Tensor:
        """(V,) int64: each joint's parent, the joint itself where it has none.

        The bone stream is x - x[..., parents, :]: zero at joints without a parent.
        """
        import torch

        return torch.tensor(self._parents)

    @property
    def flip(self) -> torch.Tensor:
        """(V,) int64 permutation, its own inverse, that swaps the left and the right joints.

        x[..., flip, :] of joints (..., V, 3) gives each joint its mirror partner's coordinates.
        """
        import torch

        return torch.tensor(self._flip)

    def adjacency(self, strategy: str = "spatial") -> torch.Tensor:
        """(K, V, V) float32: the links in K parts, columns normalised.

        Entry [k, v, w] weighs joint v's features in joint w's output; it is 1/(links of w + 1) in
        the one part that holds the link, 0 in the others. Each joint also links to itself. Bones in
        `outside_graph` are no links. In "directed" each part is normalised by itself instead.

        strategy:
            "uniform": K = 1, all links.
            "distance": K = 2, the self links; the bones.
            "spatial": K = 3, as in the released graphs of ST-GCN, AimCLR, CrosSCLR and MS-CLR:
                the self links; the bones where dist(v) >= dist(w); those where dist(v) < dist(w),
                with dist = 0 at the centre, 1 at its neighbours and infinity at all other joints.
            "spatial_true": K = 3, by true hop distances to the centre along all bones, as the
                ST-GCN paper writes it (AAAI 2018, eq. 8): dist(v) = dist(w), self links among them;
                dist(v) < dist(w), v closer to the centre; dist(v) > dist(w), v further away.
            "directed": K = 3, as 2s-AGCN and pyskl's mode="spatial": the self links; bones from
                parent v to child w; from child v to parent w.

        Raises InputError for another strategy.
        """
        from msclr.layouts import _graph

        pairs = zip(self.bones, self.bone_indices, strict=True)
        links = [indices for bone, indices in pairs if bone not in self.outside_graph]
        graph = _graph.Graph(self.num_joints, self.bone_indices, links, self.center_index)
        return _graph.adjacency(graph, strategy)

    @cached_property
    def _parents(self) -> tuple[int, ...]:
        parents = dict(reversed(self.bone_indices))  # reversed: a joint's first bone wins
        return tuple(parents.get(joint, joint) for joint in range(self.num_joints))

    @cached_property
    def _flip(self) -> tuple[int, ...]:
        partner = dict(self.mirror_pairs)
        partner |= {right: left for left, right in self.mirror_pairs}
        return tuple(self.joints.index(partner.get(joint, joint)) for joint in self.joints)
