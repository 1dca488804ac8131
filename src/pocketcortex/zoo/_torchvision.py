"""The one door to torchvision and timm: both are optional, and beside a CPU torch both need a mend.

torchvision's wheels are CUDA builds. Beside a torch without CUDA their own library cannot be
loaded, and ``import torchvision`` stops at an operator that the library would have declared.
Declaring it first is enough for networks; detection operators stay unusable.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch

from pocketcortex.core import InputError

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a library's operators go when it does


def import_torchvision() -> ModuleType:
    """Return torchvision.

    Raises
    ------
    InputError
        If it is not installed, or not one that this torch can use.
    """
    return _imported("torchvision")


def import_timm() -> ModuleType:
    """Return timm.

    Raises
    ------
    InputError
        If it or torchvision is not installed, or not one that this torch can use.
    """
    _imported("torchvision")
    return _imported("timm")


def _imported(name: str) -> ModuleType:
    try:
        declare_operators()
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this network needs {name}, which is not installed ({error}); "
            "run: pip install 'pocketcortex[zoo]'"
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"{name} does not go with torch {torch.__version__}: {error}; "
            "install the torchvision that belongs to this torch"
        ) from error


def declare_operators() -> bool:
    """Declare torchvision's missing operators beside a torch without CUDA; once, and only then.

    Returns
    -------
    Whether they were declared now.
    """
    if torch.version.cuda is not None or _declared or _library_loads():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        if getattr(torch.ops.torchvision, operator, None) is None:
            library.define(operator + _SCHEMA)
    _declared.append(library)
    return True


def _library_loads() -> bool:
    """Return whether torchvision's own library can be loaded; loads it as torchvision would."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).glob("_C*"):
            try:
                torch.ops.load_library(path)
            except OSError:
                continue
            return True
    return False
