"""`wsiseg tiles`: a plain folder of tiles and masks out of training stores, for people who want images."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsiseg.cli.train_extra import training

HELP = (
    "Write tiles and masks as PNG files from training stores: images/, masks/ and tiles.csv with each tile's slide, place, fold "
    "and object share. Tiles without tissue, and tiles that cross a fold's border, are left out."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "stores", nargs="+", type=Path, help="training stores (*.train.zarr) or folders of them"
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--tile", type=int, default=256, help="tile edge in network pixels")
    parser.add_argument("--stride", type=int, help="step between tiles (default: the tile)")
    parser.add_argument("--min-tissue", type=float, default=0.05, help="smallest share of tissue")
    parser.add_argument("--folds", type=int, default=4)


def main(args: argparse.Namespace) -> int:
    count = training("folder", "zarr").write_tiles(
        [str(p) for p in args.stores],
        args.out,
        tile=args.tile,
        stride=args.stride or args.tile,
        min_tissue=args.min_tissue,
        folds=args.folds,
    )
    print(f"{count} tiles in {args.out}")
    return 0
