"""Parameters and multiply-adds as published, with the unit in which they are reproduced.

"M" and "G" are 10^6 and 10^9 in some columns of the papers and 2^20 and 2^30 in others, and their multiply-adds exclude
different operations. The units here are those in which the networks of the authors' code give the printed digits, for
images of 224 pixels and 1000 classes, or 1024 points and 40 classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

M, G, MI, GI = 10**6, 10**9, 2**20, 2**30


@dataclass(frozen=True)
class Published:
    """The published size of a model.

    Args:
        parameters, per: as printed, and the unit.
        macs, macs_per: the same for multiply-adds; None if the paper gives none.
        counted: which sum of `pointmix.profile.macs.Macs` is printed.
    """

    parameters: str
    per: int
    macs: str | None = None
    macs_per: int = G
    counted: Literal["linear", "total"] = "total"


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
