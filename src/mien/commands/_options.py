"""Arguments and options that several commands share: each is defined, with its help text, once."""

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    str, typer.Option(help="An embedded model (`mien models` lists them) or the path of an ONNX file.")
]
PrecisionOption = Annotated[str, typer.Option(help="Which file of an embedded model: int8 (small, fast) or fp32.")]
DetectorOption = Annotated[
    str, typer.Option(help="blazeface, yunet (downloaded once), or none: each image is one tight crop of a face.")
]
AbstainOption = Annotated[float, typer.Option(min=0, max=1, help="Below this probability the emotion is 'unsure'.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Cores to use; 0 uses all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DATA_HELP = "FER-2013 in any of its forms, or a labelled folder or CSV; default: $MIEN_DATA."
DataOption = Annotated[Path | None, typer.Option(help=DATA_HELP)]
TrainingDataOption = Annotated[
    Path | None, typer.Option(help="The data set that the run was trained on; default: $MIEN_DATA.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        help="PublicTest, PrivateTest, Training or all; default: PublicTest, or all rows of a data set without splits."
    ),
]
LabelMapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="LABEL=EMOTION",
        help="The emotion that a label of the data means; LABEL= leaves its faces out; repeatable.",
    ),
]
TtaOption = Annotated[
    str,
    typer.Option(
        help="Test-time augmentation. none: each face as it is; flip: also mirrored; six: also larger and smaller; "
        "ten: five crops, each also mirrored."
    ),
]
KeepOption = Annotated[
    Path | None, typer.Option(help="Folder for the metrics without faces, as NAME.json of the model, split or family.")
]

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A shipped recipe (`mien recipes`), FAMILY, FAMILY/MEMBER or the path of a .toml file."
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes of the recipe: section.key=value, as in train.epochs=40."),
]
AcceleratorOption = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
TimeLimitOption = Annotated[float, typer.Option(help="Seconds after which to stop with a checkpoint; 0: no limit.")]

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, as `mien train` names it.")]
FinalTestOption = Annotated[
    bool, typer.Option("--final", help="Also evaluate PrivateTest: once, when everything is chosen.")
]
CalibrationOption = Annotated[str, typer.Option(help="vector or temperature; default: what the recipe says.")]
