"""What Otsu's threshold scores on a dataset of one class, without any training.

usage: python -m benchmarks.otsu MANIFEST OUTPUT

Colours are averaged to gray. Of the two groups the threshold parts, the smaller one is taken for
the foreground: bright nuclei on black, dark ones on white. Dice by stratum goes to
OUTPUT/otsu.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.commands import Scores
from benchmarks.folds import summarise
from benchmarks.ledger import Ledger
from medseg.core.volume import Volume
from medseg.data.manifest import Manifest, read_manifest
from medseg.data.scans import read_reference, read_scan
from medseg.metrics.baselines import otsu_threshold
from medseg.metrics.overlap import Mask, measure_overlap


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("manifest", type=Path)
    words.add_argument("output", type=Path)
    chosen = words.parse_args()
    manifest = read_manifest(chosen.manifest)
    ledger = Ledger(chosen.output / "otsu.jsonl")
    if ledger.find(digest=manifest.digest) is None:
        ledger.append({"dice": otsu_dice(manifest)}, digest=manifest.digest)
    summary = summarise(ledger, manifest)
    (chosen.output / "otsu.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def otsu_dice(manifest: Manifest) -> Scores:
    """Return the Dice of every case that is not kept for testing."""
    (name,) = manifest.labels.names
    dice: Scores = {}
    for case in manifest.training_cases:
        scan = read_scan(manifest, case)
        reference = read_reference(manifest, case, scan.geometry).only_channel == 1
        dice[case.case_id] = {name: measure_overlap(smaller_group(scan), reference).dice}
    return dice


def smaller_group(scan: Volume) -> Mask:
    """Return the smaller (I, J, K) of the two groups that Otsu's threshold parts."""
    gray = np.asarray(scan.voxels, np.float32).mean(axis=0)
    bright = np.asarray(gray > otsu_threshold(gray))
    return bright if bright.mean() < 0.5 else ~bright


if __name__ == "__main__":
    main()
