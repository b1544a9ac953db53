"""Trees of scikit-learn as plain arrays, and back.

An object of scikit-learn that comes from a file cannot be trusted: its compiled code follows child and feature
indices without looking, and a crafted index reads foreign memory. So trees are kept as arrays of numbers, checked,
and built into fitted estimators again by :func:`unpack`. That is also ten times smaller.

The nodes of all trees of an estimator lie one after the other, each tree from its root on, parents before their
children. A child is given by its distance from the parent, 0 at a leaf; ``value`` has a row per leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = (
    "ExtraTreesRegressor",
    "ExtraTreesClassifier",
    "HistGradientBoostingRegressor",
    "HistGradientBoostingClassifier",
)
"""Names of the estimators that :func:`pack` takes."""

MOST_FEATURES = 1_000_000
"""A file that claims more is not believed: building the estimator would take the memory for them."""


def pack(obj: Any) -> dict[str, Any]:
    """A fitted estimator of one of the ``KINDS`` as a dictionary of arrays and numbers.

    Raises
    ------
    TypeError
        If it splits by category.
    """
    kind = type(obj).__name__
    common = {"trees": kind, "features": int(obj.n_features_in_), "classes": getattr(obj, "classes_", None)}
    if kind.startswith("Extra"):
        states = [estimator.tree_.__getstate__() for estimator in obj.estimators_]
        value = np.concatenate([state["values"][:, 0] for state in states])
        names = ("left_child", "right_child", "feature", "threshold", "missing_go_to_left")
        return common | _as_arrays([state["nodes"] for state in states], value, names)
    nodes = [tree.nodes for trees in obj._predictors for tree in trees]
    if any(part["is_categorical"].any() for part in nodes):
        raise TypeError("`obj` must have been fitted on numbers. Splits by category cannot be saved.")
    common["baseline"] = obj._baseline_prediction
    names = ("left", "right", "feature_idx", "num_threshold", "missing_go_to_left")
    return common | _as_arrays(nodes, np.concatenate([part["value"] for part in nodes])[:, None], names)


def _as_arrays(trees: list[Any], value: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    nodes: Any = np.concatenate(trees)
    sizes = np.array([len(tree) for tree in trees])
    left, right, feature, threshold, missing = (nodes[name] for name in names)
    here = np.concatenate([np.arange(size) for size in sizes])
    inner = left.astype(np.int64) > 0  # leaves: -1 in a forest, 0 in boosting
    apart = {"left": np.where(inner, left - here, 0), "right": np.where(inner, right - here, 0)}
    return {
        "sizes": sizes.astype(np.int32),
        **{name: distance.astype(np.int32) for name, distance in apart.items()},
        "feature": np.where(inner, feature, 0).astype(np.int32),
        "threshold": _short(np.where(inner, threshold, 0.0)),
        "missing": np.where(inner, missing, 0).astype(np.int32),
        "value": _short(value[~inner]),
    }


def _short(array: np.ndarray) -> np.ndarray:
    """As float32 where that changes nothing."""
    with np.errstate(over="ignore"):  # then it is not equal
        short = array.astype(np.float32)
    return short if np.array_equal(short, array) else array.astype(np.float64)


def unpack(packed: Mapping[str, Any]) -> Any:
    """The fitted estimator of a dictionary that :func:`pack` made; it predicts the same, bit for bit.

    Raises
    ------
    ValueError, KeyError
        If an array is missing, of the wrong kind, or points outside of its tree, its features or its classes.
    """
    if packed["trees"] not in KINDS:
        raise ValueError(f"'{packed['trees']}' is no kind of trees")
    _check_trees(packed)
    return (_forest if packed["trees"].startswith("Extra") else _boosting)(packed)


def _check_trees(packed: Mapping[str, Any]) -> None:
    """Raise ValueError unless every tree is a tree, in its own nodes, over the features that there are."""
    kinds = {"sizes": "i", "left": "i", "right": "i", "feature": "i", "missing": "i", "threshold": "f", "value": "f"}
    for name, kind in kinds.items():
        array = packed[name]
        if not isinstance(array, np.ndarray) or array.dtype.kind != kind or array.ndim != 1 + (name == "value"):
            raise ValueError(f"'{name}' of its trees is no array of the right kind")
    sizes, left, right = (packed[name].astype(np.int64) for name in ("sizes", "left", "right"))
    nodes = len(left)
    alike = {len(packed[name]) for name in ("left", "right", "feature", "missing", "threshold")}
    if len(sizes) == 0 or sizes.min() < 1 or sizes.sum() != nodes or alike != {nodes}:
        raise ValueError("the sizes of its trees do not fit their nodes")
    here, inner = np.arange(nodes), left != 0
    ends = np.repeat(np.cumsum(sizes), sizes)
    if min(left.min(), right.min()) < 0 or ((right != 0) != inner).any():
        raise ValueError("a tree has a child before its parent, or only one")
    if (here + np.maximum(left, right) >= ends).any():
        raise ValueError("a tree has a child outside of its nodes")
    parents = np.bincount(np.concatenate([(here + left)[inner], (here + right)[inner]]), minlength=nodes)
    parents[np.cumsum(sizes) - sizes] += 1  # roots
    if (parents != 1).any():
        raise ValueError("a tree has a node with two parents, or none")
    features, used = packed["features"], packed["feature"][inner]
    if not isinstance(features, int) or not 0 < features <= MOST_FEATURES or len(packed["value"]) != (~inner).sum():
        raise ValueError("a tree has a value too many or too few, or no features")
    if len(used) and (used.min() < 0 or used.max() >= features):
        raise ValueError(f"a tree asks for a feature that is not among its {features}")
    if not np.isfinite(packed["value"]).all():
        raise ValueError("a tree has a leaf that is not finite")


def _rows_to_fit(packed: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest table whose fit has the attributes of the packed estimator: a row per class."""
    classes = packed["classes"]
    if packed["trees"].endswith("Regressor"):
        classes = np.zeros(2)
    elif not isinstance(classes, np.ndarray) or classes.ndim != 1 or len(classes) < 2 or (np.diff(classes) <= 0).any():
        raise ValueError("the classes of its trees are no increasing numbers")
    if packed["features"] * len(classes) > 100_000_000:
        raise ValueError("its trees have too many features and classes")
    return np.zeros((len(classes), packed["features"])), classes


def _forest(packed: Mapping[str, Any]) -> Any:
    """Extra trees from checked arrays."""
    import sklearn.ensemble
    from sklearn.tree._tree import Tree

    inputs, target = _rows_to_fit(packed)
    forest = getattr(sklearn.ensemble, packed["trees"])(n_estimators=1).fit(inputs, target)
    template = forest.estimators_[0]
    width = len(target) if "Classifier" in packed["trees"] else 1
    if packed["value"].shape[1] != width:
        raise ValueError(f"a leaf must have {width} values. It has {packed['value'].shape[1]}")
    inner = packed["left"] != 0
    here = np.concatenate([np.arange(size) for size in packed["sizes"]])
    nodes: Any = np.zeros(len(inner), template.tree_.__getstate__()["nodes"].dtype)
    nodes["left_child"], nodes["right_child"] = (np.where(inner, here + packed[s], -1) for s in ("left", "right"))
    nodes["feature"], nodes["threshold"] = (np.where(inner, packed[s], -2) for s in ("feature", "threshold"))
    nodes["missing_go_to_left"] = packed["missing"] != 0
    values = np.zeros((len(inner), 1, width))
    values[~inner, 0] = packed["value"]
    cuts, forest.estimators_ = np.cumsum(packed["sizes"])[:-1], []
    for one, value in zip(np.split(nodes, cuts), np.split(values, cuts), strict=True):
        tree = Tree(packed["features"], np.array([width], dtype=np.intp), 1)
        tree.__setstate__({"max_depth": _depth(one), "node_count": len(one), "nodes": one, "values": value})
        estimator = type(template)()
        vars(estimator).update(vars(template) | {"tree_": tree})
        forest.estimators_.append(estimator)
    return forest.set_params(n_estimators=len(forest.estimators_))


def _depth(nodes: Any) -> int:
    """How many splits the longest way through a (checked) tree has."""
    level, depth = np.zeros(1, dtype=np.int64), -1
    while len(level):
        level, depth = level[nodes["left_child"][level] > 0], depth + 1
        level = np.concatenate([nodes["left_child"][level], nodes["right_child"][level]])
    return depth


def _boosting(packed: Mapping[str, Any]) -> Any:
    """Histogram gradient boosting from checked arrays."""
    import sklearn.ensemble
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    inputs, target = _rows_to_fit(packed)
    kind = getattr(sklearn.ensemble, packed["trees"])
    model = kind(max_iter=1, early_stopping=False, categorical_features=None).fit(inputs, target)
    baseline, each = packed["baseline"], model.n_trees_per_iteration_
    if np.shape(baseline) != (1, each) or not np.isfinite(baseline).all() or len(packed["sizes"]) % each:
        raise ValueError("the baseline or the number of its trees does not fit the classes")
    if packed["value"].shape[1] != 1:
        raise ValueError(f"a leaf must have one value. It has {packed['value'].shape[1]}")
    inner = packed["left"] != 0
    here = np.concatenate([np.arange(size) for size in packed["sizes"]])
    nodes: Any = np.zeros(len(inner), model._predictors[0][0].nodes.dtype)
    nodes["left"], nodes["right"] = (np.where(inner, here + packed[s], 0) for s in ("left", "right"))
    nodes["feature_idx"], nodes["num_threshold"] = packed["feature"], packed["threshold"]
    nodes["missing_go_to_left"], nodes["is_leaf"] = packed["missing"] != 0, ~inner
    nodes["value"][~inner] = packed["value"][:, 0]
    none = np.zeros((0, 8), dtype=np.uint32)  # bit sets of categories
    trees = [TreePredictor(one, none, none) for one in np.split(nodes, np.cumsum(packed["sizes"])[:-1])]
    model._predictors = [trees[i : i + each] for i in range(0, len(trees), each)]
    model._baseline_prediction = np.asarray(baseline, dtype=np.float64)
    return model
