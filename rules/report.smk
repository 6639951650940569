"""The report: tables, figures and a page to listen to.

Needs whatever the config makes. Makes `report/*`, which `snakemake --report` gathers into one file.
"""

REPORT = f"{RESULTS}/report"


rule report:
    """Everything that the report shows."""
    input:
        rules.manifests.input,
        rules.features.input,
        rules.eta.input,
        rules.vocoder.input,
        rules.conversion.input,
        rules.encoders.input,
        rules.verification.input,
        rules.mixtures.input,
        rules.separators.input,
        rules.separation.input,
        [f"{REPORT}/{name}" for name in report_items()],
        f"{RESULTS}/bundle/config.json" if bundled() else [],


rule plot_scree:
    """Explained variance of the PCAs."""
    input:
        code=source("plot_scree"),
        pcas=[
            f"{RESULTS}/eta/{name}/pca.safetensors"
            for name in studied()
            if config["eta"][name]["pca"] is not None
        ],
    output:
        report(
            f"{REPORT}/scree.svg",
            caption="captions/scree.rst",
            category="2 Eta-WavLM",
            labels={"figure": "scree plot"},
        ),
    log:
        f"{LOGS}/plot_scree.log",
    benchmark:
        f"{BENCHMARKS}/plot_scree.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=sized(1000),
        runtime=sized(10),
    shell:
        "python {input.code[0]:q} {input.pcas} --output {output} 2> >(tee {log} >&2)"


rule plot_umap:
    """Utterance means with and without the speaker."""
    input:
        code=source("plot_umap"),
        manifest=recordings_of("eta"),
        features=features_of("eta"),
        embeddings=embeddings_of("eta"),
        eta=f"{RESULTS}/eta/{{eta}}/eta.safetensors",
        eta_config=f"{RESULTS}/eta/{{eta}}/config.json",
    output:
        report(
            f"{REPORT}/umap-{{eta}}.svg",
            caption="captions/umap.rst",
            category="2 Eta-WavLM",
            labels={"figure": "UMAP", "model": "{eta}"},
        ),
    log:
        f"{LOGS}/plot_umap/{{eta}}.log",
    benchmark:
        f"{BENCHMARKS}/plot_umap/{{eta}}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=sized(8000),
        runtime=sized(60),
    params:
        limit=2000,
        seed=config["seed"],
    shell:
        "python {input.code[0]:q} {input.features} --manifest {input.manifest}"
        " --embeddings {input.embeddings} --eta $(dirname {input.eta}) --output {output}"
        " --limit {params.limit} --seed {params.seed} 2> >(tee {log} >&2)"


rule plot_norms:
    """Norms of utterance means, before and after the speaker is removed."""
    input:
        code=source("plot_norms"),
        features=features_of("eta"),
        embeddings=embeddings_of("eta"),
        eta=f"{RESULTS}/eta/{{eta}}/eta.safetensors",
        eta_config=f"{RESULTS}/eta/{{eta}}/config.json",
    output:
        report(
            f"{REPORT}/norms-{{eta}}.svg",
            caption="captions/norms.rst",
            category="2 Eta-WavLM",
            labels={"figure": "norms", "model": "{eta}"},
        ),
    log:
        f"{LOGS}/plot_norms/{{eta}}.log",
    benchmark:
        f"{BENCHMARKS}/plot_norms/{{eta}}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=sized(8000),
        runtime=sized(60),
    shell:
        "python {input.code[0]:q} {input.features} --embeddings {input.embeddings}"
        " --eta $(dirname {input.eta}) --output {output} 2> >(tee {log} >&2)"


if PROBE:

    rule render_probe:
        """What linear probes find before and after the speaker is removed."""
        input:
            code=source("render_probe"),
            probes=expand(f"{RESULTS}/eta/{{eta}}/probe.tsv", eta=studied()),
        output:
            report(
                f"{REPORT}/probe.html",
                caption="captions/probe.rst",
                category="2 Eta-WavLM",
                labels={"figure": "probes"},
            ),
        log:
            f"{LOGS}/render_probe.log",
        benchmark:
            f"{BENCHMARKS}/render_probe.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        params:
            title=f"Probes, run {config['run']}",
        shell:
            "python {input.code[0]:q} {input.probes} --title {params.title:q} --output {output}"
            " 2> >(tee {log} >&2)"


if sweep():

    rule plot_sweep:
        """What the sweep found, as curves with intervals."""
        input:
            code=source("plot_sweep"),
            table=f"{RESULTS}/eta/sweep.tsv",
        output:
            report(
                f"{REPORT}/sweep.svg",
                caption="captions/sweep.rst",
                category="2 Eta-WavLM",
                labels={"figure": "sweep"},
            ),
        log:
            f"{LOGS}/plot_sweep.log",
        benchmark:
            f"{BENCHMARKS}/plot_sweep.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.table} --output {output} 2> >(tee {log} >&2)"


rule plot_training:
    """Training curves of the vocoders."""
    input:
        code=source("plot_training"),
        metrics=expand(
            f"{RESULTS}/vocoder/{{vocoder}}/metrics.tsv", vocoder=vocoders(pretrained=False)
        ),
        configs=expand(
            f"{RESULTS}/vocoder/{{vocoder}}/config.json", vocoder=vocoders(pretrained=False)
        ),
    output:
        report(
            f"{REPORT}/training.svg",
            caption="captions/training.rst",
            category="3 Vocoder",
            labels={"figure": "training curves"},
        ),
    log:
        f"{LOGS}/plot_training.log",
    benchmark:
        f"{BENCHMARKS}/plot_training.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=sized(1000),
        runtime=sized(10),
    shell:
        "python {input.code[0]:q} {input.metrics} --output {output} 2> >(tee {log} >&2)"


if CONVERSION:

    rule plot_det:
        """Detection error trade-off of the conversions."""
        input:
            code=source("plot_det"),
            trials=expand(f"{SYSTEM}/trials.tsv", system=compared()),
            metrics=f"{RESULTS}/conversion/metrics.tsv",
        output:
            report(
                f"{REPORT}/det.svg",
                caption="captions/det.rst",
                category="1 Conversion",
                labels={"figure": "DET curves"},
            ),
        log:
            f"{LOGS}/plot_det.log",
        benchmark:
            f"{BENCHMARKS}/plot_det.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.trials} --metrics {input.metrics} --output {output} 2> >(tee {log} >&2)"

    rule render_metrics:
        """The metrics of all systems as a page."""
        input:
            code=source("render_metrics"),
            metrics=f"{RESULTS}/conversion/metrics.tsv",
        output:
            report(
                f"{REPORT}/metrics.html",
                caption="captions/metrics.rst",
                category="1 Conversion",
                labels={"figure": "metrics"},
            ),
        log:
            f"{LOGS}/render_metrics.log",
        benchmark:
            f"{BENCHMARKS}/render_metrics.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        params:
            title=f"Conversion, run {config['run']}",
            config=evaluation,
        shell:
            "python {input.code[0]:q} {input.metrics} --title {params.title:q}"
            " --config {params.config:q} --output {output} 2> >(tee {log} >&2)"

    if references():

        rule plot_references:
            """What the amount of reference speech does to a conversion."""
            input:
                code=source("plot_references"),
                metrics=f"{RESULTS}/conversion/metrics.tsv",
                converted=expand(
                    f"{SYSTEM}/converted.tsv", system=[name for _, _, name in references()]
                ),
            output:
                report(
                    f"{REPORT}/references.svg",
                    caption="captions/references.rst",
                    category="1 Conversion",
                    labels={"figure": "amount of reference"},
                ),
            log:
                f"{LOGS}/plot_references.log",
            benchmark:
                f"{BENCHMARKS}/plot_references.tsv"
            conda:
                "../envs/report.yaml"
            threads: 1
            resources:
                mem_mb=sized(1000),
                runtime=sized(10),
            params:
                entries=" ".join(
                    f"--entry {base}={'all' if seconds is None else seconds}"
                    f"={RESULTS}/conversion/{name}"
                    for base, seconds, name in references()
                ),
            shell:
                "python {input.code[0]:q} {params.entries} --metrics {input.metrics}"
                " --output {output} 2> >(tee {log} >&2)"

    rule render_listening:
        """Pairs to listen to."""
        input:
            code=source("render_listening"),
            manifest=MANIFEST,
            converted=expand(f"{SYSTEM}/converted.tsv", system=synthesised_systems()),
            audio=expand(f"{SYSTEM}/wav", system=synthesised_systems()),
            metrics=f"{RESULTS}/conversion/metrics.tsv",
        output:
            report(
                f"{REPORT}/listening.html",
                caption="captions/listening.rst",
                category="1 Conversion",
                labels={"figure": "listening page"},
            ),
        log:
            f"{LOGS}/render_listening.log",
        benchmark:
            f"{BENCHMARKS}/render_listening.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(10),
        params:
            pairs=CONVERSION["listening_pairs"],
            title=f"Listening, run {config['run']}",
        shell:
            "python {input.code[0]:q} {input.converted} --manifest {input.manifest}"
            " --metrics {input.metrics}"
            " --title {params.title:q} --pairs {params.pairs} --output {output}"
            " 2> >(tee {log} >&2)"
