"""Speaker verification: every system on the same trials, scored alike.

Needs the embeddings of the corpora that the trials are of. Makes `verification/trials/{trials}.tsv`,
`verification/{system}/{trials}.tsv` (a score a trial) with `{trials}.metrics.tsv`,
`verification/metrics.tsv` of all, and `verifier/`, which `etaflow verify` loads.
"""


localrules:
    fetch_trial_list,


rule verification:
    """The metrics of all systems on all trials."""
    input:
        f"{RESULTS}/verification/metrics.tsv" if VERIFICATION else [],
        f"{RESULTS}/verifier/verifier.json" if "verifier" in VERIFICATION else [],


rule fetch_trial_list:
    """Download one of VoxCeleb1's lists of trials."""
    input:
        code=source("fetch_trial_list"),
    output:
        "resources/trials/{list}.txt",
    log:
        f"{LOGS}/fetch_trial_list/{{list}}.log",
    benchmark:
        f"{BENCHMARKS}/fetch_trial_list/{{list}}.tsv"
    wildcard_constraints:
        list=one_of(TRIAL_LISTS),
    conda:
        "../envs/corpora.yaml"
    shell:
        "python {input.code[0]:q} --name {wildcards.list} --output {output} 2> >(tee {log} >&2)"


if VERIFICATION:
    SCORED = f"{RESULTS}/verification/{{verifier}}/{{trials}}"

    rule make_trials:
        """Draw the pairs of utterances to compare, or read them from a list."""
        input:
            code=source("make_trials"),
            manifest=lambda w: recordings_of_trials(w.trials),
            list=trials_list,
        output:
            trials=f"{RESULTS}/verification/trials/{{trials}}.tsv",
            summary=f"{RESULTS}/verification/trials/{{trials}}.json",
        log:
            f"{LOGS}/make_trials/{{trials}}.log",
        benchmark:
            f"{BENCHMARKS}/make_trials/{{trials}}.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000, manifest=20),
            runtime=sized(60),
        params:
            config=trials_settings,
            list=lambda w, input: f"--list {input.list}" if input.list else "",
        shell:
            "python {input.code[0]:q} --config {params.config:q} --manifest {input.manifest}"
            " {params.list} --output {output.trials} --summary {output.summary}"
            " 2> >(tee {log} >&2)"

    rule score_verification:
        """Scores of a system's trials, with error rates, costs and their intervals."""
        input:
            unpack(scoring_inputs),
            code=source("score_verification"),
            manifest=lambda w: recordings_of_trials(w.trials),
            trials=f"{RESULTS}/verification/trials/{{trials}}.tsv",
        output:
            scores=f"{SCORED}.tsv",
            metrics=f"{SCORED}.metrics.tsv",
        log:
            f"{LOGS}/score_verification/{{verifier}}/{{trials}}.log",
        benchmark:
            f"{BENCHMARKS}/score_verification/{{verifier}}/{{trials}}.tsv"
        wildcard_constraints:
            verifier=one_of(systems_of(calibrated=False)),
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(8000, trials=15),
            runtime=sized(60, trials=1),
        params:
            config=scoring_settings,
            parts=scoring_options,
            calibration=calibration_option,
        shell:
            "python {input.code[0]:q} --system {wildcards.verifier} --trials-name {wildcards.trials}"
            " --config {params.config:q} --manifest {input.manifest} --trials {input.trials}"
            " {params.parts} --output {output.scores} --metrics {output.metrics}"
            " {params.calibration} 2> >(tee {log} >&2)"

    use rule score_verification as score_calibrated with:
        output:
            scores=f"{SCORED}.tsv",
            metrics=f"{SCORED}.metrics.tsv",
            calibration=f"{SCORED}.calibration.json",
        log:
            f"{LOGS}/score_calibrated/{{verifier}}/{{trials}}.log",
        benchmark:
            f"{BENCHMARKS}/score_calibrated/{{verifier}}/{{trials}}.tsv"
        wildcard_constraints:
            verifier=one_of(systems_of(calibrated=True)),

    rule collect_verification:
        """One table of all systems and trials."""
        input:
            code=source("collect_metrics"),
            metrics=expand(
                f"{SCORED}.metrics.tsv",
                trials=VERIFICATION["evaluate"],
                verifier=VERIFICATION["systems"],
            ),
        output:
            f"{RESULTS}/verification/metrics.tsv",
        log:
            f"{LOGS}/collect_metrics/verification.log",
        benchmark:
            f"{BENCHMARKS}/collect_metrics/verification.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} $(printf ' --metrics %s' {input.metrics}) --output {output}"
            " 2> >(tee {log} >&2)"


if "verifier" in VERIFICATION:
    CHOSEN = VERIFICATION["verifier"]

    rule bundle_verifier:
        """An encoder, its threshold and its calibration in one folder, for `etaflow verify`."""
        input:
            code=source("bundle_verifier"),
            encoder=model(VERIFICATION["systems"][CHOSEN["system"]]["encoder"]),
            scores=f"{RESULTS}/verification/{CHOSEN['system']}/{CHOSEN['trials']}.tsv",
            metrics=f"{RESULTS}/verification/{CHOSEN['system']}/{CHOSEN['trials']}.metrics.tsv",
            calibration=calibrations([CHOSEN["trials"]], [CHOSEN["system"]]),
        output:
            f"{RESULTS}/verifier/verifier.json",
        log:
            f"{LOGS}/bundle_verifier.log",
        benchmark:
            f"{BENCHMARKS}/bundle_verifier.tsv"
        conda:
            "../envs/speech.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(60),
        params:
            config=verifier_settings,
            calibration=lambda w, input: (
                f"--calibration {input.calibration}" if input.calibration else ""
            ),
        shell:
            f"python {{input.code[0]:q}} --system {CHOSEN['system']}"
            " --config {params.config:q} --encoder {input.encoder}"
            " {params.calibration} --metrics {input.metrics} --trials {input.scores}"
            " --output-dir $(dirname {output}) 2> >(tee {log} >&2)"
