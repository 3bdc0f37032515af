"""`python -m chunkprefill COMMAND`: build a cache in chunks, replay decisions, fetch weights, probe servers."""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    from chunkprefill.servers import commands as servers  # no page in a browser has it

    parser = argparse.ArgumentParser(prog="python -m chunkprefill", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="build a prompt's KV cache chunk by chunk, then generate")
    demo.add_argument("prompt", nargs="?", default=None, help="the text to prefill (a default is given)")
    demo.add_argument(
        "--model", default="smollm2-135m", help="'smollm2-135m', 'tiny', a folder or a hub name"
    )
    demo.add_argument("--chunk", type=int, default=64, help="tokens in a chunk (default: %(default)s)")
    demo.add_argument("--tokens", type=int, default=32, help="tokens to generate (default: %(default)s)")

    parity = commands.add_parser("parity", help="replay recorded decisions of vLLM's scheduler, step by step")
    parity.add_argument("files", nargs="+", metavar="FILE", help="JSON: one case, or {cases: [...]}")

    commands.add_parser("fetch", help="fetch the weights of smollm2-135m, 93 MB, once")

    probed = commands.add_parser("probe", help="how does a server schedule? Send it chats and a document")
    servers.probe_options(probed)

    advised = commands.add_parser("advise", help="what token budget for this model, device and load?")
    servers.advise_options(advised)

    args = parser.parse_args(argv)
    if args.command == "advise":
        return servers.run_advise(args)
    if args.command == "probe":
        return servers.run_probe(args)
    if args.command == "demo":
        from chunkprefill import demo as command

        return command.main(args)
    if args.command == "fetch":
        from chunkprefill.model.smollm2 import fetch

        return fetch()
    from chunkprefill.scheduling.parity import main as check

    return check(args.files)


if __name__ == "__main__":
    sys.exit(main())
