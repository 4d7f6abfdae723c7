"""What a config.json says of a classifier: whether there is one, its labels, and what makes scores of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cupola.errors import ModelError, UnsupportedError
from cupola.manifest import Scores
from cupola.models.config import Config

_CLASSIFIERS = "ForSequenceClassification"
_FUNCTIONS: Mapping[str, Scores] = MappingProxyType({"Sigmoid": "sigmoid", "Softmax": "softmax", "Identity": "none"})


def labels(config: Config) -> tuple[str, ...]:
    """The labels of a classifier, in the order of its numbers; empty for a model without such a head.

    Raises:
        ModelError: they are not numbered from 0 on.
    """
    if not any(name.endswith(_CLASSIFIERS) for name in config.texts("architectures") or ()):
        return ()
    named = config.strings("id2label")
    count = len(named) or config.integer("num_labels", 2)
    try:
        return tuple(named[str(i)] for i in range(count)) if named else tuple(f"LABEL_{i}" for i in range(count))
    except KeyError as error:
        raise ModelError(f"config.json: `id2label` has no label {error.args[0]}") from error


def scores(config: Config, count: int) -> Scores:
    """What sentence-transformers makes of the numbers of a reranker; of a classifier's, what it was trained with.

    Raises:
        UnsupportedError: a function that Cupola does not know.
    """
    table = config.table("sentence_transformers")
    newer = "" if table is None else table.text("activation_fn", "")
    path = newer or config.text("sbert_ce_default_activation_function", "")
    if path:
        function = path.rpartition(".")[2]
        if function not in _FUNCTIONS:
            raise UnsupportedError(
                f"config.json: the scores of this model are made by `{path}`",
                hint=f"supported: {', '.join(_FUNCTIONS)}",
            )
        return _FUNCTIONS[function]
    if count == 1 or config.text("problem_type", "") == "multi_label_classification":
        return "sigmoid"
    return "softmax"
