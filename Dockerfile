# poolserve in a container: `--target cpu`, or `--target gpu` for NVIDIA. How to build, run and configure it: docs/container.md.
#
# BASE is any glibc system with Python 3.11 or later, venv included, and nothing else. Python 3.13 is maintained until 2029 and has
# wheels of every dependency, so nothing is compiled. The tag takes Debian's and Python's security fixes at each build; for a build
# that is the same each time, pass BASE=…@sha256:….
ARG BASE=python:3.13-slim-bookworm

# What installs: a virtual environment for the image, and a pip beside it that stays behind.
FROM ${BASE} AS installer
# Where packages come from, if not from pip's default; seen in this stage only. What must stay secret, or is more than an address,
# goes into a pip.conf passed as the build secret `pip_conf`.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
# The dependencies alone, without the code: their layers outlive every change that leaves these two files as they are. pyvips has
# no wheel; it is Python alone, its library comes as the wheel pyvips-binary.
COPY pyproject.toml constraints.txt ./
RUN ["python3", "-c", "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; [open(f'{extra}.txt', 'w').write('\\n'.join(project['dependencies'] + extras[extra])) for extra in ('cpu', 'gpu')]"]

# Bytecode is compiled here, since nothing can be written where the service runs; `unchecked-hash`: valid whatever happens to the
# files' dates on their way through layers and registries.
FROM installer AS packages-cpu
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: --no-binary pyvips --no-compile \
        --constraint constraints.txt --requirement cpu.txt \
    && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM installer AS packages-gpu
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: --no-binary pyvips --no-compile \
        --constraint constraints.txt --requirement gpu.txt \
    && /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# The code and the models, readable by everyone whatever the umask of the checkout, writable by nobody but root.
FROM ${BASE} AS code
WORKDIR /app
COPY LICENSE ./
COPY models/ models/
COPY graphs/ graphs/
COPY service/ service/
RUN chmod -R u=rwX,go=rX /app && python3 -m compileall -q --invalidation-mode unchecked-hash graphs service

# What both images are, but for their packages.
FROM ${BASE} AS service
# The official Python images come without the standard library's bytecode, which would be compiled anew at each start.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x '/(site-packages|dist-packages|ensurepip|idlelib|lib2to3|pydoc_data|test|tests|tkinter|turtledemo)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
LABEL org.opencontainers.image.title="poolserve" \
      org.opencontainers.image.description="CNNs and pooling over HTTP: images of any size in, labels out; never resized, exact." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    POOLSERVE_HOST=0.0.0.0
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
# By number, so that Kubernetes' runAsNonRoot can see that it is not root; no file belongs to it.
USER 10001:10001
# -I: neither the environment nor the working directory has a say in what is imported; http.client: no proxy has, either.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('POOLSERVE_PORT', '8000')), timeout=4); c.request('GET', '/health/ready'); a = c.getresponse(); print(a.status, a.read(200).decode()); sys.exit(a.status != 200)"]
CMD ["python", "-m", "service"]

# On the GPU or not at all. NVIDIA's driver comes from the host, CUDA and cuDNN from the wheels in the virtual environment.
FROM service AS gpu
ENV POOLSERVE_PROVIDER=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=code /app /app

# The last one is what a build without --target makes: the one that runs anywhere.
FROM service AS cpu
ENV POOLSERVE_PROVIDER=cpu
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --from=code /app /app
