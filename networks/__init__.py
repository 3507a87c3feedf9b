"""Networks trained under the supervised contrastive loss: layers, architectures, data, batches and training.

Networks compute in float32; metrics of their features are computed in float64 (`ufm.geometry_metrics`,
`solvers.suboptimality`).
"""

from networks.architectures import ACTIVATIONS, ARCHITECTURES, WIDTHS, Network, build, features
from networks.batches import BATCHINGS, Epoch, epoch_of, law_of
from networks.data import Dataset, Samples, imbalanced, mislabelled, read, synthetic
from networks.training import Schedule, State, Training

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "BATCHINGS",
    "WIDTHS",
    "Dataset",
    "Epoch",
    "Network",
    "Samples",
    "Schedule",
    "State",
    "Training",
    "build",
    "epoch_of",
    "features",
    "imbalanced",
    "law_of",
    "mislabelled",
    "read",
    "synthetic",
]
