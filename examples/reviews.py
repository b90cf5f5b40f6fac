"""The first ten lines: tune a prefix on 32 film reviews and use it. Run from the repository."""

import foreword as fw

backbone = fw.load("smollm2")
prompt = fw.tune(
    backbone,
    task=fw.Classify(
        template="Review: {text}\nSentiment:",
        labels={"negative": " negative", "positive": " positive"},
    ),
    method=fw.Prefix(start="demonstrations"),
    train="examples/reviews/train.jsonl",
    dev="examples/reviews/dev.jsonl",
)
prompt.save("out/reviews.safetensors")
print(prompt.predict(["a wonderful, heartfelt film"]))
