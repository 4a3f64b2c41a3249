"""Published models whose memory is known, described as spaces in docs/models/.

A reference is a published number, or one that is counted by hand from the model's config.json. The test
`tests/parity/test_published_models.py` finds the same numbers by making each model, and its own cache, in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co/"
KIB, MIB = 2**10, 2**20


@dataclass(frozen=True)
class LeftOut:
    """What of a reference is not in our figure.

    Attributes:
        amount: elements, or bytes; below 0 where ours has more.
        what: in words.
    """

    amount: int = 0
    what: str = ""


NOTHING = LeftOut()


@dataclass(frozen=True, kw_only=True)
class State:
    """A state whose size is known elsewhere.

    Attributes:
        context: tokens.
        batch: sequences.
        dtypes: settings of `estimate`.
        reference: bytes.
        source: of the reference.
        left_out: bytes that ours lacks.
        in_transformers: whether transformers' own cache has the reference's size.
    """

    context: int
    batch: int = 1
    dtypes: tuple[tuple[str, str], ...] = ()
    reference: int
    source: str
    left_out: LeftOut = NOTHING
    in_transformers: bool = True

    @property
    def words(self) -> str:
        """What it is asked at."""
        tokens = f"{self.context:,} tokens" + (f" × {self.batch}" if self.batch > 1 else "")
        return ", ".join([tokens, *(f"{key} {dtype}" for key, dtype in self.dtypes)])


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model as it was published.

    Attributes:
        name: the file in docs/models.
        title: of the table.
        repository: on the Hugging Face hub; its config.json holds the sizes.
        parameters: of the checkpoint, as its safetensors metadata count them.
        approximate: the published number, where the checkpoint has none and `parameters` are transformers'.
        left_out: weights that our blocks have no place for.
        states: what is known of its state.
    """

    name: str
    title: str
    repository: str
    parameters: int
    approximate: str = ""
    left_out: LeftOut = NOTHING
    states: tuple[State, ...]


CONFIG = "counted by hand from config.json"

# Where a reference says L, it is tokens; the factor 2 in front is for keys and values, the last one for bytes of bf16.
PUBLISHED = (
    Published(
        name="llama_3_1_8b",
        title="Llama-3.1-8B",
        repository="meta-llama/Llama-3.1-8B",
        parameters=8_030_261_248,
        states=(
            State(
                context=2_048,
                reference=256 * MIB,
                source="what llama.cpp allocates for Llama-3-8B, whose cache is the same: [256 MiB]"
                f"({HUB}dranger003/c4ai-command-r-v01-iMat.GGUF/discussions/6)",
            ),
            State(context=65_536, reference=65_536 * 128 * KIB, source=f"128 KiB a token, {CONFIG}: 2·32·8·128·2"),
            State(
                context=65_536,
                dtypes=(("cache_dtype", "fp8"),),
                reference=65_536 * 64 * KIB + 64 * 4,
                source="64 KiB a token; transformers' fp8 cache",
                left_out=LeftOut(64 * 4, "one fp32 scale for each layer's keys and values: constants, no state"),
            ),
            State(
                context=65_536,
                dtypes=(("cache_dtype", "int4"),),
                reference=32 * 16 * (128 * 256 + (65_536 - 128) * (64 + 2 * 4)),
                source="by hand, KIVI's packing in groups of 64: 32·16 vectors a token, 128 tokens of 256 bytes, the "
                "others of 64 and two scales and zero points of 4",
                in_transformers=False,
            ),
        ),
    ),
    Published(
        name="tinyllama_1_1b",
        title="TinyLlama-1.1B",
        repository="TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
        parameters=1_100_048_384,
        states=(
            State(context=2_048, batch=8, reference=8 * 2_048 * 2 * 22 * 4 * 64 * 2, source=f"{CONFIG}: L·2·22·4·64·2"),
        ),
    ),
    Published(
        name="gpt2",
        title="GPT-2",
        repository="openai-community/gpt2",
        parameters=124_439_808,
        left_out=LeftOut(
            12 * (3 * 768 + 768 + 3_072 + 768 + 2 * 768) + 768,
            "biases: of queries, keys, values, outputs and MLPs, and of the 25 norms",
        ),
        states=(State(context=1_024, reference=1_024 * 2 * 12 * 768 * 2, source=f"{CONFIG}: L·2·12·768·2"),),
    ),
    Published(
        name="qwen2_5_1_5b",
        title="Qwen2.5-1.5B",
        repository="Qwen/Qwen2.5-1.5B",
        parameters=1_543_714_304,
        left_out=LeftOut(28 * (12 + 2 * 2) * 128, "biases of queries, keys and values in 28 layers"),
        states=(
            State(
                context=32_768,
                reference=32_768 * 28 * KIB,
                source=f"28 KiB a token, {CONFIG}: 2·28·2·128·2",
            ),
        ),
    ),
    Published(
        name="mistral_7b_v0_1",
        title="Mistral-7B-v0.1",
        repository="mistralai/Mistral-7B-v0.1",
        parameters=7_241_732_096,
        states=(
            State(
                context=32_768,
                reference=32_768 * 128 * KIB // 8,
                source="Jiang et al. 2023, section 2: a rolling buffer of 4,096 tokens, at 32k an eighth of 128 KiB a "
                "token",
                in_transformers=False,
            ),
            State(
                context=32_768,
                reference=4_095 * 128 * KIB,
                source="transformers' cache",
                left_out=LeftOut(
                    -128 * KIB, "nothing: between two steps transformers keeps a token less than the window sees"
                ),
            ),
        ),
    ),
    Published(
        name="gemma_3_1b",
        title="Gemma-3-1B",
        repository="google/gemma-3-1b-pt",
        parameters=999_885_952,
        left_out=LeftOut(
            26 * (2 * 256 + 2 * 1_152), "norms of queries and keys, and those behind attention and MLP, in 26 layers"
        ),
        states=(
            State(
                context=32_768,
                reference=(4 * 32_768 + 22 * 512) * KIB,
                source=f"{CONFIG}: 4 global layers of L tokens and 22 local ones of 512, 1 KiB a token each: 2·256·2",
                in_transformers=False,
            ),
            State(
                context=32_768,
                reference=(4 * 32_768 + 22 * 511) * KIB,
                source="transformers' cache",
                left_out=LeftOut(
                    -22 * KIB, "nothing: between two steps transformers keeps a token less than the window sees"
                ),
            ),
        ),
    ),
    Published(
        name="deepseek_v2_lite",
        title="DeepSeek-V2-Lite",
        repository="deepseek-ai/DeepSeek-V2-Lite",
        parameters=15_706_484_224,
        left_out=LeftOut(
            26 * ((64 + 2) * 3 * 2_048 * 1_408 + 64 * 2_048 + 2_048),
            "mixtures of experts in 26 layers: 64 experts and 2 shared ones each, the router, the norm before them",
        ),
        states=(
            State(
                context=32_768,
                reference=32_768 * (512 + 64) * 27 * 2,
                source="DeepSeek-AI 2024, table 1: (d_c + d_R)·l elements a token",
            ),
        ),
    ),
    Published(
        name="mamba2_1_3b",
        title="Mamba-2 1.3B",
        repository="state-spaces/mamba2-1.3b",
        parameters=1_343_757_312,
        approximate="1.3B",
        states=(
            State(
                context=2_048,
                reference=48 * (64 * 64 * 128 * 4 + 4 * (4_096 + 2 * 128) * 2),
                source="transformers' cache: 48·(64·64·128·4 + 4·4,352·2), at any context",
                left_out=LeftOut(
                    48 * (4_096 + 2 * 128) * 2,
                    "of a convolution of 4 taps it keeps 4 inputs, ours the 3 that are read",
                ),
            ),
        ),
    ),
    Published(
        name="nemotron_h_8b",
        title="Nemotron-H-8B",
        repository="nvidia/Nemotron-H-8B-Base-8K",
        parameters=8_100_852_736,
        approximate="8B",
        states=(
            State(
                context=8_192,
                reference=8_192 * 16 * KIB + 24 * (128 * 64 * 128 * 4 + 3 * (8_192 + 2 * 8 * 128) * 2),
                source=f"{CONFIG}: L·2·4·8·128·2 + 24·(128·64·128·4 + 3·10,240·2)",
                in_transformers=False,
            ),
            State(
                context=8_192,
                dtypes=(("recurrent_dtype", "bf16"),),
                reference=8_192 * 16 * KIB + 51_806_208,
                source="as before with recurrent states in bf16: 51,806,208 bytes beside the 16 KiB a token",
                in_transformers=False,
            ),
            State(
                context=8_192,
                reference=8_192 * 16 * KIB + 24 * (128 * 64 * 128 * 4 + 4 * (8_192 + 2 * 8 * 128) * 2),
                source="transformers' cache",
                left_out=LeftOut(
                    24 * 10_240 * 2, "of a convolution of 4 taps it keeps 4 inputs, ours the 3 that are read"
                ),
            ),
        ),
    ),
    Published(
        name="qwen3_5_2b",
        title="Qwen3.5-2B (text)",
        repository="Qwen/Qwen3.5-2B",
        parameters=1_881_825_088,
        left_out=LeftOut(6 * 2 * 256, "norms of queries and keys in 6 layers"),
        states=(
            State(
                context=8_192,
                reference=8_192 * 12 * KIB + 18 * (16 * 128 * 128 * 4 + 4 * 6_144 * 2),
                source="transformers' cache: L·2·6·2·256·2 + 18·(16·128·128·4 + 4·6,144·2)",
                left_out=LeftOut(
                    18 * 6_144 * 2, "of a convolution of 4 taps it keeps 4 inputs, ours the 3 that are read"
                ),
            ),
        ),
    ),
    Published(
        name="lfm2_1_2b",
        title="LFM2-1.2B",
        repository="LiquidAI/LFM2-1.2B",
        parameters=1_170_340_608,
        left_out=LeftOut(6 * 2 * 64, "norms of queries and keys in 6 layers"),
        states=(
            State(
                context=32_768,
                reference=32_768 * 12 * KIB + 10 * 3 * 2_048 * 2,
                source="transformers' cache: L·2·6·8·64·2 + 10·3·2,048·2",
                left_out=LeftOut(
                    10 * 2_048 * 2, "of a convolution of 3 taps it keeps 3 inputs, ours the 2 that are read"
                ),
            ),
        ),
    ),
)
