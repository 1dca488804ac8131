"""Models of neurons: the ensemble teacher, compact models, and many of them run as one."""

from pocketcortex.models.ablations import N_STAGES, Ablations
from pocketcortex.models.accounting import ModelSize, count_macs, model_size
from pocketcortex.models.brainscore import export_brainscore
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
from pocketcortex.models.export import (
    ONNX_OPSET,
    ExportFormat,
    export_model,
    export_name,
    fold_batch_norm,
    numpy_weights,
)
from pocketcortex.models.hub import ModelCard, push_to_hub
from pocketcortex.models.local import LocalChanges
from pocketcortex.models.paired import PairedStack
from pocketcortex.models.published import import_compact_model, published_models
from pocketcortex.models.shared import SharedCompactModel
from pocketcortex.models.shared_published import (
    import_shared_model,
    published_shared_models,
    shared_outputs,
)
from pocketcortex.models.stack import CompactStack

__all__ = [
    "N_STAGES",
    "ONNX_OPSET",
    "Ablations",
    "CompactLayers",
    "CompactModel",
    "CompactStack",
    "EnsembleMember",
    "EnsembleModel",
    "EnsembleShape",
    "EnsembleStack",
    "ExportFormat",
    "FactorizedReadout",
    "LocalChanges",
    "ModelCard",
    "ModelSize",
    "PairedStack",
    "ParameterCount",
    "SharedCompactModel",
    "count_macs",
    "count_parameters",
    "export_brainscore",
    "export_model",
    "export_name",
    "fold_batch_norm",
    "import_compact_model",
    "import_shared_model",
    "model_size",
    "numpy_weights",
    "published_models",
    "published_shared_models",
    "push_to_hub",
    "shared_outputs",
]
