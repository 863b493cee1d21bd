"""`wsiseg train`: a recipe becomes a checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from wsiseg.cli.train_extra import pairs, training

HELP = (
    "Train a model from a recipe (TOML): best.pt and last.pt for `wsiseg run`, curves, and a resume point. Fold -1 trains on "
    "everything. Recipes of the field are in train/recipes."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="TOML file")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting, such as train.steps=500",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run's resume point")
    parser.add_argument("--weights", type=Path, help="start from a checkpoint's weights")
    parser.add_argument("--cross-validate", action="store_true", help="train every fold and write folds.csv")
    parser.add_argument(
        "--preview", type=Path, metavar="PNG", help="write a sheet of what the network would see, and stop"
    )
    parser.add_argument(
        "--find-lr",
        action="store_true",
        help="write lr.csv and lr.png of the loss against the learning rate, and stop",
    )
    parser.add_argument("--export", type=Path, metavar="ONNX", help="also export the best checkpoint")


def main(args: argparse.Namespace) -> int:
    recipe = training("config").read_recipe(args.recipe, pairs(args.set, "--set"))
    if args.weights is not None:
        recipe = replace(recipe, weights=str(args.weights))
    if args.preview is not None:
        training("preview").write_preview(recipe, args.preview)
        print(f"preview in {args.preview}")
        return 0
    needs = ("torch", "lightning", "timm")
    if args.find_lr:
        best = training("findlr", *needs).find_lr(recipe, args.out)
        print(f"suggested learning rate {best:.2g}; curve in {args.out / 'lr.png'}")
        return 0
    fit = training("fit", *needs)
    if args.cross_validate:
        for fold, dice in fit.cross_validate(recipe, args.out):
            print(f"fold {fold}: dice {dice:.4f}")
        return 0
    result = fit.train_recipe(recipe, args.out, resume=args.resume)
    scored = "" if result.dice is None else f", held-out Dice {result.dice:.4f}"
    print(f"{result.steps} steps{scored}: {result.best}")
    if args.export is not None:
        args.export.write_bytes(training("export", *needs).export_onnx(result.best))
        print(f"exported to {args.export}")
    return 0
