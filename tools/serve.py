"""Serve the built book on this machine alone: `python tools/serve.py [FOLDER] [--port N]`; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BUILT = Path(__file__).resolve().parents[1] / "_build/html"


class Handler(SimpleHTTPRequestHandler):
    """Serves files, tells browsers to ask again after a rebuild, and keeps the terminal quiet."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def server(folder: Path, *, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1 that has not started yet; port 0 takes a free one.

    Raises FileNotFoundError where no book was built, OSError where the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"no index.html in {folder}: build the book first, with `make html`")
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=BUILT, help="the built book (default: _build/html)"
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    args = parser.parse_args()
    try:
        with server(args.folder, port=args.port) as httpd:
            print(f"The book is at http://127.0.0.1:{httpd.server_port}/   (Ctrl-C ends it)", flush=True)
            try:
                httpd.serve_forever()
            except KeyboardInterrupt:
                print()
    except FileNotFoundError as problem:
        print(problem, file=sys.stderr)
        return 1
    except (OSError, OverflowError) as problem:
        print(f"port {args.port} cannot be used: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
