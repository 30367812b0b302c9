# docker build -t diffusion-bundles .              torch for CPUs
# docker build -t diffusion-bundles --build-arg TORCH_INDEX=https://pypi.org/simple .
#                                                  the public index's torch, which for Linux is one for CUDA; for a driver
#                                                  that is too old for it, the index that pytorch.org names
# docker run --rm diffusion-bundles                runs gdpi on its demo; any other command may stand behind the name
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home user
WORKDIR /home/user

# Before the repository, so that a change there installs nothing anew.
COPY requirements.txt .
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.txt

COPY --chown=user . .
RUN pip install --no-cache-dir -e .

USER user
CMD ["python", "-m", "monai.bundle", "run", "--config_file", "bundles/gdpi/configs/inference.json"]
