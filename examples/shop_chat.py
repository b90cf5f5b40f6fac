"""A shop's chat: tune a prompt on a shop's answers, then answer three customers.

    python examples/shop_chat.py

The conversations were written for this example. What the prompt learns is how this shop answers,
briefly and by its rules, of which the model knows nothing. The time is printed at the end.
"""

import argparse
import time

import foreword as fw

ANSWERS = {
    "Parcels take two days. Orders placed before noon leave the same day.": [
        "How long does delivery take?",
        "When will my order arrive?",
        "How many days until my parcel is here?",
        "If I order this morning, when do I get it?",
    ],
    "You can send anything back within 60 days. The label for it lies in your parcel.": [
        "Can I return a lamp that I don't like?",
        "How do I send something back?",
        "What is your return policy?",
        "The shade is too big, may I return it?",
    ],
    "I am sorry! Please send us a photo, and a new one leaves today.": [
        "My lamp arrived broken.",
        "The glass was cracked when I opened the box.",
        "One of the bulbs is in pieces.",
        "The stand is bent, it must have happened on the way.",
    ],
    "We take cards, PayPal and invoices. An invoice is due after 30 days.": [
        "How can I pay?",
        "Do you accept PayPal?",
        "Can I pay by invoice?",
        "Which cards do you take?",
    ],
    "All our lamps take E27 bulbs, up to 60 watts.": [
        "Which bulb fits the reading lamp?",
        "What kind of bulbs do I need?",
        "Is a 40 watt bulb all right?",
        "What socket do your lamps have?",
    ],
    "Our shop in Mill Lane 3 is open from ten to six, and closed on Sundays.": [
        "When are you open?",
        "Do you have a shop that I can visit?",
        "Are you open on Sunday?",
        "Where can I see the lamps?",
    ],
}
CUSTOMERS = [
    "Hello, the lamp I got from you yesterday has a crack.",
    "I need it by Friday. How fast do you ship?",
    "Until when could I give it back?",
]


def conversation(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    turns = {"user": question, "assistant": answer}
    return {"messages": [{"role": role, "content": said} for role, said in turns.items()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", default="out/shop.safetensors")
    chosen = parser.parse_args()

    began = time.monotonic()
    every = {a: [conversation(q, a) for q in asked] for a, asked in ANSWERS.items()}
    prompt = fw.tune(
        chosen.model,
        "chat",
        "prefix",
        train=[row for rows in every.values() for row in rows[:3]],
        dev=[row for rows in every.values() for row in rows[3:]],
        length=10,
        start="text",
        epochs=chosen.epochs,
        batch_size=4,
        max_new_tokens=40,
        out=chosen.out,
    )
    for question in CUSTOMERS:
        answer = prompt.predict({"messages": [{"role": "user", "content": question}]})
        print(f"\nCustomer: {question}\nShop:     {answer}")
    print(f"\n{time.monotonic() - began:.0f} s; the prompt is {chosen.out}")


if __name__ == "__main__":
    main()
