"""Walk-jump sampling: a walk among noisy states, and jumps from it to clean samples."""

from hdzoo import hookimpl


@hookimpl
def hdzoo_samplers() -> dict[str, str]:
    return {
        "walk-jump": "hdzoo_walk_jump.samplers:WalkJumpSampler",
        "overdamped-walk-jump": "hdzoo_walk_jump.samplers:OverdampedWalkJumpSampler",
    }


@hookimpl
def hdzoo_reproductions() -> dict[str, str]:
    return {"walk-jump": "hdzoo_walk_jump.reproduction:run"}
