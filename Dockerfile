# The command with the extras `lab` and `live`: simulations, reports and the gateway. No GPU, no vLLM.
FROM python:3.11-slim
WORKDIR /opt/concur
COPY . .
RUN pip install --no-cache-dir --editable '.[lab,live]' && useradd --create-home concur
USER concur
WORKDIR /work
ENTRYPOINT ["concur"]
CMD ["--help"]
