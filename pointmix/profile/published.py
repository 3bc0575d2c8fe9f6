"""Parameters and multiply-adds as published, with the unit in which they are reproduced.

"M" and "G" are 10^6 and 10^9 in some columns of the papers and 2^20 and 2^30 in others, and their multiply-adds exclude
different operations. The units here are those in which the networks of the authors' code give the printed digits, for
images of 224 pixels and 1000 classes, or 1024 points and 40 classes; segmenters for 512 pixels and 150 classes. Of
detectors, for 1280 rows, 800 columns and 80 classes, the multiply-adds are within 2 % of the printed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

M, G, MI, GI = 10**6, 10**9, 2**20, 2**30


@dataclass(frozen=True)
class Published:
    """The published size of a model.

    Args:
        parameters, per: as printed, and the unit.
        macs, macs_per: the same for multiply-adds; None if the paper gives none.
        counted: which sum of `pointmix.profile.macs.Macs` is printed.
        kwargs: arguments of the model, where the papers' dense networks differ from their classifiers.
    """

    parameters: str
    per: int
    macs: str | None = None
    macs_per: int = G
    counted: Literal["linear", "total"] = "total"
    kwargs: Mapping[str, object] = field(default_factory=dict)


PUBLISHED = {
    "coc_tiny": Published("5.3", MI, "1.0", GI),
    "coc_tiny2": Published("5.3", MI, "1.0", GI),
    "coc_tiny_plain": Published("5.3", MI, "1.0", GI),
    "coc_small": Published("14.0", MI, "2.6", GI),
    "coc_medium": Published("27.9", MI, "5.5", GI),
    "fec_small": Published("5.5", MI, "1.4", G),
    "fec_base": Published("14.4", MI, "3.4", G),
    "fec_large": Published("28.3", MI, "6.5", G),
    "hcformer_nano": Published("5.1", MI, "0.9", G, "linear"),
    "hcformer_tiny": Published("7.0", M, "1.0", G, "linear"),
    "hcformer_small": Published("16.1", M, "2.9", G, "linear"),
    "hcformer_medium": Published("33.7", M, "6.4", G, "linear"),  # the authors' code gives 33.65
    "pointmlp": Published("12.6", MI),
    "pointmlp_elite": Published("0.68", MI),
}

_COC = dict(centers_per_side=(2, 2, 2, 2))  # "/4"; /25 and /49 have 5 and 7 a side and the same parameters
_FEC = dict(centers_per_side=(10, 10, 5, 5))
_HCFORMER = dict(pad="always")
SEGMENTERS = {  # with Semantic FPN; coc_medium has 31.51 Mi in the authors' code, and 25.2 could not be reproduced
    "coc_small": Published("17.6", MI, "33.5", GI, "linear", _COC),
    "coc_medium": Published("25.2", MI, "48.6", GI, "linear", _COC),
    "fec_small": Published("9.1", MI, "25.3", GI, "linear", _FEC),
    "fec_base": Published("18.0", MI, "34.3", GI, "linear", _FEC),
    "fec_large": Published("31.9", MI, "49.5", GI, "linear", _FEC),
    "hcformer_nano": Published("8.8", MI, "24.0", GI, "linear", _HCFORMER),
    "hcformer_tiny": Published("10.3", MI, "24.8", GI, "linear", _HCFORMER),
    "hcformer_small": Published("18.9", MI, "34.5", GI, "linear", _HCFORMER),
    "hcformer_medium": Published("35.7", MI, "51.7", GI, "linear", _HCFORMER),
}

_FEC_DETECTOR = dict(centers_per_side=(7, 7, 7, 7), windows_per_side=(2, 2, 1, 1), pool_windows_per_side=(2, 1, 1))
DETECTORS = {  # with Mask R-CNN; the authors' code gives 32.72 Mi and 46.68 Mi for coc_small and coc_medium
    "coc_small": Published("33.6", MI, kwargs=_COC),
    "coc_medium": Published("42.1", MI, kwargs=_COC),
    "fec_small": Published("24.3", MI, kwargs=_FEC_DETECTOR),
    "fec_base": Published("33.1", MI, kwargs=_FEC_DETECTOR),
    "fec_large": Published("47.1", MI, kwargs=_FEC_DETECTOR),
    "hcformer_nano": Published("24.0", MI, "173.5", GI, "linear", _HCFORMER),
    "hcformer_tiny": Published("25.5", MI, "176.7", GI, "linear", _HCFORMER),
    "hcformer_small": Published("34.1", MI, "216.0", GI, "linear", _HCFORMER),
    "hcformer_medium": Published("50.8", MI, "285.9", GI, "linear", _HCFORMER),
}
