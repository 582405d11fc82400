"""Whether this site takes part in a visit. The site decides; the coordinator cannot loosen it."""

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.errors import ConfigurationError, DataError, RefusalCode, Refused
from mammofed_shared.protocol.plan import Plan


def permit(plan: Plan, settings: SiteSettings) -> None:
    """Return if the plan may run here.

    Raises:
        Refused: POLICY (another site's plan), NO_DATA (a data set is not prepared), PREPROCESSING_MISMATCH,
            TEXT_ENCODER_MISMATCH; the message, which stays here, says what to do.
    """
    if plan.site != settings.site:
        raise Refused(RefusalCode.POLICY, f"the plan is for site {plan.site}, this is {settings.site}")
    for dataset in settings.datasets:
        try:
            prepared = read_preprocessing(settings.prepared_folder(dataset))
        except DataError as error:
            raise Refused(error.code, f"data set {dataset.name}: {error}") from error
        if prepared.digest != plan.preprocessing:
            raise Refused(
                RefusalCode.PREPROCESSING_MISMATCH,
                f"data set {dataset.name} was prepared with other settings than the run asks for: make `preprocessing` "
                "in the site's YAML equal to the run's and run `site-client preprocess` again",
            )
    try:
        found = folder_digest(settings.text_encoder)
    except ConfigurationError as error:
        raise Refused(RefusalCode.TEXT_ENCODER_MISMATCH, str(error)) from error
    if found != plan.text_encoder:
        raise Refused(
            RefusalCode.TEXT_ENCODER_MISMATCH,
            f"the run asks for a text encoder with SHA-256 {plan.text_encoder}, the folder here has {found}: "
            "ask the lead for the same files",
        )
