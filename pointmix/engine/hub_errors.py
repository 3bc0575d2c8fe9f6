"""Errors of the Hugging Face hub in one line that says what to do."""

from __future__ import annotations

from pointmix.utils.messages import one_line

LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
STATUS = {
    401: f"the hub does not accept the token; {LOG_IN}",
    403: "the token has no permission to do this; expected one that may write to this repository",
}


def why_not(error: Exception) -> str:
    """Why a request to the hub failed."""
    from huggingface_hub import constants, errors

    nobody = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"no answer from {constants.ENDPOINT}"
    reasons: dict[type[Exception], str] = {  # derived classes first
        errors.GatedRepoError: f"its owner gives access on request only; ask for it on its page, then {LOG_IN}",
        errors.RepositoryNotFoundError: f"the hub has no such repository, or it is private: then {LOG_IN}",
        errors.RevisionNotFoundError: "the repository has no such revision",
        errors.LocalEntryNotFoundError: f"{nobody}, and it is not in the cache",
        errors.OfflineModeIsEnabled: nobody,
        errors.EntryNotFoundError: "the repository has no such file; pickles such as pytorch_model.bin are not read",
    }
    for kind, reason in reasons.items():
        if isinstance(error, kind):
            return reason
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in STATUS:
        return STATUS[status]
    if type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionError"):  # of httpx or requests
        return nobody
    return one_line(error)
