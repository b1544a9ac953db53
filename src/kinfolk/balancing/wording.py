"""What Kinfolk says about the rules of TorchJD: in words, and where the library has no default.

A rule that is not named here is described by what its source says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinfolk.balancing.library import Setting, Source

SUMMARIES = {
    "aligned_mtl": "Turns and stretches the task gradients until they are orthogonal and equally long, and adds them.",
    "config": "Goes where all task gradients have the same cosine with the update: a pseudo-inverse of their units.",
    "cosmos": "The weighted sum of the losses, less a multiple of their cosine with the weights.",
    "dualproj": "The mean gradient, projected to the nearest direction in which no task's loss rises.",
    "fairgrad": "Weighs task gradients so that utilities are alpha-fair: between efficiency and the worst-off task.",
    "geometric_mean": "The geometric mean of the losses.",
    "graddrop": "In each coordinate draws a sign by how much of the gradient has it, and drops what has the other.",
    "gradvac": "Turns task gradients toward each other until cosines are what they were over the last updates.",
    "imtl_g": "The update whose projections on all task gradients are equally long.",
    "imtl_l": "Learns a scale for each loss, at whose optimum all scaled losses are 1.",
    "krum": "Follows the task gradient whose neighbours are nearest, or the mean of several such.",
    "mgda": "The shortest convex combination of the task gradients: no task's loss rises.",
    "pbi": "How far losses went along a direction of preference, and a multiple of how far beside it.",
    "pcd": "Follows the first present task's gradient as far as each other task keeps a share of its own progress.",
    "stch": "A smooth maximum of the weighted losses (Tchebycheff).",
    "trimmed_mean": "In each coordinate the mean of the task gradients without the largest and smallest ones.",
    "upgrad": "Projects each task's gradient to the nearest direction in which no task's loss rises; their mean.",
}

PAPERS = {
    "aligned_mtl": ("D. Senushkin, N. Patakin, A. Kuznetsov, A. Konushin (2023)", "CVPR. Algorithm 1"),
    "config": ("Q. Liu, M. Chu, N. Thuerey (2024)", "arXiv 2408.11104. Equation 2"),
    "cosmos": ("M. Ruchte, J. Grabocka (2021)", "arXiv 2103.13392"),
    "dualproj": ("D. Lopez-Paz, M. Ranzato (2017)", "NeurIPS"),
    "fairgrad": ("H. Ban, K. Ji (2024)", "arXiv 2402.15638. Algorithm 1"),
    "geometric_mean": ("S. Chennupati, G. Sistu, S. Yogamani, S. Rawashdeh (2019)", "CVPR workshops"),
    "graddrop": ("Z. Chen et al. (2020)", "arXiv 2010.06808. Algorithm 1, lines 10 to 15"),
    "gradvac": ("Z. Wang, Y. Tsvetkov, O. Firat, Y. Cao (2021)", "ICLR"),
    "imtl_g": ("L. Liu et al. (2021)", "ICLR"),
    "imtl_l": ("L. Liu et al. (2021)", "ICLR"),
    "krum": ("P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer (2017)", "NeurIPS"),
    "mgda": ("J.-A. Desideri (2012)", "Comptes Rendus Mathematique"),
    "pbi": ("Q. Zhang, H. Li (2007)", "IEEE Transactions on Evolutionary Computation"),
    "stch": ("X. Lin et al. (2024)", "arXiv 2402.19078"),
    "trimmed_mean": ("D. Yin, Y. Chen, K. Ramchandran, P. Bartlett (2018)", "ICML"),
    "upgrad": ("P. Quinton, V. Rey (2024)", "arXiv 2406.16232"),
}
"""Authors and place; for others the library's link."""

NOTES = {
    "fairgrad": "The Gramian is brought to a mean diagonal of 1 first: the solver fails on small ones.",
    "krum": "Where fewer tasks are present than it needs (`n_byzantine` + 3), all weigh the same.",
    "pcd": "The moving average counts updates, not those in which a task is present.",
    "stch": "Losses enter as they are. The authors use logarithms of losses relative to those of a first epoch.",
    "trimmed_mean": "Where fewer tasks are present than it needs (2 `trim_number` + 1), it is the mean.",
}

DEFAULTS: dict[str, Any] = {
    "cosmos.lambda_": 1.0,
    "fairgrad.alpha": 2.0,
    "krum.n_byzantine": 0,
    "pbi.theta": 5.0,
    "stch.mu": 1.0,
    "trimmed_mean.trim_number": 1,
}
"""Where the library has none."""

PARAMETERS = {
    "alpha": "Fairness: 0 the mean, 1 proportional fairness (Nash), large the worst-off task alone. 2 in all runs of "
    "the authors.",
    "beta": "How much of the average of cosines an update renews, in [0, 1].",
    "pcd.beta": "Decay of the moving average of squared gradient norms, in [0, 1).",
    "eps": "Added to denominators.",
    "epsilon": "Ends the search when a step is shorter.",
    "lambda_": "Strength of the cosine, not negative; 0: the weighted sum. The authors use 0.01 to 8, none is best.",
    "leak": "How much of a task's gradient passes whatever its sign, in [0, 1], by task name; 0 for the others.",
    "max_iters": "Longest search; None: as long as the solver likes.",
    "mgda.max_iters": "Longest search.",
    "mu": "Smoothness, positive: small is the maximum. The authors try 0.01 to 1 and name no best.",
    "n_byzantine": "How many task gradients may be hostile.",
    "n_selected": "How many task gradients are followed.",
    "pref_vector": "Preference by task name; tasks that are not named have 1. None: equal, with a sum of 1.",
    "reference": "The best loss that is thought possible, by task name; 0 for the others.",
    "scale_mode": "Length of the aligned gradients: the smallest, median or (rmse) mean eigenvalue.",
    "tau": "Share of its own progress that each other task keeps, in [0, 1].",
    "theta": "Strength of the distance beside the direction, not negative. 5 in the authors' experiments.",
    "trim_number": "How many values are dropped at each end. The library names no default.",
    "weights": "Weight by task name; tasks that are not named weigh 1. None: equal, with a sum of 1.",
    "at": "Whose gradients: those of the shared parameters, or (cheaper) of the features that the heads read.",
    "every": "Updates between two solutions; the weights stay in between.",
    "reduction": "native: the rule's own scale; sum or mean: equal gradients of T tasks give T times them, or them.",
    "memory": "MiB that the tasks' gradients may take at once.",
}

NATIVE = {"gradvac": "sum"} | dict.fromkeys(
    ("aligned_mtl", "dualproj", "imtl_g", "krum", "mgda", "pcd", "upgrad"), "mean"
)
"""What equal gradients give, see :class:`~kinfolk.balancing.gramian.Gramian`; "own" for a rule that is not named."""

SCALES: dict[str, Callable[[Any], float]] = dict.fromkeys(
    ("aligned_mtl", "dualproj", "gradvac", "imtl_g", "krum", "mgda", "upgrad"), lambda _: 0.0
) | {"fairgrad": lambda method: -method.alpha / (1 + method.alpha)}
"""The power of s by which weights change when a Gramian is multiplied by s: so it can be brought to a fixed size first,
as libraries take small Gramians for zero."""

FEWEST: dict[str, Callable[[Any], int]] = {
    "krum": lambda method: max(method.n_byzantine + 3, method.n_selected),
    "trimmed_mean": lambda method: 2 * method.trim_number + 1,
}
"""How many tasks a rule needs; with fewer, equal weights."""


def usual(source: Source, setting: Setting) -> Any:
    """The default of a parameter; None for a number for each task that the library must be given."""
    if setting.vector:
        return None
    return DEFAULTS.get(f"{source.name}.{setting.name}", setting.default)


def describe(source: Source, parameters: list[str]) -> str:
    """The docstring of a rule."""
    summary = SUMMARIES.get(source.name, f"{source.title}, as in TorchJD.")
    memory = "The gradients of all tasks are held at once." if source.kind == "jacobian" else ""
    by = f"The rule is TorchJD's ``{source.package}.{source.title}``."
    blocks = [summary, " ".join(text for text in (NOTES.get(source.name, ""), memory, by) if text)]
    if parameters:
        told = [f"{name}\n    {_said(source, name)}" for name in parameters]
        blocks.append("\n".join(["Parameters", "----------", *told]))
    if source.paper[0]:
        title, link = source.paper
        authors, place = PAPERS.get(source.name, ("", link))
        cited = ". ".join(text for text in (authors, title, place) if text)
        blocks.append(f"References\n----------\n{cited}")
    return "\n\n".join(blocks)


def _said(source: Source, name: str) -> str:
    return PARAMETERS.get(f"{source.name}.{name}", PARAMETERS.get(name, "As in TorchJD."))
