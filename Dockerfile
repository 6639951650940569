# Two images of the same layers. What the jobs run in on Kubernetes, and the whole workflow in one image,
# the default target:
#   docker build -t etaflow .
#   docker run --rm --init --user "$(id -u):$(id -g)" -v "$PWD":/work etaflow
# The last runs `mini` on the CPU in the folder that it is called from, and leaves results/ there. Other
# runs name snakemake and its options after the image, as the last line does, with another profile for
# GPUs: `--gpus all` before the image shows them, and `--ipc=host` lets a training's processes share memory.
# And the server of a bundle, see docs/serve.md:
#   docker build -t etaflow-serve --target serve .
FROM python:3.11-slim-bookworm AS base

LABEL org.opencontainers.image.title="etaflow" \
      org.opencontainers.image.description="Speaker identity in self-supervised speech features: a Snakemake workflow and its library" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

# No Debian packages: the wheels of the lock bring their libraries, of CUDA too. Which GPUs are seen is
# for the container runtime to say; without compute it would give their driver to nvidia-smi alone.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

WORKDIR /opt/etaflow
COPY envs/requirements.txt envs/requirements.txt
RUN pip install --no-cache-dir --no-deps -r envs/requirements.txt

COPY . .
# Editable, so that Snakemake watches the files that run.
RUN pip install --no-cache-dir --no-deps --editable . \
 && python -m compileall -q etaflow scripts

# Any user may be named to own the results: caches go to a home that all may write to.
RUN useradd --create-home --uid 1000 etaflow \
 && chmod 1777 /home/etaflow \
 && install --directory --owner etaflow /work
ENV HOME=/home/etaflow \
    USER=etaflow
USER etaflow

FROM base AS serve
WORKDIR /home/etaflow
EXPOSE 8000
HEALTHCHECK --start-period=5m --interval=30s --timeout=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v1/health', timeout=5)"]
# More options go after the image: `--gpus 1`, `--config /serve.yaml`.
ENTRYPOINT ["etaflow", "serve", "--bundle", "/bundle", "--host", "0.0.0.0", "--port", "8000"]

# Last, so that it is what a build without a target makes.
FROM base AS workflow
WORKDIR /work
CMD ["snakemake", "--snakefile", "/opt/etaflow/Snakefile", "--workflow-profile", "/opt/etaflow/profiles/default"]
