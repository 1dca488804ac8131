"""Models of neurons: the ensemble teacher, compact models, and many of them run as one."""

from pocketcortex.models.compact import (
    CompactLayers,
    CompactModel,
    ParameterCount,
    count_parameters,
)
from pocketcortex.models.ensemble import (
    EnsembleMember,
    EnsembleModel,
    EnsembleShape,
    EnsembleStack,
    FactorizedReadout,
)
from pocketcortex.models.published import import_compact_model, published_models
from pocketcortex.models.shared import SharedCompactModel
from pocketcortex.models.shared_published import (
    import_shared_model,
    published_shared_models,
    shared_outputs,
)
from pocketcortex.models.stack import CompactStack

__all__ = [
    "CompactLayers",
    "CompactModel",
    "CompactStack",
    "EnsembleMember",
    "EnsembleModel",
    "EnsembleShape",
    "EnsembleStack",
    "FactorizedReadout",
    "ParameterCount",
    "SharedCompactModel",
    "count_parameters",
    "import_compact_model",
    "import_shared_model",
    "published_models",
    "published_shared_models",
    "shared_outputs",
]
