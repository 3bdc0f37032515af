"""`python -m chunkprefill demo`: a prompt's cache built chunk by chunk, held against standard prefilling."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

from chunkprefill.strict import printable

PROMPT_FILE = Path(__file__).parent / "data" / "demo_prompt.txt"
TOLERANCE = 1e-4  # what rounding in float32 may come to, relative to the largest number of a tensor


def main(args: Namespace) -> int:
    """Run the demo: chunks, the check, and last the text on standard output; progress on standard error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a console that lacks a character shows a question mark
    try:
        return _demo(args)
    except (ValueError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _demo(args: Namespace) -> int:
    import torch

    from chunkprefill.env import setup
    from chunkprefill.generation import decode, prefill
    from chunkprefill.measure import measured
    from chunkprefill.model.cache import KVCache
    from chunkprefill.model.tokenizer import load_tokenizer
    from chunkprefill.model.weights import load_model

    if args.chunk < 1 or args.tokens < 1:
        raise ValueError(f"--chunk is {args.chunk}, --tokens is {args.tokens}; at least 1 is needed")
    chosen = setup(quiet=True)
    print(f"loading {args.model} in float32 on {chosen.device}: {chosen.why}", file=sys.stderr)
    tokenizer = load_tokenizer(args.model)
    model = load_model(args.model, device=chosen.device)  # float32, because results are compared
    prompt = PROMPT_FILE.read_text("utf-8").strip() if args.prompt is None else args.prompt
    tokens = tokenizer.chat(prompt)
    cache, whole = (KVCache(model.config, len(tokens) + args.tokens, device=model.device) for _ in range(2))

    print(f"{len(tokens)} tokens in chunks of {args.chunk}", flush=True)
    began = time.perf_counter()

    def report(start: int, length: int) -> None:
        nonlocal began
        if model.device.type == "cuda":
            torch.cuda.synchronize()  # a launch returns before its work is done
        took, end = measured(time.perf_counter() - began), start + length
        n_bytes = model.config.kv_bytes(end, model.embedding.element_size())
        where = f"positions {start:4d} to {end - 1:4d}   cache {end:4d} tokens"
        print(f"{where}, {n_bytes:,} bytes   {took}", flush=True)
        began = time.perf_counter()

    logits = prefill(model, tokens, cache, args.chunk, on_chunk=report)
    expected = prefill(model, tokens, whole)
    pairs = [(logits, expected)]
    for layer in range(model.config.n_layers):
        pairs += zip(cache.kv(layer), whole.kv(layer))
    gap = max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
    same = gap <= TOLERANCE
    verdict = "the same" if same else "NOT THE SAME"
    print(f"standard prefilling, one pass: {verdict} logits, keys and values (within {gap:.0e})", flush=True)

    output = decode(model, logits, cache, args.tokens, stop=tokenizer.stop, progress=True)
    text = tokenizer.decode(output)
    print(printable(text))
    return 0 if same else 1
