"""Conversion: every system on the same pairs, transcribed and scored alike.

Needs a vocoder and the features of the corpus; for systems in eta space an Eta model and the
embeddings, too. Makes `conversion/{system}/converted.tsv` with its audio, and `conversion/metrics.tsv` of all systems.
"""

CONVERSION = config.get("conversion", {})


rule conversion:
    """The metrics of all systems."""
    input:
        f"{RESULTS}/conversion/metrics.tsv" if CONVERSION else [],


if CONVERSION:
    MANIFEST = f"{RESULTS}/manifests/{CONVERSION['corpus']}.tsv"
    SYSTEM = f"{RESULTS}/conversion/{{system}}"

    rule convert:
        """Convert the test pairs by one system."""
        input:
            unpack(conversion_inputs),
            code=source("convert"),
            manifest=f"{RESULTS}/manifests/{CONVERSION['corpus']}.recordings.tsv",
        output:
            table=f"{SYSTEM}/converted.tsv",
            audio=directory(f"{SYSTEM}/wav"),
        log:
            f"{LOGS}/convert/{{system}}.log",
        benchmark:
            f"{BENCHMARKS}/convert/{{system}}.tsv"
        priority: LONG_CHAIN
        conda:
            "../envs/speech.yaml"
        threads: 1
        resources:
            gpu=1,
            mem_mb=sized(8000),
            # By all recordings: those to convert are not counted yet.
            runtime=sized(240, manifest=60),
        params:
            config=conversion_settings,
            parts=conversion_parts,
        shell:
            "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
            " {params.parts} --config {params.config:q}"
            " --manifest {input.manifest} --output {output.table} --wav-dir {output.audio}"
            " --gpus {resources.gpu} 2> >(tee {log} >&2)"

    rule transcribe:
        """Recognise what a system's utterances say."""
        input:
            code=source("transcribe"),
            converted=f"{SYSTEM}/converted.tsv",
            audio=f"{SYSTEM}/wav",
            model=model(CONVERSION["asr"]["model"]) if "model" in CONVERSION["asr"] else [],
        output:
            f"{SYSTEM}/transcripts.tsv",
        log:
            f"{LOGS}/transcribe/{{system}}.log",
        benchmark:
            f"{BENCHMARKS}/transcribe/{{system}}.tsv"
        priority: LONG_CHAIN
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            gpu=1,
            mem_mb=sized(8000),
            runtime=sized(60, converted=500),
        params:
            config=subtree("conversion.asr"),
            model=lambda w, input: f"--model-dir $(dirname {input.model})" if input.model else "",
        shell:
            "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
            " --config {params.config:q} --converted {input.converted}"
            " {params.model} --output {output} --threads {threads} --gpus {resources.gpu}"
            " 2> >(tee {log} >&2)"

    rule score_conversion:
        """Word and character error rates, EER, speaker similarity, DNSMOS, copy-synthesis."""
        input:
            code=source("score_conversion"),
            manifest=MANIFEST,
            converted=f"{SYSTEM}/converted.tsv",
            audio=f"{SYSTEM}/wav",
            transcripts=f"{SYSTEM}/transcripts.tsv",
            embeddings=embeddings(CONVERSION["corpus"], CONVERSION["judge"]),
            judge=model(CONVERSION["judge"]),
            models=conversion_models,
        output:
            metrics=f"{SYSTEM}/metrics.tsv",
            utterances=f"{SYSTEM}/utterances.tsv",
            trials=f"{SYSTEM}/trials.tsv",
        log:
            f"{LOGS}/score_conversion/{{system}}.log",
        benchmark:
            f"{BENCHMARKS}/score_conversion/{{system}}.tsv"
        priority: LONG_CHAIN
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            gpu=1,
            mem_mb=sized(8000),
            runtime=sized(60, converted=240),
        params:
            config=subtree("conversion", "systems.{system}.method", "seed", "bootstrap_rounds"),
        shell:
            "python -m etaflow.lease {resources.gpu} python {input.code[0]:q}"
            " --system {wildcards.system} --config {params.config:q}"
            " --manifest {input.manifest} --converted {input.converted}"
            " --transcripts {input.transcripts} --embeddings {input.embeddings}"
            " --judge-dir $(dirname {input.judge}) $(printf ' --model %s' {input.models})"
            " --metrics {output.metrics} --utterances {output.utterances}"
            " --trials {output.trials} --gpus {resources.gpu} 2> >(tee {log} >&2)"

    rule collect_metrics:
        """One table of all systems."""
        input:
            code=source("collect_metrics"),
            metrics=expand(f"{SYSTEM}/metrics.tsv", system=CONVERSION["systems"]),
        output:
            f"{RESULTS}/conversion/metrics.tsv",
        log:
            f"{LOGS}/collect_metrics/conversion.log",
        benchmark:
            f"{BENCHMARKS}/collect_metrics/conversion.tsv"
        conda:
            "../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=sized(1000),
            runtime=sized(10),
        shell:
            "python {input.code[0]:q} $(printf ' --metrics %s' {input.metrics})"
            " --output {output} 2> >(tee {log} >&2)"
