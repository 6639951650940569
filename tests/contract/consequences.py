"""What follows from what in the run of the contract, rule by rule.

Jobs are named as `tests.workflow_tools.jobs_in` names them, separated by spaces; `-` is the one job
of a rule without wildcards.
"""

Again = dict[str, str]

ETAS, SYNTHESISED = "speech speech-layer-1", "knnvc knnvc-eta"
SYSTEMS = f"{SYNTHESISED} original"
SHARDS = "0000 0001"
PARTS = "pairs/test pairs/train pairs/validation"

CONVERSION_TABLES = dict.fromkeys(
    ("collect_metrics", "render_metrics", "render_listening", "plot_det", "bundle"), "-"
)
VERIFICATION_TABLES = {
    "collect_verification": "-",
    "render_verification": "-",
    "plot_det_verification": "test",
    "bundle": "-",
}
SEPARATION_TABLES = {
    "collect_separation": "-",
    "render_separation": "-",
    "plot_separation": "pairs",
    "render_separation_listening": "pairs",
    "bundle": "-",
}
PROBE_TABLES = dict.fromkeys(("render_probe", "collect_sweep", "plot_sweep"), "-")


def converted(systems: str) -> Again:
    stages = ("convert", "transcribe", "score_conversion")
    return dict.fromkeys(stages, systems) | CONVERSION_TABLES


PROBED: Again = {"probe_speakers": ETAS, **PROBE_TABLES}
FITTED: Again = {"fit_eta": ETAS, "plot_umap": "speech", "plot_norms": "speech", **PROBED}
VOCODED: Again = {
    "train_vocoder": "hifigan-tiny",
    "plot_training": "-",
    **converted(SYNTHESISED),
}
PREMATCHED: Again = {
    "prematch": "speech/wavlm-tiny/3/0000 speech/wavlm-tiny/3/0001",
    **VOCODED,
}
ENCODED: Again = {
    "train_speaker_encoder": "ecapa",
    "plot_encoder_training": "-",
    "plot_speakers": "-",
    "embed_speakers": "voices/ecapa/0000",
    "gather_embeddings": "voices/ecapa",
    "score_verification": "both/test ecapa/test",
    **VERIFICATION_TABLES,
}
ALL_SCORED: Again = {
    "score_verification": "both/test ecapa/test resemblyzer/test",
    "score_calibrated": "calibrated/test",
    "bundle_verifier": "-",
    **VERIFICATION_TABLES,
}
SEPARATED: Again = {"separate": "sepformer/pairs", "score_separation": "sepformer/pairs"}
SEPARATED |= SEPARATION_TABLES
SEPARATOR: Again = {"train_separator": "sepformer", "plot_separator_training": "-", **SEPARATED}
MIXED: Again = {
    **SEPARATOR,
    "mix_speakers": " ".join(f"{part}/0000" for part in PARTS.split()),
    "score_separation": "mixture/pairs sepformer/pairs",
}
VOICES: Again = {
    **ENCODED,
    **ALL_SCORED,
    **MIXED,
    "embed_speakers": "voices/ecapa/0000 voices/resemblyzer/0000",
    "gather_embeddings": "voices/ecapa voices/resemblyzer",
    "make_trials": "test train",
    "draw_mixtures": PARTS,
}
EMBEDDED: Again = {
    "gather_embeddings": "speech/resemblyzer",
    "fit_pca": ETAS,
    "plot_scree": "-",
    **FITTED,
}


def recorded(*shards: str) -> Again:
    """What follows from recordings of these shards."""
    return {
        **EMBEDDED,
        **PREMATCHED,
        **converted(SYSTEMS),
        "align_texts": "speech",
        "dump_features__speech__wavlm-tiny": " ".join(shards),
        "embed_speakers": " ".join(f"speech/resemblyzer/{shard}" for shard in shards),
        "prematch": " ".join(f"speech/wavlm-tiny/3/{shard}" for shard in shards),
    }


FEATURES: Again = {
    **FITTED,
    **PREMATCHED,
    "dump_features__speech__wavlm-tiny": SHARDS,
}
SPEECH = recorded(*SHARDS.split())
# In the order of the workflow, which the page keeps.
RULES = """
fetch_corpus fetch_model build_manifest_speech build_manifest_voices
dump_features__speech__wavlm-tiny embed_speakers gather_embeddings
fit_pca fit_eta align_texts probe_speakers collect_sweep
prematch train_vocoder convert transcribe score_conversion collect_metrics
train_speaker_encoder make_trials score_verification score_calibrated collect_verification
bundle_verifier
draw_mixtures mix_speakers train_separator separate score_separation collect_separation
bundle
plot_scree plot_umap plot_norms render_probe plot_sweep plot_training
plot_det render_metrics render_listening
plot_encoder_training plot_speakers plot_det_verification render_verification
plot_separator_training plot_separation render_separation render_separation_listening
"""
_MADE: Again = {
    **SPEECH,
    **VOICES,
    "fetch_corpus": "voices",
    "fetch_model": "resemblyzer wavlm-tiny",
    "build_manifest_speech": "-",
    "build_manifest_voices": "-",
    "embed_speakers": f"{SPEECH['embed_speakers']} {VOICES['embed_speakers']}",
    "gather_embeddings": f"{SPEECH['gather_embeddings']} {VOICES['gather_embeddings']}",
}
EVERYTHING: Again = {rule: _MADE[rule] for rule in RULES.split()}
