"""Options that several commands share: each is defined, with its help text, once."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="An embedded model (`mien models` lists them) or the path of an ONNX file.")]
Precision = Annotated[str, typer.Option(help="Which file of an embedded model: int8 (small, fast) or fp32.")]
Detector = Annotated[
    str, typer.Option(help="blazeface, yunet (downloaded once), or none: each image is one tight crop of a face.")
]
Abstain = Annotated[float, typer.Option(min=0, max=1, help="Below this probability the emotion is 'unsure'.")]
Threads = Annotated[int, typer.Option(min=0, help="Cores to use; 0 uses all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DATA_HELP = "FER-2013 in any of its forms, or a labelled folder or CSV; default: $MIEN_DATA."
Data = Annotated[Path | None, typer.Option(help=DATA_HELP)]
TrainingData = Annotated[Path | None, typer.Option(help="The set that the run was trained on; default: $MIEN_DATA.")]
Split = Annotated[
    str | None,
    typer.Option(help="PublicTest, PrivateTest, Training or all; default: PublicTest, or all of a set without splits."),
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="LABEL=EMOTION",
        help="What a label of the data means; LABEL= leaves its faces out; repeatable.",
    ),
]
Tta = Annotated[
    str,
    typer.Option(
        help="Test-time augmentation. none: each face as it is; flip: also mirrored; six: also larger and smaller; "
        "ten: five crops, each also mirrored."
    ),
]
Accelerator = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
TimeLimit = Annotated[float, typer.Option(help="Seconds after which to stop with a checkpoint; 0: no limit.")]
FinalTest = Annotated[bool, typer.Option("--final", help="Also evaluate PrivateTest: once, when everything is chosen.")]
Calibration = Annotated[str, typer.Option(help="vector or temperature; default: what the recipe says.")]
