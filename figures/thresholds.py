"""F13: the imbalance at which minority classes merge into one vector without the ReLU, against the temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from figures import style
from figures.style import Figure

RATIOS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]


def draw(data: Sequence[xr.Dataset]) -> Figure:
    """R* against tau, with a line for each loss. The bars are brackets whose two ends are certified. Triangles: not
    merged up to this ratio.

    Losses under which minorities do not merge up to the largest ratio, at any temperature, appear in the legend only.
    """
    losses = list(dict.fromkeys(str(cell.attrs["loss"]) for cell in data))
    with style.applied():
        figure = Figure(figsize=(style.width(style.ONE_COLUMN), 3.0), layout="constrained")
        axis = figure.subplots()
        for index, loss in enumerate(losses):
            look = style.line(index, len(losses))
            of_loss = sorted(
                (cell.attrs for cell in data if str(cell.attrs["loss"]) == loss), key=lambda attrs: attrs["tau"]
            )
            tau, low, high = (np.array([attrs[name] for attrs in of_loss]) for name in ("tau", "R_apart", "R_merged"))
            merges, beyond = np.isfinite(low) & np.isfinite(high), np.isfinite(low) & ~np.isfinite(high)
            middle = np.where(merges, np.sqrt(low * high), np.nan)
            label = loss if merges.any() else f"{loss}: no merging up to R = {of_loss[0]['most_R']:g}"
            axis.errorbar(
                tau,
                middle,
                yerr=np.where(merges, [middle - low, high - middle], 0.0),
                label=label,
                marker=style.MARKERS[index % len(style.MARKERS)],
                ms=3.2,
                mfc="white",
                capsize=1.5,
                elinewidth=0.7,
                **look,
            )
            if merges.any():
                axis.plot(tau[beyond], low[beyond], marker="^", ls="", ms=5, color=look["color"])
        axis.set_xscale("log")
        axis.set_yscale("log")
        taus = sorted({float(cell.attrs["tau"]) for cell in data})
        axis.set_xticks(taus, [f"{tau:g}" for tau in taus])
        ends = [ratio for cell in data for ratio in (cell.attrs["R_apart"], cell.attrs["R_merged"])]
        reached = np.array(ends)[np.isfinite(ends)]
        ratios = [ratio for ratio in RATIOS if reached.min(initial=1e9) / 2 < ratio < reached.max(initial=0) * 2]
        axis.set_yticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axis.minorticks_off()
        axis.set_xlabel(r"temperature $\tau$")
        axis.set_ylabel(r"R$^*$, at which minorities merge")
        attrs = data[0].attrs
        figure.suptitle(f"UFM (no ReLU), step imbalance, k = {attrs['k']}\ncertified on both sides")
        figure.legend(loc="outside lower center", ncols=2, handlelength=3, columnspacing=1.0)
    return figure
