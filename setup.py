from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def version() -> str:
    """`__version__` of the package, read without importing it: torch need not be there yet."""
    for line in (ROOT / "tetris_kernels/__init__.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("tetris_kernels/__init__.py has no __version__")


DECODE = ["accelerate>=1", "gguf>=0.10", "matplotlib>=3.8", "rich>=13", "transformers>=5.23", "typer>=0.12"]
TEST = ["hypothesis>=6", "numpy>=2", "pytest>=8", "pytest-benchmark>=4", "pytest-xdist>=3", *DECODE]

setup(
    name="tetris-kernels",
    version=version(),
    description="Which draft tokens of a batch to verify in speculative decoding: exact, on the GPU, no host sync",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        "tetris_kernels",
        "tetris_kernels.kernels",
        "tetris_kernels.reference",
        "tetris_decode",
        "tetris_decode.commands",
        "tetris_vllm",
    ],
    package_dir={
        "tetris_kernels": "tetris_kernels",
        "tetris_decode": "python/tetris_decode",
        "tetris_vllm": "python/tetris_vllm",
    },
    package_data={
        "tetris_kernels": ["py.typed"],
        "tetris_decode": ["py.typed", "data/ngrams.npz", "data/traces.npz", "data/README.md"],
        "tetris_vllm": ["py.typed"],
    },
    install_requires=["torch>=2.13", "triton>=3.6; platform_system == 'Linux'", "numpy>=1.26"],
    extras_require={
        "decode": DECODE,
        "test": TEST,
        "dev": [*TEST, "build>=1", "mypy>=1.15", "ruff>=0.11", "setuptools>=77", "wheel"],
    },
    entry_points={
        "console_scripts": ["tetris-decode = tetris_decode.__main__:main"],
        "vllm.general_plugins": ["tetris = tetris_vllm.plugin:register"],
    },
    keywords=["speculative decoding", "LLM inference", "Triton", "draft token selection", "TETRIS"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
