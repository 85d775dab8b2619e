"""The names of places: a problem, a replicate and a checkpoint, where estimators are compared."""

from collections.abc import Iterable

Place = tuple[str, int, str | int]  # problem, replicate and checkpoint


def member(problem: str) -> str:
    """Return the variant of a problem, or its name if it has none."""
    return problem.partition("[")[2].rstrip("]") or problem


def base(problem: str) -> str:
    """Return the name of a problem without its variant."""
    return problem.partition("[")[0]


def place_names(places: Iterable[Place]) -> dict[Place, str]:
    """Return a name for each of some places, which has what distinguishes it from the others."""
    places = list(dict.fromkeys(places))
    problems = dict.fromkeys(problem for problem, _, _ in places)
    replicates = {replicate for _, replicate, _ in places}
    checkpoints = {checkpoint for _, _, checkpoint in places}
    short = {problem: member(problem) for problem in problems}
    if len(set(short.values())) < len(short):
        short = {problem: problem for problem in problems}
    found = {}
    for place in places:
        problem, replicate, checkpoint = place
        parts = [short[problem]] * (len(problems) > 1)
        parts += [f"replicate {replicate}"] * (len(replicates) > 1)
        parts += [str(checkpoint)] * (len(checkpoints) > 1 or not parts)
        found[place] = ", ".join(parts)
    return found
