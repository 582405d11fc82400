"""Results of a demo that never ran, with round figures; for tests of the demo's tables, page and picture."""

from mammofed_simulation.demo.results import (
    Aurocs,
    Departure,
    Entry,
    Interruption,
    Point,
    Population,
    Results,
    SeededRun,
    check_bar,
)

SITES = ("central", "mayo", "emory")
UNTRAINED: Aurocs = {
    "mass": {"central": 0.52, "mayo": 0.6, "emory": 0.5, "all": 0.55},
    "calcification": {"central": 0.5, "mayo": None, "emory": 0.48, "all": 0.5},
}
TRAINED: Aurocs = {
    "mass": {"central": 0.96, "mayo": 0.97, "emory": 0.91, "all": 0.95},
    "calcification": {"central": 0.7, "mayo": None, "emory": 0.66, "all": 0.68},
}


def shifted(aurocs: Aurocs, by: float) -> Aurocs:
    """The same AUROCs, each moved by a number."""
    return {
        finding: {place: None if value is None else round(value + by, 6) for place, value in values.items()}
        for finding, values in aurocs.items()
    }


def entry(kind: str, *runs: Aurocs, seeded: bool = True) -> Entry:
    """A row of the comparison with a run for each of ``runs``."""
    seeds = [number + 1 if seeded else None for number in range(len(runs))]
    return Entry(
        kind=kind,
        label=kind.replace("-", " "),
        how=f"How {kind} was made.",
        runs=tuple(
            SeededRun(seed=seed, num_steps=270 if seeded else 0, auroc=run)
            for seed, run in zip(seeds, runs, strict=True)
        ),
    )


def some_results() -> Results:
    """Three hospitals, three visits, a bar that is met."""
    halfway = shifted(UNTRAINED, 0.2)
    points = tuple(
        Point(
            turn=turn,
            round=1 if turn else 0,
            trained=(SITES[turn - 1],) if turn else (),
            loss=2.0 if turn else None,
            auroc=auroc,
            density_accuracy={"central": 0.25 + 0.1 * turn},
        )
        for turn, auroc in enumerate((UNTRAINED, halfway, shifted(halfway, 0.05), TRAINED))
    )
    fedavg = entry("fedavg", shifted(TRAINED, -0.02))
    return Results(
        seed=1,
        date="2026-11-22",
        code="0.1.0 <test>",
        model_sha256="ab" * 32,
        num_values=1234567,
        text_encoder="cd" * 32,
        minutes={"Hospitals": 0.5, "Joint run": 1.25},
        sites=SITES,
        points=points,
        entries=(
            entry("joint", TRAINED, shifted(TRAINED, -0.02)),
            fedavg,
            entry("pooled", TRAINED),
            entry("alone-central", shifted(TRAINED, -0.1), shifted(TRAINED, -0.2)),
            entry("untrained", UNTRAINED),
            entry("baseline", UNTRAINED, seeded=False),
        ),
        checks=check_bar(points, fedavg, SITES),
        populations=(
            Population(
                site="central",
                dataset="central-screening",
                is_phantom=True,
                vendors=("hologic",),
                texts="reports",
                num_images=760,
                num_refused=3,
                num_train=120,
                num_test=70,
                prevalence={"mass": 0.5, "calcification": 0.25},
                density={"A": 19, "B": 171},
            ),
        ),
        departures=(
            Departure(site="mayo", num_visits=6, num_evaluations=19, num_bytes=6_000_000, numbers=("loss",), refused=0),
        ),
        interruption=Interruption(site="mayo", round=3, visit=2, step=7, num_steps=15),
        mlflow="sqlite:///demo/server/mlflow.db",
    )
