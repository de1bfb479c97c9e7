# The image that the machines of a pod or cluster run: docs/tpu_pods.md.
#
#   docker build --build-arg ACCELERATOR=tpu --tag IMAGE .
#
# ACCELERATOR is cpu, tpu, cuda12 or cuda13 (NVIDIA's driver 580 or newer). The
# libraries of CUDA come with JAX; the machine needs the driver alone.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

ARG ACCELERATOR=cpu
# More extras of setup.py, such as tensorboard.
ARG EXTRAS=gcs,report

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /sum_l_jax

# .dockerignore lets through what training needs, and no data.
COPY . .
RUN case "$ACCELERATOR" in \
      cpu) extras="$EXTRAS" ;; \
      tpu | cuda12 | cuda13) extras="$EXTRAS,$ACCELERATOR" ;; \
      *) echo "ACCELERATOR must be cpu, tpu, cuda12 or cuda13, got $ACCELERATOR" >&2; exit 2 ;; \
    esac \
    && pip install --constraint constraints.txt --editable ".[$extras]" \
    && python -m sum_l_jax --help

CMD ["python", "-m", "sum_l_jax"]
