"""Robust losses against cross-entropy on noisy, long-tailed digits, three seeds each.

    python -m jaxrobust.main --sweep=digits --workdir=runs/digits_sweep

72 runs of about half a minute each on two CPU cores. The same command again goes on where it
stopped; settings of all runs can be overridden, e.g. --config.train.epochs=20.
"""


def get_sweep():
    return {
        "methods": {"ce": "digits_ce", "gce": "digits_losses:gce", "dal": "digits_dal"},
        "noise": [
            {"kind": "none"},
            {"kind": "symmetric", "rate": 0.2},
            {"kind": "symmetric", "rate": 0.4},
            {"kind": "asymmetric", "rate": 0.4},
        ],
        "imbalance": [{"kind": "none"}, {"kind": "exponential", "factor": 0.1}],
        "seeds": [0, 1, 2],
        "settings": {"log.figures": False, "log.tensorboard": False},
    }
