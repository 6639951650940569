"""Speaker encoders that are trained here.

Needs the manifests of its corpora, and the model that a network starts from. Makes
`encoders/{encoder}/encoder.safetensors` with `config.json`, `model.json` (so that it stands
wherever a speaker encoder of `models` does), `metrics.tsv`, and `validation.h5`, the embeddings of
speakers that it never trained on.
"""


rule encoders:
    """All speaker encoders of the config."""
    input:
        expand(f"{RESULTS}/encoders/{{encoder}}/model.json", encoder=config["encoders"]),


rule train_speaker_encoder:
    """Train a speaker encoder, or fine-tune one; resumes where it was stopped."""
    input:
        code=source("train_speaker_encoder"),
        manifests=recordings_of_encoder,
        model=encoder_start,
    output:
        model=f"{RESULTS}/encoders/{{encoder}}/model.json",
        weights=f"{RESULTS}/encoders/{{encoder}}/encoder.safetensors",
        config=f"{RESULTS}/encoders/{{encoder}}/config.json",
        metrics=f"{RESULTS}/encoders/{{encoder}}/metrics.tsv",
        validation=f"{RESULTS}/encoders/{{encoder}}/validation.h5",
    log:
        f"{LOGS}/train_speaker_encoder/{{encoder}}.log",
    benchmark:
        f"{BENCHMARKS}/train_speaker_encoder/{{encoder}}.tsv"
    wildcard_constraints:
        encoder=one_of(config["encoders"]),
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        # Not params, for what train_vocoder says of its own.
        tracker=TRACKER,
        checkpoint_every=lambda w: config["encoders"][w.encoder]["checkpoints"]["every"],
        checkpoints_kept=lambda w: config["encoders"][w.encoder]["checkpoints"]["keep"],
        mem_mb=sized(16000),
        runtime="2d",
    params:
        config=encoder_settings,
        trees=augmentation_trees,
        folder=f"{RESULTS}/encoders/{{encoder}}",
        work=f"{RESULTS}/work/train_speaker_encoder/{{encoder}}",
        model=lambda w, input: f"--model {input.model}" if input.model else "",
    shell:
        f"{LAUNCH} {{input.code[0]:q}}"
        " --config {params.config:q} $(printf ' --manifest %s' {input.manifests}) {params.model}"
        " --output-dir {params.folder} --working-dir {params.work}"
        " --checkpoint-every {resources.checkpoint_every}"
        " --checkpoints-kept {resources.checkpoints_kept} --tracker {resources.tracker}"
        f" --tracker-dir {LOGS}/tensorboard/train_speaker_encoder/{{wildcards.encoder}}"
        " --threads {threads} --gpus {resources.gpu} 2> >(tee {log} >&2)"
