"""The report on separation.

Needs what the rules of `separation` make.
"""

if trained_separators():

    rule plot_separator_training:
        """Training curves of the separators."""
        input:
            code=source("plot_training"),
            metrics=expand(
                f"{RESULTS}/separators/{{separator}}/metrics.tsv", separator=trained_separators()
            ),
            models=expand(
                f"{RESULTS}/separators/{{separator}}/model.json", separator=trained_separators()
            ),
        output:
            report(
                f"{REPORT}/training-separators.svg",
                caption="captions/training_separators.rst",
                category="6 Separation",
                labels={"figure": "training curves"},
            ),
        log:
            f"{LOGS}/plot_separator_training.log",
        benchmark:
            f"{BENCHMARKS}/plot_separator_training.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.metrics} --output {output} 2> >(tee {log} >&2)"


if SEPARATION["systems"]:

    rule render_separation:
        """The ratios of all systems as a page, beside published ones."""
        input:
            code=source("render_separation"),
            metrics=f"{RESULTS}/separation/metrics.tsv",
            excluded=expand(
                f"{RESULTS}/separation/{BASELINE}/{{mixtures}}.excluded.tsv",
                mixtures=SEPARATION["mixtures"],
            ),
        output:
            report(
                f"{REPORT}/separation.html",
                caption="captions/separation.rst",
                category="6 Separation",
                labels={"figure": "SI-SNR and SDR"},
            ),
        log:
            f"{LOGS}/render_separation.log",
        benchmark:
            f"{BENCHMARKS}/render_separation.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        params:
            title=f"Source separation, run {config['run']}",
            mixtures=sets_of_mixtures(),
            systems=separation_systems(),
            excluded=" ".join(
                f"--excluded {name}={RESULTS}/separation/{BASELINE}/{name}.excluded.tsv"
                for name in SEPARATION["mixtures"]
            ),
        shell:
            "python {input.code[0]:q} {input.metrics} --mixtures {params.mixtures:q}"
            " --systems {params.systems:q} {params.excluded} --title {params.title:q}"
            " --output {output} 2> >(tee {log} >&2)"

    rule plot_separation:
        """How the improvements of a set of mixtures are distributed."""
        input:
            code=source("plot_separation"),
            scores=lambda w: of_each_system(w.mixtures, f"{w.mixtures}.tsv"),
            metrics=f"{RESULTS}/separation/metrics.tsv",
        output:
            report(
                f"{REPORT}/separation-{{mixtures}}.svg",
                caption="captions/separation_scores.rst",
                category="6 Separation",
                labels={"figure": "distributions", "mixtures": "{mixtures}"},
            ),
        log:
            f"{LOGS}/plot_separation/{{mixtures}}.log",
        benchmark:
            f"{BENCHMARKS}/plot_separation/{{mixtures}}.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.scores} --metrics {input.metrics} --output {output}"
            " 2> >(tee {log} >&2)"

    rule render_separation_listening:
        """The best and the worst mixtures of a set, to listen to."""
        input:
            code=source("render_separation_listening"),
            scores=lambda w: of_each_system(w.mixtures, f"{w.mixtures}.tsv"),
            separated=lambda w: of_each_system(w.mixtures, f"{w.mixtures}/separated.tsv"),
            mixtures=lambda w: mixture_tables(w.mixtures, "test"),
            metrics=f"{RESULTS}/separation/metrics.tsv",
        output:
            report(
                f"{REPORT}/separation-listening-{{mixtures}}.html",
                caption="captions/separation_listening.rst",
                category="6 Separation",
                labels={"figure": "listening page", "mixtures": "{mixtures}"},
            ),
        log:
            f"{LOGS}/render_separation_listening/{{mixtures}}.log",
        benchmark:
            f"{BENCHMARKS}/render_separation_listening/{{mixtures}}.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(10),
        params:
            by=lambda w: separating_systems(w.mixtures)[-1],
            shown=SEPARATION["listening_mixtures"],
            title=lambda w: f"Listening to {w.mixtures}, run {config['run']}",
        shell:
            "python {input.code[0]:q} {input.scores}"
            " $(printf ' --separated %s' {input.separated})"
            " $(printf ' --mixtures %s' {input.mixtures}) --metrics {input.metrics}"
            " --by {params.by} --mixtures-shown {params.shown} --title {params.title:q}"
            " --output {output} 2> >(tee {log} >&2)"
