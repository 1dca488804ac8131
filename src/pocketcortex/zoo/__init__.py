"""Task-driven networks: builders, layer features and the store that keeps them."""

from pocketcortex.zoo.backbone import Backbone, load_network
from pocketcortex.zoo.filterbank import FilterBank, filter_bank
from pocketcortex.zoo.store import FeatureStore

__all__ = ["Backbone", "FeatureStore", "FilterBank", "filter_bank", "load_network"]
