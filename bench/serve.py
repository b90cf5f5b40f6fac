"""Many prompts on one model: the benchmarks of serving. Each command is a file of its own.

python bench/serve.py generate [--model smollm2] [--requests 128] [--json]
python bench/serve.py --help
"""

from __future__ import annotations

from cyclopts import App
from serve_agree import agree
from serve_classify import classify
from serve_continuous import continuous
from serve_generate import generate
from serve_learn import learn
from serve_ready import ready
from serve_shapes import shapes
from serve_soak import soak
from serve_thousand import thousand

app = App(name="bench/serve.py", help="Many prompts on one model.", version_flags=[])
app.default(generate)
for command in (generate, continuous, classify, learn, thousand, ready, shapes, soak, agree):
    app.command(command)

if __name__ == "__main__":
    app()
