"""Task-driven networks: the registry, builders, layer features and the store that keeps them."""

from pocketcortex.zoo.backbone import Backbone, load_network
from pocketcortex.zoo.checkpoints import load_weights, read_tensors
from pocketcortex.zoo.filterbank import FilterBank, filter_bank
from pocketcortex.zoo.kernel_store import KernelStore
from pocketcortex.zoo.kernels import NetworkKernels
from pocketcortex.zoo.layers import Layer, network_layers
from pocketcortex.zoo.network import Network, NetworkSpec
from pocketcortex.zoo.preprocessing import PUBLISHED, RAW, TASKONOMY, Preprocessing
from pocketcortex.zoo.randomised import Randomised, randomised
from pocketcortex.zoo.registry import (
    build_network,
    find_network,
    list_networks,
    network_preprocessing,
    network_source,
)
from pocketcortex.zoo.store import FeatureStore
from pocketcortex.zoo.stream_plan import StreamPlan, plan_stream
from pocketcortex.zoo.streaming import stream_kernels
from pocketcortex.zoo.taskonomy import TaskonomyEncoder
from pocketcortex.zoo.weights import WEIGHTS_VARIABLE, WeightsFile

__all__ = [
    "PUBLISHED",
    "RAW",
    "TASKONOMY",
    "WEIGHTS_VARIABLE",
    "Backbone",
    "FeatureStore",
    "FilterBank",
    "KernelStore",
    "Layer",
    "Network",
    "NetworkKernels",
    "NetworkSpec",
    "Preprocessing",
    "Randomised",
    "StreamPlan",
    "TaskonomyEncoder",
    "WeightsFile",
    "build_network",
    "filter_bank",
    "find_network",
    "list_networks",
    "load_network",
    "load_weights",
    "network_layers",
    "network_preprocessing",
    "network_source",
    "plan_stream",
    "randomised",
    "read_tensors",
    "stream_kernels",
]
