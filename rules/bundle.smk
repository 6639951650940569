"""The bundle: what a user takes away from a run, or from published models alone.

Needs a vocoder and the model of its features; an Eta model and metrics where there are any, and
the verifier and a separator where the config asks for them. Makes `bundle/`.
"""

if bundled():

    rule bundle:
        """All models that one uses of a run in one folder, with a card that says what they are."""
        input:
            unpack(bundle_inputs),
            code=source("bundle"),
        output:
            f"{RESULTS}/bundle/config.json",
        log:
            f"{LOGS}/bundle.log",
        benchmark:
            f"{BENCHMARKS}/bundle.tsv"
        conda:
            "../envs/speech.yaml"
        threads: 1
        resources:
            mem_mb=sized(2000),
            runtime=sized(60),
        params:
            config=bundle_config,
            parts=bundle_parts,
        shell:
            "python {input.code[0]:q} --config {params.config:q} {params.parts} --output {output}"
            " 2> >(tee {log} >&2)"
