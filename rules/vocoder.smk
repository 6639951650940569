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
    priority: LONG_CHAIN
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        gpu=1,
        # It takes 0.7 GB and twice a speaker's frames in float32, which of 1,024 dimensions are 1.5 GB
        # an hour: enough for 2.7 hours of a speaker alone in a shard, and for more beside others.
        mem_mb=sized(4000, features=0.75),
        runtime=sized(20, features=0.05),
    params:
        config=subtree("", "prematch.topk", "ssl.{ssl}.dtype"),
    shell:
        "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
        " --config {params.config:q} --manifest {input.manifest}"
        " --features {input.features} --output {output} --gpus {resources.gpu}"
        " 2> >(tee {log} >&2)"


rule train_vocoder:
    """Train a vocoder on raw, prematched or η features; resumes where it was stopped."""
    input:
        unpack(eta_of_vocoder),
        code=source("train_vocoder"),
        manifests=recordings_of("vocoder"),
        model=ssl_model_of("vocoder"),
        start=start_of_vocoder,
        features=features_of("vocoder"),
        also=raw_beside_prematched,
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
    priority: LONG_CHAIN
    conda:
        "../envs/speech.yaml"
    # Small models gain little from a second core, and lose tenfold where it is also wanted elsewhere;
    # profiles of machines with a GPU give more, for reading the data.
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        # Not params, like the number of GPUs: to keep other checkpoints, or to follow the training
        # elsewhere, is no reason to train again.
        tracker=TRACKER,
        checkpoint_every=lambda w: entry_of("vocoder", w)["checkpoints"]["every"],
        checkpoints_kept=lambda w: entry_of("vocoder", w)["checkpoints"]["keep"],
        mem_mb=sized(16000),
        runtime="2d",
    params:
        config=trained_vocoder,
        folder=f"{RESULTS}/vocoder/{{vocoder}}",
        work=f"{RESULTS}/work/train_vocoder/{{vocoder}}",
        eta=eta_options,
        start=lambda w, input: f"--start {input.start}" if input.start else "",
        also=lambda w, input: " ".join(f"--also {file}" for file in input.also),
    shell:
        f"{LAUNCH} {{input.code[0]:q}} {{input.features}}"
        " --config {params.config:q} $(printf ' --manifest %s' {input.manifests})"
        " {params.also} --model {input.model}"
        " --output-dir {params.folder} --working-dir {params.work} {params.eta} {params.start}"
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
        "../envs/speech.yaml"
    threads: 1
    resources:
        mem_mb=sized(2000),
        runtime=sized(10),
    params:
        config=imported_vocoder,
    shell:
        "python {input.code[0]:q} --config {params.config:q} --vocoder {input.vocoder}"
        " --model {input.model} --output-dir $(dirname {output.weights}) 2> >(tee {log} >&2)"
