# Limbeck with the versions that its results were measured with, as scripts/demo installs them.
#
#   docker build -t limbeck .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" limbeck run digits --out runs/digits
#
# A GPU needs --gpus all. There is no compiler, so networks are not compiled; all else is the same.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/limbeck

# The largest layer first: it changes least.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch torchvision

COPY pyproject.toml README.md LICENSE ./
COPY synth ./synth
COPY projectors ./projectors
COPY distill ./distill
RUN pip install --constraint constraints.txt ".[compact,onnx]"

# Whoever runs it, with --user or without, may write caches, and files below /work alone.
RUN useradd --create-home limbeck && mkdir /work && chown limbeck /work
ENV OMP_WAIT_POLICY=PASSIVE XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
USER limbeck
WORKDIR /work
ENTRYPOINT ["distill"]
CMD ["--help"]
