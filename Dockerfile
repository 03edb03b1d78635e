# The demo in a container: docker build -t univnet . && docker run --rm -v "$PWD/runs:/univnet/runs" univnet
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /univnet
COPY . .
RUN PIP_NO_CACHE_DIR=1 make install
CMD ["make", "demo"]
