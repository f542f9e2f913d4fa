"""Poses: which way each half of each limb points. x is outwards, y upwards, z forwards."""

from dataclasses import dataclass
from typing import NamedTuple

Direction = tuple[float, float, float]


class Bend(NamedTuple):
    upper: Direction
    lower: Direction


HANGING = Bend((0.52, -0.85, 0.0), (0.20, -0.95, 0.22))
STRAIGHT = Bend((1.0, 0.0, 0.0), (1.0, 0.0, 0.02))
RAISED = Bend((0.80, 0.55, 0.0), (0.35, 0.93, 0.05))
STANDING_LEG = Bend((0.10, -1.0, 0.0), (0.02, -1.0, 0.0))


@dataclass(frozen=True)
class Pose:
    left_arm: Bend = HANGING
    right_arm: Bend = HANGING
    left_leg: Bend = STANDING_LEG
    right_leg: Bend = STANDING_LEG
    seated: bool = False
    waves: bool = False  # one hand is raised, which one the picture says

    def limbs(self, side: str, raised: str) -> tuple[Bend, Bend]:
        arm, leg = (self.left_arm, self.left_leg) if side == "left" else (self.right_arm, self.right_leg)
        return (RAISED if self.waves and side == raised else arm), leg


POSES = {
    "standing": Pose(),
    "t-pose": Pose(STRAIGHT, STRAIGHT),
    "walking": Pose(
        Bend((0.45, -0.80, 0.42), (0.15, -0.80, 0.60)),
        Bend((0.45, -0.80, -0.42), (0.20, -0.95, -0.10)),
        Bend((0.06, -0.90, -0.42), (0.0, -0.86, -0.50)),
        Bend((0.06, -0.90, 0.45), (0.0, -1.0, 0.12)),
    ),
    "arms up": Pose(RAISED, RAISED),
    "waving": Pose(waves=True),
    "sitting": Pose(
        Bend((0.50, -0.75, 0.30), (0.05, -0.75, 0.65)),
        Bend((0.50, -0.75, 0.30), (0.05, -0.75, 0.65)),
        Bend((0.22, -0.06, 1.0), (0.10, -0.10, 1.0)),
        Bend((0.22, -0.06, 1.0), (0.10, -0.10, 1.0)),
        seated=True,
    ),
}
