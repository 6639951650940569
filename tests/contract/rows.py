"""The contract of re-runs: what is done to a completed run, and the jobs that then run again."""

import re
from dataclasses import dataclass

from tests.contract import edits
from tests.contract.consequences import (
    ALL_SCORED,
    CONVERSION_TABLES,
    EMBEDDED,
    ENCODED,
    EVERYTHING,
    FEATURES,
    FITTED,
    MIXED,
    PREMATCHED,
    PROBED,
    SEPARATED,
    SEPARATION_TABLES,
    SEPARATOR,
    SPEECH,
    SYNTHESISED,
    SYSTEMS,
    VERIFICATION_TABLES,
    VOCODED,
    VOICES,
    Again,
    converted,
    recorded,
)
from tests.contract.edits import (
    Change,
    another,
    appended,
    copied_with_its_date,
    key,
    recordings,
    swapped,
    together,
    touched,
)
from tests.workflow_tools import ROOT


@dataclass(frozen=True)
class Row:
    """A row of the contract.

    Attributes:
        group: the part of the table that it stands in.
        what: is done, in words.
        so: what it means, in words.
        again: of each rule that runs again its jobs, separated by spaces.
        changes: what is done; each of them alone has this consequence.
        really: the target that is also run, and not only planned; empty if none is.
    """

    group: str
    what: str
    so: str
    again: Again
    changes: tuple[Change, ...]
    really: str = ""

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "-", self.what).strip("-").lower()

    def jobs(self) -> dict[str, list[str]]:
        return {rule: sorted(jobs.split()) for rule, jobs in self.again.items()}


def profiles() -> tuple[Change, ...]:
    """Every profile that there is; in the folder of the run lies a copy of them."""
    names = sorted(path.name for path in (ROOT / "profiles").iterdir() if path.is_dir())
    return tuple(Change(arguments=("--workflow-profile", f"profiles/{name}")) for name in names)


CONFIG, ORDER = "A value of the config", "Values that change places, and order"
CODE, TIMES = "Code", "Times of files, and a fresh checkout"
SPEECH_GROUP, MACHINE = "Recordings", "The machine"
MODELS, MORE = "Models", "More of something, or less"

ROWS = (
    Row(
        CONFIG,
        "`probe.seed`",
        "the probes, and what shows them",
        PROBED,
        (key("probe.seed", 1),),
    ),
    Row(
        CONFIG,
        "`ridge` of an Eta model",
        "the fit, its probes and figures, and conversions that use it; its PCA stays",
        FITTED | converted("knnvc-eta"),
        (key("eta.speech.ridge", 0.5),),
    ),
    Row(
        CONFIG,
        "`normalize` of an `ssl` model",
        "features in every shard, and all that is made of them; speaker embeddings stay",
        FEATURES | converted(SYNTHESISED),
        (key("ssl.wavlm-tiny.normalize", True),),
    ),
    Row(
        CONFIG,
        "`prematch.topk`",
        "prematching in every shard, the vocoder, and what it says",
        PREMATCHED,
        (key("prematch.topk", 3),),
    ),
    Row(
        CONFIG,
        "`steps` of a vocoder",
        "its training, and what it says; not the original recordings",
        VOCODED,
        (key("vocoder.hifigan-tiny.steps", 5),),
    ),
    Row(
        CONFIG,
        "`conversion.bootstrap_rounds`",
        "the scores; no recording is converted or transcribed again",
        {"score_conversion": SYSTEMS, **CONVERSION_TABLES},
        (key("conversion.bootstrap_rounds", 200),),
        really="conversion",
    ),
    Row(
        CONFIG,
        "`seed` of a speaker encoder",
        "its training, its embeddings and the systems that compare them",
        ENCODED,
        (key("encoders.ecapa.seed", 1),),
    ),
    Row(
        CONFIG,
        "`seed` of a list of trials",
        "the trials and every score of them; no embedding",
        {"make_trials": "test", **ALL_SCORED},
        (key("verification.trials.test.seed", 1),),
    ),
    Row(
        CONFIG,
        "`counts.test` of a set of mixtures",
        "its test mixtures and their scores; nothing is trained",
        {
            "draw_mixtures": "pairs/test",
            "mix_speakers": "pairs/test/0000",
            **SEPARATED,
            "score_separation": "mixture/pairs sepformer/pairs",
        },
        (key("mixtures.pairs.counts", {"train": 4, "validation": 2, "test": 4}),),
    ),
    Row(
        CONFIG,
        "`mode` of a set of mixtures",
        "the same mixtures are mixed anew, and separators train on them; none is drawn again",
        MIXED,
        (key("mixtures.pairs.mode", "max"),),
    ),
    Row(
        CONFIG,
        "`steps` of a separator",
        "its training, its estimates and their scores",
        SEPARATOR,
        (key("separators.sepformer.steps", 3),),
    ),
    Row(
        CONFIG,
        "`seed` of a corpus of kind `mini`",
        "that corpus and all that is made of it; the other corpus stays",
        VOICES | {"fetch_corpus": "voices", "build_manifest_voices": "-"},
        (key("corpora.voices.seed", 2),),
    ),
    Row(
        CONFIG,
        "`seed` at the top",
        "figures that are drawn by chance",
        {"plot_umap": "speech", "plot_speakers": "-"},
        (key("seed", 1),),
    ),
    Row(
        CONFIG,
        "`tracker`, or `checkpoints` of a speaker encoder or separator",
        "nothing: they do not change what a training ends with",
        {},
        (
            together(
                key("tracker", "wandb"),
                key("encoders.ecapa.checkpoints", {"every": 1, "keep": 1}),
                key("separators.sepformer.checkpoints", {"every": 1, "keep": 1}),
            ),
        ),
    ),
    Row(
        CONFIG,
        "a layer in `together` that nothing asks for",
        "nothing",
        {},
        (key("ssl.wavlm-tiny.together", [1, 2, 3]),),
    ),
    Row(
        CONFIG,
        "`checkpoints` of a vocoder",
        "the bundle, whose card quotes the vocoder's entry",
        {"bundle": "-"},
        (key("vocoder.hifigan-tiny.checkpoints", {"every": 1, "keep": 1}),),
    ),
    Row(
        CONFIG,
        "`bundle.verifier` or `bundle.separator`, left out",
        "the bundle",
        {"bundle": "-"},
        (key("bundle.verifier", ...), key("bundle.separator", ...)),
    ),
    Row(
        ORDER,
        "two values of one entry, swapped: `probe.speakers` and `probe.frames`",
        "what depends on either",
        PROBED,
        (swapped("probe.speakers", "probe.frames"),),
    ),
    Row(
        ORDER,
        "the methods of two conversion systems, swapped",
        "both systems, and no other",
        converted(SYNTHESISED),
        (swapped("conversion.systems.knnvc.method", "conversion.systems.knnvc-eta.method"),),
    ),
    Row(
        ORDER,
        "the encoders of two verification systems, swapped",
        "the scores of both, and of the average of them; no embedding",
        {
            "score_verification": "both/test ecapa/test resemblyzer/test",
            **VERIFICATION_TABLES,
        },
        (
            swapped(
                "verification.systems.resemblyzer.encoder", "verification.systems.ecapa.encoder"
            ),
        ),
    ),
    Row(
        ORDER,
        "the same values of a sweep in another order",
        "the table and the figure, which have that order",
        {"collect_sweep": "-", "plot_sweep": "-"},
        (key("sweep.layer", [3, 1]),),
    ),
    Row(
        ORDER,
        "the two systems that are averaged, in another order",
        "the page that names them; their average is the same",
        {"render_verification": "-"},
        (key("verification.systems.both.average", ["ecapa", "resemblyzer"]),),
    ),
    Row(
        ORDER,
        "the keys of the config, in another order at every depth",
        "nothing",
        {},
        (Change(config=edits.reordered),),
    ),
    Row(
        ORDER,
        "the systems, in another order",
        "the page of verification, which says of each how it scores, in that order",
        {"render_verification": "-"},
        (Change(config=edits.systems_reordered),),
    ),
    Row(
        CODE,
        "a script: `scripts/fit_eta.py`",
        "its rule, and what is made with it",
        FITTED | converted("knnvc-eta"),
        (appended("scripts/fit_eta.py", text="\nUNUSED = 1\n"),),
    ),
    Row(
        CODE,
        "a module that a script imports: `etaflow/probe.py`",
        "the rules whose scripts import it, and what is made with them",
        PROBED,
        (appended("etaflow/probe.py", text="\nUNUSED = 1\n"),),
        really="all",
    ),
    Row(
        CODE,
        "a module that is copied with its old date (`rsync -a`): `etaflow/probe.py`",
        "the same: code is compared by its bytes, whatever its date",
        PROBED,
        (copied_with_its_date("etaflow/probe.py", "\nUNUSED = 1\n"),),
    ),
    Row(
        CODE,
        "a module that scripts import at second hand: `etaflow/speaker/resemblyzer.py`",
        "every rule that embeds speakers, on every shard of every corpus; neither features nor the "
        "vocoder",
        {
            **EMBEDDED,
            **converted(SYSTEMS),
            **ENCODED,
            **ALL_SCORED,
            "embed_speakers": "speech/resemblyzer/0000 speech/resemblyzer/0001 "
            "voices/ecapa/0000 voices/resemblyzer/0000",
            "gather_embeddings": "speech/resemblyzer voices/ecapa voices/resemblyzer",
        },
        (appended("etaflow/speaker/resemblyzer.py", text="\nUNUSED = 1\n"),),
    ),
    Row(
        CODE,
        "a comment or white space in a script",
        "the same as any edit: code is compared by its bytes",
        {"plot_scree": "-", "plot_norms": "speech"},
        (
            together(
                appended("scripts/plot_scree.py", text="\n# A comment.\n"),
                appended("scripts/plot_norms.py", text="\n"),
            ),
        ),
    ),
    Row(
        CODE,
        "a module that no script imports, a new module, a comment in the rules, the documentation",
        "nothing",
        {},
        (
            together(
                appended("etaflow/cli.py", "etaflow/analysis.py", "etaflow/new.py", text="A = 1"),
                appended("Snakefile", "rules/features.smk", text="\n# A comment.\n"),
                appended("config/README.md", "config/schema.yaml", text="\n# More.\n"),
            ),
        ),
    ),
    Row(
        CODE,
        "the command of a rule",
        "that rule, and what is made with it",
        {"plot_scree": "-"},
        (Change(files=edits.change_command),),
    ),
    Row(
        TIMES,
        "touched code, or touched results and models under 1 MB",
        "nothing: they are compared by content",
        {},
        (together(touched(edits.code), touched(edits.small_files)),),
    ),
    Row(
        TIMES,
        "single files of a system's converted audio, touched, changed or deleted",
        "nothing: Snakemake knows this folder by the time that it was made; after such a change, "
        "`snakemake --forcerun convert`",
        {},
        (together(touched(edits.converted_audio), Change(files=edits.spoil_converted_audio)),),
    ),
    Row(
        TIMES,
        "a touched file of features over 1 MB",
        "all that is made of it: larger inputs are compared by time",
        {
            **PREMATCHED,
            **PROBED,
            **converted(SYNTHESISED),
            "fit_eta": "speech",
            "plot_umap": "speech",
            "plot_norms": "speech",
            "probe_speakers": "speech",
            "prematch": "speech/wavlm-tiny/3/0001",
        },
        (edits.touch_large(),),
    ),
    Row(
        TIMES,
        "a fresh checkout, to which `results/`, `resources/` and `.snakemake/` are linked or moved",
        "nothing",
        {},
        (Change(files=edits.link_results), Change(files=edits.move_results)),
    ),
    Row(
        TIMES,
        "a fresh checkout without `.snakemake/`",
        "everything: what Snakemake knows of the results is kept there",
        EVERYTHING,
        (Change(files=edits.forget_records),),
    ),
    Row(
        SPEECH_GROUP,
        "a recording more",
        "features, embeddings and prematching of its speaker's shard, and what reads all shards",
        recorded("0001"),
        (recordings(edits.add_utterance),),
        really="eta",
    ),
    Row(
        SPEECH_GROUP,
        "a recording less",
        "the same, in the shard of its speaker",
        recorded("0000"),
        (recordings(edits.remove_utterance),),
    ),
    Row(
        SPEECH_GROUP,
        "other samples in a recording, as many as before",
        "the same, in the shard of its speaker",
        recorded("0000"),
        (recordings(edits.alter_samples),),
    ),
    Row(
        SPEECH_GROUP,
        "a speaker more",
        "the same, in the shard of the new speaker",
        recorded("0000"),
        (recordings(edits.add_speaker),),
    ),
    Row(
        SPEECH_GROUP,
        "touched recordings",
        "nothing",
        {},
        (recordings(edits.touch_recordings),),
    ),
    Row(
        SPEECH_GROUP,
        "a corrected transcript",
        "its alignment and the probes of it, and the scores of conversions; nothing is embedded, "
        "trained, converted or transcribed again",
        {
            "align_texts": "speech",
            **PROBED,
            "score_conversion": SYSTEMS,
            **CONVERSION_TABLES,
        },
        (recordings(edits.correct_transcript),),
    ),
    Row(
        SPEECH_GROUP,
        "`shards` of a corpus",
        "every shard, and all that is made of them",
        recorded("0000", "0001", "0002"),
        (Change(config=key("corpora.speech.shards", 3).config, manifests=True),),
    ),
    Row(
        SPEECH_GROUP,
        "touched recordings, without `snakemake manifests` first",
        "every shard: before a manifest is built, Snakemake cannot know that it comes out the same",
        SPEECH | {"build_manifest_speech": "-"},
        (Change(files=edits.touch_recordings),),
    ),
    Row(
        MACHINE,
        "threads, memory or run time of a job, or the number of cores",
        "nothing",
        {},
        (
            Change(
                arguments=(
                    *("--set-threads", "train_vocoder=2", "convert=2", "--cores", "1"),
                    *("--set-resources", "convert:mem_mb=123", "fit_eta:runtime=7"),
                )
            ),
        ),
    ),
    Row(
        MACHINE,
        "the number of GPUs, of a machine or of a training",
        "nothing",
        {},
        (Change(arguments=("--resources", "gpu=4", "--set-resources", "train_vocoder:gpu=4")),),
    ),
    Row(MACHINE, "the profile", "nothing", {}, profiles()),
    Row(
        MODELS,
        "the revision of an `ssl` model; of a random one, its seed",
        "the model, features in every shard, and all that is made of them; speaker embeddings stay",
        {
            **FEATURES,
            **converted(SYNTHESISED),
            "fetch_model": "wavlm-tiny",
        },
        (key("models.wavlm-tiny.seed", 1), edits.another_revision()),
    ),
    Row(
        MORE,
        "an Eta model more",
        "that model, its probe and its figures, and figures that show all",
        {
            "fit_pca": "other",
            "fit_eta": "other",
            "probe_speakers": "other",
            "plot_umap": "other",
            "plot_norms": "other",
            "plot_scree": "-",
            "render_probe": "-",
        },
        (another("eta", "speech", "other", ridge=1.0),),
    ),
    Row(
        MORE,
        "a conversion system more",
        "that system, and tables and pages that show all",
        converted("linearvc"),
        (another("conversion.systems", "knnvc", "linearvc", method="linear"),),
    ),
    Row(
        MORE,
        "a conversion system less",
        "tables and pages that showed it",
        CONVERSION_TABLES,
        (key("conversion.systems.knnvc-eta", ...),),
    ),
    Row(
        MORE,
        "a speaker encoder more, and a system of it",
        "the encoder, its embeddings and scores, and tables and pages that show all",
        {
            "train_speaker_encoder": "second",
            "embed_speakers": "voices/second/0000",
            "gather_embeddings": "voices/second",
            "score_verification": "second/test",
            "plot_speakers": "-",
            "plot_encoder_training": "-",
            **VERIFICATION_TABLES,
        },
        (
            together(
                another("encoders", "ecapa", seed=1),
                another("verification.systems", "ecapa", encoder="second"),
            ),
        ),
    ),
    Row(
        MORE,
        "a separator more, and a system of it",
        "the separator, its estimates and scores, and tables and pages that show all",
        {
            "train_separator": "second",
            "plot_separator_training": "-",
            "separate": "second/pairs",
            "score_separation": "second/pairs",
            **SEPARATION_TABLES,
        },
        (
            together(
                another("separators", "sepformer", seed=1),
                another("separation.systems", "sepformer", separator="second"),
            ),
        ),
    ),
)
