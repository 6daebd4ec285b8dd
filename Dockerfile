# The service in an image: two stages, locked dependencies, no training extras, no root.
#
#   docker build -t groundup .
#   docker run --init -p 8000:8000 groundup                                     serves the demo checkpoints
#   docker run --init -p 8000:8000 -v ./my-models:/checkpoints:ro groundup      serves yours
#   docker build --build-arg EXTRA_PACKAGES=g++ ...                             with what `--compile` needs
#
# Which torch goes in is decided by the package index: add the one that PyTorch's installation page names for CPU or for
# your CUDA version with --build-arg PIP_EXTRA_INDEX_URL=..., and start a GPU container with
# `--gpus all -e GROUNDUP_DEVICE=cuda -e GROUNDUP_DTYPE=bfloat16`.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
RUN python -m venv /opt/groundup
ENV PATH=/opt/groundup/bin:$PATH
WORKDIR /source
# Dependencies change seldom and take minutes: they get a layer of their own, before the code.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['tokenizers'], sep='\n')" \
    > requirements.txt && pip install --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE groundup.py ./
COPY model ./model
COPY service ./service
COPY client ./client
COPY training ./training
RUN pip install --no-deps --constraint constraints.txt .

FROM python:${PYTHON_VERSION}-slim
ARG EXTRA_PACKAGES=""
RUN test -z "${EXTRA_PACKAGES}" || (apt-get update && apt-get install --yes --no-install-recommends ${EXTRA_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*)
COPY --from=build /opt/groundup /opt/groundup
COPY checkpoints /checkpoints
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin groundup \
    && install --directory --owner 10001 --mode 700 /var/cache/groundup
USER 10001
ENV PATH=/opt/groundup/bin:$PATH PYTHONUNBUFFERED=1 GROUNDUP_HOST=0.0.0.0 GROUNDUP_PORT=8000 \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/groundup
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"GROUNDUP_PORT\"]}/readyz', timeout=2)"]
CMD ["sh", "-c", "exec groundup serve /checkpoints/*/"]
