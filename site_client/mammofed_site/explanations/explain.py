"""One exam of a site, explained. Torch lives here; ``command.py`` loads this module by name."""

from collections.abc import Callable
from pathlib import Path

import torch

from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.risk import exam_slots, is_readable
from mammofed_shared.errors import ConfigurationError, DataError, VisitFailed
from mammofed_shared.exam import Exam
from mammofed_shared.interpretability.asymmetry_map import explain_by_asymmetry
from mammofed_shared.interpretability.exam_maps import exam_maps
from mammofed_shared.interpretability.neuron_parts import explain_by_neurons
from mammofed_site.explanations.command import PAGES_FOLDER, ExplainRequest
from mammofed_site.explanations.find_exam import FoundExam
from mammofed_site.explanations.models import ExplainingModels, load_models
from mammofed_site.explanations.page import PageContent, write_explanation_page

Report = Callable[[int, int], None]


def explain(settings: SiteSettings, found: FoundExam, request: ExplainRequest, report: Report) -> Path:
    """Write ``<folder>/explanations/<exam>.html`` and give its path.

    Args:
        report: called with the number of coalitions of neurons that were tried, and of all.

    Raises:
        ConfigurationError: a model is missing, of another run, or gives no numbers.
        DataError: the exam cannot be read, or no head reads exams with its views.
    """
    torch.set_num_threads(settings.worker.threads)
    models = load_models(settings, request.risk, request.autoencoder)
    folders = {item.name: settings.prepared_folder(item) for item in settings.datasets}
    exams = read_exams([(found.dataset, folders[found.dataset])], models.preprocessing, only=found.exam)
    if not exams:
        raise DataError("this exam has no image that may be looked at: all are shared with another patient")
    content = explained(models, exams[0], request, report, site=settings.site)
    page = settings.folder / PAGES_FOLDER / f"{found.exam}.html"
    write_explanation_page(page, content)
    return page


def explained(
    models: ExplainingModels, exam: Exam, request: ExplainRequest, report: Report, *, site: str
) -> PageContent:
    """What the page of an exam tells; of two heads, one may have no say in an exam that lacks views.

    Raises:
        ConfigurationError: a model gives no numbers.
        DataError: an image cannot be read, or no head reads exams with these views.
    """
    maps = exam_maps(models.image_encoder, exam, models.device)
    neurons = pairs = None
    if models.neurons is not None and models.reader is not None and _reads(models.neurons.settings, exam):
        try:
            neurons = explain_by_neurons(
                models.reader,
                models.neurons.head,
                maps,
                exam.report,
                year=request.year,
                num_neurons=request.num_neurons,
                permutations=request.permutations,
                report_progress=report,
            )
        except VisitFailed as error:  # what a visit would tell the coordinator is told here
            raise ConfigurationError(f"the models give no explanation: {error}") from error
    if models.pairs is not None and _reads(models.pairs.settings, exam):
        pairs = explain_by_asymmetry(models.pairs.head, models.pairs.window, maps)
    if neurons is None and pairs is None:
        raise DataError(
            "no head of --risk reads this exam, for want of views: a run of risk-mirai with `missing_views: mask` "
            "reads every exam"
        )
    return PageContent(
        site=site,
        exam=exam,
        maps=maps,
        neurons=neurons,
        pairs=pairs,
        permutations=request.permutations,
        origins=models.origins,
    )


def _reads(task: RiskMiraiSettings | RiskAsymmiraiSettings, exam: Exam) -> bool:
    """Whether the head of a run takes exams with these views."""
    return is_readable(exam_slots(task.features, exam), task.missing_views)
