import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="pointmix",
    version=re.search(r'__version__ = "(.+)"', (HERE / "pointmix/__init__.py").read_text(encoding="utf-8"))[1],
    description="Images and any other point set, understood by clustering: Context Clusters and relatives in PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["pointmix*"]),
    install_requires=[
        "accelerate>=1.0",
        "h5py>=3.16",  # its wheels bring HDF5 2.0.0; CVE-2026-26200 is of those before 1.14.4-2
        "huggingface_hub>=0.26",
        "jaxtyping>=0.2.34",
        "jsonargparse[signatures]>=4.51",  # the first that can be told not to make classes that a configuration names
        "matplotlib>=3.8",
        "numba>=0.60; platform_machine != 'ARM64'",  # no wheel for Windows on ARM; torch's own forms are taken there
        "numpy>=1.26",
        "pillow>=12.3",  # memory written out of bounds by crafted images; the last for Python 3.10
        "pyyaml>=6.0",
        "rich>=13.0",
        "safetensors>=0.4",
        "scikit-learn>=1.4",
        "timm>=1.0.28",  # GHSA-pqww-w348-m542: a pickle in a folder of tar files
        "torch>=2.10",  # CVE-2026-24747: crafted checkpoints broke out of weights_only
        "torchvision>=0.25",
    ],
    extras_require={
        "points": ["torch-cluster>=1.6", "torch-scatter>=2.1"],
        "viz": ["plotly>=5.20"],
        "ply": ["plyfile>=1.0"],
        "coco": ["pycocotools>=2.0.7"],
        "track": ["tensorboard>=2.15", "wandb>=0.17"],
        "test": [
            "geoopt>=0.5",
            "plotly>=5.20",
            "plyfile>=1.0",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "tensorboard>=2.15",
        ],  # fmt: skip
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
