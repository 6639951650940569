"""The vocoder: features back to a waveform.

Needs the features of a corpus, or a vocoder that was trained elsewhere. Makes
`prematch/{corpus}/{ssl}-l{layer}/{shard}.h5` and `vocoder/{vocoder}/generator.safetensors` with
`config.json`, and `metrics.tsv` if it was trained here.
"""


rule vocoder:
    """All vocoders of the config."""
    input:
        expand(f"{RESULTS}/vocoder/{{vocoder}}/generator.safetensors", vocoder=config["vocoder"]),


rule prematch:
    """Rebuild each training utterance of a shard from its speaker's others; resumes after a kill."""
    input:
        code=source("prematch"),
        manifest=f"{RESULTS}/manifests/{{corpus}}/{{shard}}.tsv",
        features=f"{RESULTS}/features/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.h5",
    output:
        f"{RESULTS}/prematch/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.h5",
    log:
        f"{LOGS}/prematch/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.log",
    benchmark:
        f"{BENCHMARKS}/prematch/{{corpus}}/{{ssl}}-l{{layer}}/{{shard}}.tsv"
    conda:
        "../envs/etaflow.yaml"
    threads: 1
    resources:
        gpu=1,
        # 0.7 GB and twice a speaker's frames in float32: enough for 4 hours of a speaker of 1,024
        # dimensions.
        mem_mb=8000,
        runtime="8h",
    params:
        config=subtree("", "prematch.topk", "ssl.{ssl}.dtype"),
    shell:
        "python {input.code[0]:q} --config {params.config:q} --manifest {input.manifest}"
        " --features {input.features} --output {output} --gpus {resources.gpu}"
        " 2> >(tee {log} >&2)"


rule train_vocoder:
    """Train a HiFi-GAN on raw, prematched or η features; resumes where it was stopped."""
    input:
        unpack(eta_of_vocoder),
        code=source("train_vocoder"),
        manifest=recordings_of("vocoder"),
        model=ssl_model_of("vocoder"),
        features=features_of("vocoder"),
    output:
        weights=f"{RESULTS}/vocoder/{{vocoder}}/generator.safetensors",
        config=f"{RESULTS}/vocoder/{{vocoder}}/config.json",
        metrics=f"{RESULTS}/vocoder/{{vocoder}}/metrics.tsv",
    log:
        f"{LOGS}/train_vocoder/{{vocoder}}.log",
    benchmark:
        f"{BENCHMARKS}/train_vocoder/{{vocoder}}.tsv"
    wildcard_constraints:
        vocoder=one_of(vocoders(pretrained=False)),
    conda:
        "../envs/etaflow.yaml"
    # Small models gain little from a second core, and lose tenfold where it is also wanted elsewhere;
    # profiles of machines with a GPU give more, for reading the data.
    threads: 1
    resources:
        gpu=1,
        # Not params, like the number of GPUs: to keep other checkpoints, or to follow the training
        # elsewhere, is no reason to train again.
        tracker=TRACKER,
        checkpoint_every=lambda w: entry_of("vocoder", w)["checkpoints"]["every"],
        checkpoints_kept=lambda w: entry_of("vocoder", w)["checkpoints"]["keep"],
        mem_mb=16000,
        runtime="7d",
    params:
        config=trained_vocoder,
        folder=f"{RESULTS}/vocoder/{{vocoder}}",
        work=f"{RESULTS}/work/train_vocoder/{{vocoder}}",
        eta=eta_options,
    shell:
        f"{LAUNCH} {{input.code[0]:q}} {{input.features}}"
        " --config {params.config:q} --manifest {input.manifest} --model {input.model}"
        " --output-dir {params.folder} --working-dir {params.work} {params.eta}"
        " --checkpoint-every {resources.checkpoint_every}"
        " --checkpoints-kept {resources.checkpoints_kept} --tracker {resources.tracker}"
        f" --tracker-dir {LOGS}/tensorboard/train_vocoder/{{wildcards.vocoder}}"
        " --threads {threads} --gpus {resources.gpu} 2> >(tee {log} >&2)"


rule import_vocoder:
    """Take over a vocoder that was trained elsewhere."""
    input:
        code=source("import_vocoder"),
        vocoder=lambda w: model(entry_of("vocoder", w)["pretrained"]),
        model=ssl_model_of("vocoder"),
    output:
        weights=f"{RESULTS}/vocoder/{{vocoder}}/generator.safetensors",
        config=f"{RESULTS}/vocoder/{{vocoder}}/config.json",
    log:
        f"{LOGS}/import_vocoder/{{vocoder}}.log",
    benchmark:
        f"{BENCHMARKS}/import_vocoder/{{vocoder}}.tsv"
    wildcard_constraints:
        vocoder=one_of(vocoders(pretrained=True)),
    conda:
        "../envs/etaflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime="10m",
    params:
        config=imported_vocoder,
    shell:
        "python {input.code[0]:q} --config {params.config:q} --vocoder {input.vocoder}"
        " --model {input.model} --output-dir $(dirname {output.weights}) 2> >(tee {log} >&2)"
