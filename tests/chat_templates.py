"""The shapes of the chat templates of well-known families, on tiny tokenizers and models.

Each has the special tokens, the beginning of text and the ends in ``generation_config`` that its
family has. The templates are written anew; they do what the families' own do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from families import CAUSAL, family_model
from foreword.backbone.backbone import Backbone

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    "{{ m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
QWEN2 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}"
    "{% endif %}{% if tools %}{{ '<|im_start|>tools\n' + tools | tojson + '<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.content %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>' + call.function.name + '</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% set content = m.content %}{% set thoughts = '' %}"
    "{% if m.reasoning_content is string %}{% set thoughts = m.reasoning_content %}"
    "{% elif '</think>' in content %}"
    "{% set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or thoughts) %}"
    "{{ '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{% else %}{{ content }}{% endif %}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    "{% set ns = namespace(system='') %}{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}"
    "{% if loop.previtem is defined and loop.previtem.role == 'user' %}"
    "{{ raise_exception('conversation roles must alternate user and assistant') }}{% endif %}"
    "{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Chat:
    """A family: its template, special tokens and ends; the first special token is its BOS."""

    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    ends: tuple[str, ...]  # of generation_config
    turn: str  # the token that ends a turn
    pieces: bool = False  # words that begin with a sign for a space, as SentencePiece has them
    system: bool = True


HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
THINK = ["<think>", "</think>"]  # added tokens that are not special
CHATS = {
    "llama3": Chat(
        LLAMA3,
        ("<|begin_of_text|>", *HEADERS),
        "<|begin_of_text|>",
        "<|eot_id|>",
        ("<|end_of_text|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    "qwen2": Chat(QWEN2, CHATML, None, "<|im_end|>", ("<|im_end|>", "<|endoftext|>"), "<|im_end|>"),
    "qwen3": Chat(QWEN3, CHATML, None, "<|im_end|>", ("<|im_end|>", "<|endoftext|>"), "<|im_end|>"),
    "gemma": Chat(
        GEMMA,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        "<eos>",
        ("<eos>", "<end_of_turn>"),
        "<end_of_turn>",
        system=False,
    ),
    "phi3": Chat(
        PHI3,
        ("<s>", "<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
        None,
        "<|endoftext|>",
        ("<|endoftext|>", "<|assistant|>", "<|end|>"),
        "<|end|>",
        pieces=True,
    ),
    "mistral": Chat(
        MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>", ("</s>",), "</s>", pieces=True
    ),
}
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@cache
def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The family's tokenizer, byte-level or with bytes to fall back on."""
    chat = CHATS[name]
    special = ["<pad>", *chat.special]
    words = ["a good film and a bad film good bad\n", "it was good", "the sky is blue"]
    if chat.pieces:
        made = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # type: ignore[assignment]
        made.decoder = decoders.Sequence(  # type: ignore[assignment]
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=360, special_tokens=special + BYTES, show_progress=False
        )
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=360,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    made.train_from_iterator(words, trainer)
    made.add_tokens(THINK)
    if chat.bos is not None:
        made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{chat.bos} $A", special_tokens=[(chat.bos, made.token_to_id(chat.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token=chat.bos,
        eos_token=chat.eos,
        additional_special_tokens=list(chat.special),
        chat_template=chat.template,
    )


@cache
def chat_backbone(name: str) -> Backbone:
    """A tiny Llama with the family's tokenizer and ends."""
    tokenizer = chat_tokenizer(name)
    llama = next(family for family in CAUSAL if family.name == "llama")
    eos = tokenizer.eos_token_id
    sizes = {"vocab_size": len(tokenizer), "bos_token_id": eos, "eos_token_id": eos}
    model = family_model(llama, **sizes)
    assert model.generation_config is not None
    ends = tokenizer.convert_tokens_to_ids(list(CHATS[name].ends))
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    return Backbone(model, tokenizer, architecture="causal", name=name)
