"""From a plan to optax: optimizers by what was loaded, and optimizer state by parameter name.

tx = finetune.split_optimizer(plan, loaded=optax.adam(1e-5), kept=optax.adam(1e-3))
tx = finetune.freeze_loaded(plan, optax.adam(1e-3))
tx = finetune.layerwise(plan, optax.adam(1e-3), decay=0.8, order=["embed/**", "layers/{i}/**", "head/**"])
opt_state = finetune.restore_optimizer(tx, params, "run1", rules=rules)
model = treeload.load(model, "adapted", rules=finetune.merge_lora())
"""

from treeload.finetune._lora import merge_lora
from treeload.finetune._optimizers import freeze_loaded, layerwise, split_optimizer
from treeload.finetune._restore import plan_optimizer, restore_optimizer

__all__ = [
    "freeze_loaded",
    "layerwise",
    "merge_lora",
    "plan_optimizer",
    "restore_optimizer",
    "split_optimizer",
]
