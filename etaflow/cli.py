"""The command line: `etaflow convert`, `analyze`, `embed`, `verify`, `separate`, `serve` …"""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from etaflow.client_commands import client_app

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(client_app, name="client")

Bundle = Annotated[
    str | None,
    typer.Option(
        help="of a run: results/RUN/bundle, or OWNER/NAME on the Hugging Face Hub; without it, the "
        "small one that comes with etaflow"
    ),
]
Gpus = Annotated[int, typer.Option(help="1 to compute on the GPU")]


def _named(bundle: str | None) -> str:
    """The bundle that was named, or the one that comes with etaflow, with a line that says so."""
    from etaflow.bundles import shipped_bundle

    if bundle is not None:
        return bundle
    folder = str(shipped_bundle())
    typer.echo(
        "note: no --bundle given, so these are the small models that come with etaflow; "
        "`snakemake -c4 --configfile config/knnvc-pretrained.yaml` makes a bundle of large ones",
        err=True,
    )
    return folder


@app.callback()
def etaflow() -> None:
    """Speaker identity in self-supervised speech features."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="recording whose words are kept")],
    references: Annotated[list[Path], typer.Argument(help="recordings of the target speaker")],
    output: Annotated[Path, typer.Option("--output", "-o", help="WAV or FLAC file to write")],
    bundle: Bundle = None,
    method: Annotated[
        str, typer.Option(help="copy, knn, linear, mkl, mkl+knn …; with -eta-source or -eta behind")
    ] = "knn",
    topk: Annotated[int, typer.Option(help="neighbours a frame", min=1)] = 4,
    gpus: Gpus = 0,
) -> None:
    """Say SOURCE in the voice of the REFERENCES, which may be of any rate and length.

    The result is at -16 LUFS, or as loud as it can be without clipping, and as long as the source.
    Silence around the speech of references is left out.
    """
    from etaflow.atomic import check_destination
    from etaflow.audio import (
        SAMPLE_RATE,
        check_audio,
        check_suffix,
        on_disk,
        read_audio,
        read_blocks,
        resampled_length,
        write_audio,
    )
    from etaflow.converter import VoiceConverter
    from etaflow.device import select_device
    from etaflow.progress import progress

    try:
        check_destination(output)
        check_suffix(output)
        for path in (source, *references):
            check_audio(path)
            if output.exists() and output.samefile(path):
                raise FileExistsError(f"{output} is one of the recordings; write to another file")
        converter = VoiceConverter.from_pretrained(_named(bundle), select_device(gpus))
        waveform = on_disk(read_blocks(source))
        voices = [read_audio(path) for path in references]
        blocks = progress(
            converter.stream(waveform, voices, topk, method),
            f"converting {source.name}",
            "samples",
            resampled_length(len(waveform), SAMPLE_RATE, converter.sample_rate),
            len,
        )
        converted = on_disk(blocks)
        gain = converter.gain(method, converted)
        written = write_audio(output, converted, converter.sample_rate, gain)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if written < gain:
        typer.echo(
            f"note: {20 * math.log10(gain / written):.1f} dB quieter than asked for, because its "
            "peaks would have clipped",
            err=True,
        )
    if converter.weights == "untrained":
        typer.echo("note: this bundle stands on untrained weights; expect noise", err=True)


@app.command()
def analyze(
    recording: Annotated[Path, typer.Argument(help="recording to split")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write; a new one")],
    bundle: Bundle = None,
    gpus: Gpus = 0,
) -> None:
    """Split the features of a RECORDING into speaker and rest: arrays, measures and a figure."""
    from etaflow.analysis import analyze, check_output
    from etaflow.audio import check_audio, read_audio
    from etaflow.converter import VoiceConverter
    from etaflow.device import select_device

    try:
        check_output(output)
        check_audio(recording)
        converter = VoiceConverter.from_pretrained(_named(bundle), select_device(gpus))
        analyze(read_audio(recording), converter).save(output)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if converter.weights == "untrained":
        typer.echo(
            "note: this bundle stands on untrained weights; its measures say little", err=True
        )


@app.command()
def embed(
    folder: Annotated[Path, typer.Argument(help="recordings, in folders of any depth")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 file to write")],
    encoder: Annotated[
        str, typer.Option(help="resemblyzer, or a folder such as results/RUN/encoders/NAME")
    ],
    pattern: Annotated[
        str | None,
        typer.Option(help="regular expression for paths, with (?P<speaker>…), as in a config"),
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside", help="write NAME.npy beside each recording, too")
    ] = False,
    gpus: Gpus = 0,
) -> None:
    """Write an embedding of each recording in FOLDER, and the mean of each speaker.

    A speaker is the folder that a file is in, unless a pattern says otherwise. Files that cannot
    be used are named and left out. A command that was killed goes on when it is given again.
    """
    from etaflow.atomic import check_destination
    from etaflow.device import select_device
    from etaflow.folder_embeddings import embed_folder, find_encoder

    try:
        check_destination(output)
        network = find_encoder(encoder, select_device(gpus))
        rejected = embed_folder(folder, output, network, pattern, beside)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for item in rejected:
        typer.echo(f"left out: {item.path}: {item.reason}", err=True)
    if network.info.weights == "untrained":
        typer.echo("note: this encoder is untrained; its embeddings say little", err=True)


@app.command()
def verify(
    one: Annotated[Path, typer.Argument(help="recording")],
    other: Annotated[Path, typer.Argument(help="recording to compare it with")],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="folder of a verifier, or of a bundle that has one; without it, the small bundle "
            "that comes with etaflow"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    gpus: Gpus = 0,
) -> None:
    """Say whether ONE and OTHER are recordings of the same speaker.

    Prints the score, the threshold and what it was set on. The exit status is 0 whatever the
    decision, and 1 if there is none.
    """
    from etaflow.audio import check_audio, read_audio
    from etaflow.device import select_device
    from etaflow.verification.verifier import Verifier

    try:
        for path in (one, other):
            check_audio(path)
        folder = bundle or _named(None)
        verifier = Verifier.from_pretrained(folder, select_device(gpus))
        decision = verifier.score(read_audio(one), read_audio(other))
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    facts = dict(verifier.trials)
    if as_json:
        typer.echo(json.dumps({**vars(decision), "system": verifier.name, "trials": facts}))
    else:
        typer.echo(f"score:     {decision.score:.4f} ({decision.unit})")
        typer.echo(f"threshold: {decision.threshold:.4f}")
        typer.echo(
            f"decision:  {'same speaker' if decision.same_speaker else 'different speakers'}"
        )
        typer.echo(
            f"{'calibrated' if verifier.calibration else 'threshold set'} on {facts['name']} of "
            f"the run {facts['run']}: {facts['targets']} target and {facts['nontargets']} "
            f"non-target trials; equal error rate on {facts['eer_trials']} {facts['eer']:.2f} %"
        )
        typer.echo(f"corpora:   {', '.join(facts['corpora'])}")
    if verifier.weights == "untrained":
        typer.echo("note: this verifier stands on untrained weights; it says little", err=True)


@app.command()
def separate(
    mixture: Annotated[Path, typer.Argument(help="recording of several speakers at once")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write; a new one")],
    model: Annotated[Path, typer.Option(help="folder of a separator")],
    gpus: Gpus = 0,
) -> None:
    """Write each speaker of MIXTURE to a file: source1.wav, source2.wav …

    They have the rate and length of the mixture, which may be any, and are 32-bit float at the
    level that the separator gives them. How many there are is the separator's number of speakers.
    """
    from etaflow.decoding import open_audio
    from etaflow.device import select_device
    from etaflow.separation.files import separate_file
    from etaflow.separation.networks import load_separator

    try:
        with open_audio(mixture) as sound:
            rate, channels = sound.rate, sound.channels
        info, network = load_separator(model)
        separate_file(network.to(select_device(gpus)), mixture, output)
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if channels > 1:
        typer.echo(f"note: the {channels} channels of {mixture} were averaged", err=True)
    if rate > network.sample_rate:
        typer.echo(
            f"note: {info.name} works at {network.sample_rate} Hz; what {mixture} has above half "
            "of that is lost",
            err=True,
        )
    if info.weights == "untrained":
        typer.echo("note: this separator is untrained; expect noise", err=True)


@app.command()
def serve(
    bundle: Bundle = None,
    host: Annotated[str, typer.Option(help="127.0.0.1, 0.0.0.0 or ::")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="1024 to 65535", min=1024, max=65535)] = 8000,
    config: Annotated[
        Path | None, typer.Option(help="YAML of limits and workers, as config/serve.yaml")
    ] = None,
    gpus: Annotated[int, typer.Option(help="to compute on; 0 for the CPU", min=0)] = 0,
) -> None:
    """Serve a bundle over HTTP: the web page at /, the API, its documentation at /docs.

    Whoever is to use it from other machines needs one of the keys in ETAFLOW_API_KEYS.
    """
    from etaflow.serve.settings import read_settings

    try:
        from etaflow.serve.server import keys_of_environment
        from etaflow.serve.server import serve as serve_bundle
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error}; install it with `pip install etaflow[serve]`", err=True)
        raise typer.Exit(1) from error
    try:
        settings = read_settings(config)
        serve_bundle(_named(bundle), host, port, settings, gpus, keys_of_environment())
    except (ValueError, RuntimeError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def plan(
    configfile: Annotated[Path, typer.Option(help="of the run: config/NAME.yaml")],
    config: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, as Snakemake's --config; may be repeated")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="as Snakemake's")] = None,
    workflow_profile: Annotated[str | None, typer.Option(help="as Snakemake's")] = None,
) -> None:
    """Print what a run will take before anything is spent: jobs, time, disk, memory of each rule.

    To be called where Snakemake would be, in the folder of the project. Times are amounts by rates
    that were measured; what is not known is said to be. Nothing is written.
    """
    from etaflow.planning import plan_table
    from etaflow.planning.jobs import PlanError

    # Of the folder, as Snakemake takes it, or else of the project that this is installed from.
    places = (Path.cwd(), Path(__file__).resolve().parents[1])
    snakefile = next(
        (place / "Snakefile" for place in places if (place / "Snakefile").exists()), None
    )
    if snakefile is None:
        typer.echo("error: no Snakefile here; call this in the folder of the project", err=True)
        raise typer.Exit(1)
    if not configfile.is_file():
        typer.echo(f"error: there is no config file {configfile}", err=True)
        raise typer.Exit(1)
    if workflow_profile is not None and workflow_profile != "none":
        # Snakemake would go on without it, and say nothing.
        chosen = [place / workflow_profile for place in (Path.cwd(), Path("profiles"))]
        chosen.append(snakefile.parent / "profiles" / workflow_profile)
        if not any(place.exists() for place in chosen):
            typer.echo(f"error: there is no workflow profile {workflow_profile}", err=True)
            raise typer.Exit(1)
    arguments = ["--configfile", str(configfile)]
    arguments += ["--config", *config] if config else []
    arguments += ["--profile", profile] if profile else []
    arguments += ["--workflow-profile", workflow_profile] if workflow_profile else []
    try:
        typer.echo(plan_table(snakefile, arguments))
    except (PlanError, ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
