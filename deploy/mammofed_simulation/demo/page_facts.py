"""The page's lower half: who took part, what left each hospital, and how it was made."""

from collections.abc import Sequence
from html import escape

from mammofed_simulation.demo.html import paragraph, section, table
from mammofed_simulation.demo.results import FINDINGS, Results


def populations_section(results: Results) -> str:
    """What each hospital holds."""
    rows = [
        [
            item.site,
            item.dataset + ("" if item.is_phantom else " (real)"),
            ", ".join(item.vendors),
            item.texts,
            f"{item.num_images:,}",
            f"{item.num_refused:,}",
            f"{item.num_train} / {item.num_test}",
            *(f"{item.prevalence[finding]:.0%}" if finding in item.prevalence else "–" for finding in FINDINGS),
            " ".join(f"{letter} {count}" for letter, count in item.density.items()) or "–",
        ]
        for item in results.populations
    ]
    headings = ["hospital", "data set", "vendor", "text", "images", "refused files", "exams train / test"]
    return section(
        "The hospitals",
        paragraph(
            "They differ so that joining can pay: in vendor (tone curve, bit depth, transfer syntax), in "
            "density, and in "
            "how often a finding occurs. Refused files are those that every export holds besides: a raw image, a "
            "file cut "
            "short, a note. Files are split by patient."
        ),
        table([*headings, *FINDINGS, "density A–D"], rows, num_words=4),
    )


def departures_section(results: Results) -> str:
    """What left each hospital, for its security officer."""
    rows = [
        [
            item.site,
            str(item.num_visits),
            f"{item.num_bytes / 1e6:,.1f} MB",
            str(item.num_evaluations),
            str(item.refused),
        ]
        for item in results.departures
    ]
    numbers = sorted({name for item in results.departures for name in item.numbers})
    return section(
        "What left each hospital",
        paragraph(
            "Counted in each hospital's own audit record, which is written before anything is sent. The protocol "
            "has no "
            "type that could carry an image, a report or an identifier. Weights are derived from patients' data: "
            "there is "
            "no secure aggregation and no differential privacy here, and the coordinator sees each hospital's update."
        ),
        table(["hospital", "updates", "weights sent", "evaluations", "updates refused"], rows),
        paragraph("All numbers that were released: " + ", ".join(f"`{name}`" for name in numbers) + "."),
        paragraph(
            "Every connection was opened by the hospital, over TLS 1.3 with a certificate on both sides. Each hospital "
            "made its own key; the certificate authority signed it against the key's fingerprint. The process "
            "that trains "
            "has neither the certificate nor the coordinator's address."
        ),
    )


def making_section(results: Results, commands: Sequence[str]) -> str:
    """Commands, checksums and minutes."""
    killed = results.interruption
    story = (
        "No client was killed: none was seen in the middle of a visit."
        if killed is None
        else f"The client of {killed.site} was killed with SIGKILL at step {killed.step} of {killed.num_steps} of its "
        f"visit in round {killed.round} and started again; it did the visit anew and the run went on."
    )
    minutes = table(["part", "minutes"], [[name, f"{value:.1f}"] for name, value in results.minutes.items()])
    return section(
        "How it was made",
        paragraph(
            "Each hospital's PACS export was written as DICOM and prepared by the same command that a hospital "
            "runs. Then "
            f"a coordinator and {len(results.sites)} clients ran as separate processes. {story} The comparisons ran "
            "through `fl-simulate` on the same prepared data."
        ),
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        table(
            ["the model", ""],
            [
                ["SHA-256 of its weights", results.model_sha256],
                ["values", f"{results.num_values:,}"],
                ["SHA-256 of the text encoder's folder", results.text_encoder],
                ["software", results.code],
                ["MLflow", results.mlflow],
            ],
            num_words=2,
        ),
        minutes,
        paragraph(
            "Everything here comes from `results.json` beside this page. To see the same weights again, run the "
            "demo with "
            "the same seed on the same kind of machine."
        ),
    )
