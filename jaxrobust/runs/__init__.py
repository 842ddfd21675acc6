"""Runs: configuration and workdir around the training engine; see `runs.train`."""

METHODS = {
    "supervised": "jaxrobust.runs.build_method:supervised_method",
    "dynamic_loss": "jaxrobust.runs.build_method:dynamic_loss_method",
    "curvenet": "jaxrobust.runs.build_method:curvenet_method",
    "meta_weight_net": "jaxrobust.runs.build_method:meta_weight_net_method",
    "agreement": "jaxrobust.runs.build_method:agreement_method",
    "learning_to_reweight": "jaxrobust.runs.build_method:learning_to_reweight_method",
}
"""Methods by name: where the function `(config, setup) -> Method` lives; imported when used."""
