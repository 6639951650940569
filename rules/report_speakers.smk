"""The report on speaker encoders and verification.

Needs what the rules of `encoders` and `verification` make.
"""

if trained_encoders():

    rule plot_encoder_training:
        """Training curves of the speaker encoders."""
        input:
            code=source("plot_training"),
            metrics=expand(
                f"{RESULTS}/encoders/{{encoder}}/metrics.tsv", encoder=trained_encoders()
            ),
            models=expand(f"{RESULTS}/encoders/{{encoder}}/model.json", encoder=trained_encoders()),
        output:
            report(
                f"{REPORT}/training-encoders.svg",
                caption="captions/training_encoders.rst",
                category="5 Speaker encoders",
                labels={"figure": "training curves"},
            ),
        log:
            f"{LOGS}/plot_encoder_training.log",
        benchmark:
            f"{BENCHMARKS}/plot_encoder_training.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.metrics} --output {output} 2> >(tee {log} >&2)"


if config["encoders"]:

    # One job for all: what UMAP compiles as it starts takes longer than most maps.
    rule plot_speakers:
        """Speakers that the encoders never trained on, as each sees them."""
        input:
            code=source("plot_speakers"),
            embeddings=expand(
                f"{RESULTS}/encoders/{{encoder}}/validation.h5", encoder=config["encoders"]
            ),
        output:
            report(
                f"{REPORT}/speakers.svg",
                caption="captions/speakers.rst",
                category="5 Speaker encoders",
                labels={"figure": "UMAPs of validation speakers"},
            ),
        log:
            f"{LOGS}/plot_speakers.log",
        benchmark:
            f"{BENCHMARKS}/plot_speakers.tsv"
        conda:
            "../envs/report.yaml"
        threads: 1
        resources:
            mem_mb=sized(4000),
            runtime=sized(60),
        params:
            limit=2000,
            seed=config["seed"],
        shell:
            "python {input.code[0]:q} {input.embeddings} --output {output}"
            " --limit {params.limit} --seed {params.seed} 2> >(tee {log} >&2)"


if VERIFICATION:

    rule render_verification:
        """The error rates of all systems as a page, beside published ones."""
        input:
            code=source("render_verification"),
            metrics=f"{RESULTS}/verification/metrics.tsv",
            summaries=expand(
                f"{RESULTS}/verification/trials/{{trials}}.json", trials=VERIFICATION["evaluate"]
            ),
            calibrations=calibrations(VERIFICATION["evaluate"][:1], VERIFICATION["systems"]),
        output:
            report(
                f"{REPORT}/verification.html",
                caption="captions/verification.rst",
                category="4 Verification",
                labels={"figure": "error rates"},
            ),
        log:
            f"{LOGS}/render_verification.log",
        benchmark:
            f"{BENCHMARKS}/render_verification.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        params:
            title=f"Speaker verification, run {config['run']}",
            systems=systems_settings(),
            calibrations=lambda w, input: " ".join(f"--calibration {f}" for f in input.calibrations),
        shell:
            "python {input.code[0]:q} {input.metrics} $(printf ' --summary %s' {input.summaries})"
            " {params.calibrations} --systems {params.systems:q} --title {params.title:q} --output {output} 2> >(tee {log} >&2)"

    rule plot_det_verification:
        """Detection error trade-off of all systems on one set of trials."""
        input:
            code=source("plot_det_verification"),
            scores=expand(
                f"{RESULTS}/verification/{{verifier}}/{{{{trials}}}}.tsv",
                verifier=VERIFICATION["systems"],
            ),
            metrics=f"{RESULTS}/verification/metrics.tsv",
        output:
            report(
                f"{REPORT}/det-{{trials}}.svg",
                caption="captions/det_verification.rst",
                category="4 Verification",
                labels={"figure": "DET curves", "trials": "{trials}"},
            ),
        log:
            f"{LOGS}/plot_det_verification/{{trials}}.log",
        benchmark:
            f"{BENCHMARKS}/plot_det_verification/{{trials}}.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} {input.scores} --metrics {input.metrics} --output {output}"
            " 2> >(tee {log} >&2)"
