"""Separation: separators trained, mixtures separated, and every system scored alike.

Needs the tables of mixtures. Makes `separators/{separator}/separator.safetensors` with `config.json`,
`model.json` and `metrics.tsv`; `separation/{system}/{mixtures}/separated.tsv` beside the estimates'
audio, `{mixtures}.tsv` (a row a source), and `separation/metrics.tsv` of all.
"""


rule separators:
    """All separators of the config."""
    input:
        expand(f"{RESULTS}/separators/{{separator}}/model.json", separator=config["separators"]),


rule separation:
    """The metrics of all systems on all mixtures."""
    input:
        f"{RESULTS}/separation/metrics.tsv" if SEPARATION["systems"] else [],


rule train_separator:
    """Train a separator, or fine-tune one; resumes where it was stopped."""
    input:
        code=source("train_separator"),
        mixtures=mixtures_to_learn("train"),
        validation=mixtures_to_learn("validation"),
        model=separator_start,
    output:
        model=f"{RESULTS}/separators/{{separator}}/model.json",
        weights=f"{RESULTS}/separators/{{separator}}/separator.safetensors",
        config=f"{RESULTS}/separators/{{separator}}/config.json",
        metrics=f"{RESULTS}/separators/{{separator}}/metrics.tsv",
    log:
        f"{LOGS}/train_separator/{{separator}}.log",
    benchmark:
        f"{BENCHMARKS}/train_separator/{{separator}}.tsv"
    priority: LONG_CHAIN
    conda:
        "../envs/speech.yaml"
    threads: 1
    resources:
        gpu=1,
        nodes=1,
        # Not params, for what train_vocoder says of its own.
        tracker=TRACKER,
        checkpoint_every=lambda w: config["separators"][w.separator]["checkpoints"]["every"],
        checkpoints_kept=lambda w: config["separators"][w.separator]["checkpoints"]["keep"],
        mem_mb=sized(16000),
        runtime="2d",
    params:
        config=separator_settings,
        folder=f"{RESULTS}/separators/{{separator}}",
        work=f"{RESULTS}/work/train_separator/{{separator}}",
        model=lambda w, input: f"--model {input.model}" if input.model else "",
    shell:
        f"{LAUNCH} {{input.code[0]:q}}"
        " --config {params.config:q} $(printf ' --mixtures %s' {input.mixtures})"
        " $(printf ' --validation %s' {input.validation}) {params.model}"
        " --output-dir {params.folder} --working-dir {params.work}"
        " --checkpoint-every {resources.checkpoint_every}"
        " --checkpoints-kept {resources.checkpoints_kept} --tracker {resources.tracker}"
        f" --tracker-dir {LOGS}/tensorboard/train_separator/{{wildcards.separator}}"
        " --threads {threads} --gpus {resources.gpu} 2> >(tee {log} >&2)"


if SEPARATION["systems"]:

    rule separate:
        """Separate the test mixtures of a set; goes on where it was stopped."""
        input:
            code=source("separate"),
            mixtures=lambda w: mixture_tables(w.mixtures, "test"),
            model=lambda w: model(separator_of(w.demixer)),
        output:
            f"{RESULTS}/separation/{{demixer}}/{{mixtures}}/separated.tsv",
        log:
            f"{LOGS}/separate/{{demixer}}/{{mixtures}}.log",
        benchmark:
            f"{BENCHMARKS}/separate/{{demixer}}/{{mixtures}}.tsv"
        wildcard_constraints:
            demixer=one_of(SEPARATION["systems"]),
        conda:
            "../envs/speech.yaml"
        threads: 1
        resources:
            gpu=1,
            mem_mb=sized(8000),
            runtime=sized(60, mixtures=600),
        params:
            config=separating_settings,
            folder=lambda w, output: os.path.dirname(output[0]),
        shell:
            "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
            " --system {wildcards.demixer} --config {params.config:q}"
            " --model {input.model} $(printf ' --mixtures %s' {input.mixtures})"
            " --folder {params.folder} --output {output} --gpus {resources.gpu}"
            " --threads {threads} 2> >(tee {log} >&2)"

    rule score_separation:
        """Ratios of a system's estimates, or of the mixtures themselves, with their intervals."""
        input:
            unpack(scored_system),
            code=source("score_separation"),
            mixtures=lambda w: mixture_tables(w.mixtures, "test"),
        output:
            scores=f"{RESULTS}/separation/{{demixer}}/{{mixtures}}.tsv",
            metrics=f"{RESULTS}/separation/{{demixer}}/{{mixtures}}.metrics.tsv",
            excluded=f"{RESULTS}/separation/{{demixer}}/{{mixtures}}.excluded.tsv",
        log:
            f"{LOGS}/score_separation/{{demixer}}/{{mixtures}}.log",
        benchmark:
            f"{BENCHMARKS}/score_separation/{{demixer}}/{{mixtures}}.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(4000, mixtures=50),
            runtime=sized(60, mixtures=60),
        params:
            config=json.dumps({key: SEPARATION[key] for key in ("bootstrap_rounds", "seed")}),
            options=scored_options,
        shell:
            "python {input.code[0]:q} --system {wildcards.demixer}"
            " --mixtures-name {wildcards.mixtures} --config {params.config:q}"
            " $(printf ' --mixtures %s' {input.mixtures}) {params.options} --output {output.scores}"
            " --metrics {output.metrics} --excluded {output.excluded} --threads {threads}"
            " 2> >(tee {log} >&2)"

    rule collect_separation:
        """One table of all systems and sets of mixtures."""
        input:
            code=source("collect_metrics"),
            metrics=[
                f"{RESULTS}/separation/{system}/{mixtures}.metrics.tsv"
                for mixtures in SEPARATION["mixtures"]
                for system in [BASELINE, *separating_systems(mixtures)]
            ],
        output:
            f"{RESULTS}/separation/metrics.tsv",
        log:
            f"{LOGS}/collect_metrics/separation.log",
        benchmark:
            f"{BENCHMARKS}/collect_metrics/separation.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} $(printf ' --metrics %s' {input.metrics}) --output {output}"
            " 2> >(tee {log} >&2)"
