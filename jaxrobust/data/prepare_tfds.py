"""Prepares a TFDS data set in the files that are read at random without TensorFlow.

  python -m jaxrobust.data.prepare_tfds cifar100 --data_dir=data

Preparing needs TensorFlow (`pip install tensorflow`), reading does not. Data that must be fetched
by hand (cifar10_n, imagenet2012) is looked for in --manual_dir.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from jaxrobust.errors import UserError, check, report


def prepare(name: str, data_dir: str | None, manual_dir: str | None = None) -> str:
    """Downloads and prepares the data set; returns the folder it lies in.

    Raises:
      UserError: TensorFlow is not installed; TFDS does not know the name.
    """
    check(
        importlib.util.find_spec("tensorflow") is not None,
        "Preparing a TFDS data set needs TensorFlow once: pip install tensorflow.",
    )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(str(error).splitlines()[0]) from None
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)
    return str(builder.data_dir)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="builder, or builder/config")
    parser.add_argument("--data_dir", help="where TFDS keeps its data (default: its own)")
    parser.add_argument("--manual_dir", help="where files fetched by hand lie")
    options = parser.parse_args(arguments)
    try:
        print(prepare(options.name, options.data_dir, options.manual_dir))
    except UserError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
