"""The first ten lines: tune a prefix on 32 film reviews and use it. Run from the repository."""

import foreword as fw

prompt = fw.tune(
    "smollm2",
    train="examples/reviews/train.jsonl",
    dev="examples/reviews/dev.jsonl",
    template="Review: {text}\nSentiment:",
)
prompt.save("out/reviews.safetensors")
print(prompt.predict("a wonderful, heartfelt film"))
