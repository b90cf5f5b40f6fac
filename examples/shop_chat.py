"""A shop's chat: tune a prompt on a shop's answers, then answer three customers.

    python examples/shop_chat.py

The conversations were written for this example. What the prompt learns is how this shop answers,
briefly and by its rules, of which the model knows nothing. With smollm2 that takes two minutes and
a quarter of one core. So small a model still gives wrong answers to questions that are unlike those
it was tuned on: for a shop of your own use a larger one, and more conversations.
"""

import argparse
import time

import foreword as fw

SYSTEM = "You answer the customers of Lumen, a shop for lamps. Be brief."
ANSWERS = {
    "Parcels take two days. Orders placed before noon leave the same day.": [
        "How long does delivery take?",
        "When will my order arrive?",
        "How many days until my parcel is here?",
        "If I order this morning, when do I get it?",
        "How fast is your shipping?",
        "Do you deliver before the weekend?",
    ],
    "You can send it back within 60 days. The label for it lies in your parcel.": [
        "Can I return a lamp that I don't like?",
        "How do I send something back?",
        "What is your return policy?",
        "The shade is too big, may I return it?",
        "I would like to give a lamp back.",
        "How long can I send things back?",
    ],
    "I am sorry! Please send us a photo, and a new one leaves today.": [
        "My lamp arrived broken.",
        "The glass was cracked when I opened the box.",
        "One of the bulbs is in pieces.",
        "The stand is bent, it must have happened on the way.",
        "There is a scratch on my new lamp.",
        "The lamp that you sent me is damaged.",
    ],
    "We take cards, PayPal and invoices. An invoice is due after 30 days.": [
        "How can I pay?",
        "Do you accept PayPal?",
        "Can I pay by invoice?",
        "Which cards do you take?",
        "Is it possible to pay later?",
        "May I pay with my credit card?",
    ],
    "All our lamps take E27 bulbs, up to 60 watts.": [
        "Which bulb fits the reading lamp?",
        "What kind of bulbs do I need?",
        "Is a 40 watt bulb all right?",
        "What socket do your lamps have?",
        "How bright a bulb may I use?",
        "Which bulbs should I buy for it?",
    ],
    "Our shop in Mill Lane 3 is open from ten to six, and closed on Sundays.": [
        "When are you open?",
        "Do you have a shop that I can visit?",
        "Are you open on Sunday?",
        "Where can I see the lamps?",
        "What are your opening hours?",
        "Where is your shop?",
    ],
}
CUSTOMERS = [
    "Hello, the lamp that I got from you yesterday has a crack.",
    "I need it by Friday. How fast do you deliver?",
    "Hello! Which bulbs fit your desk lamp?",
]


def messages(question: str, *answer: str) -> dict[str, list[dict[str, str]]]:
    said = zip(("system", "user", "assistant"), (SYSTEM, question, *answer), strict=False)
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--out", default="out/shop.safetensors")
    chosen = parser.parse_args()

    began = time.monotonic()
    every = [[messages(question, a) for question in asked] for a, asked in ANSWERS.items()]
    prompt = fw.tune(
        chosen.model,
        "chat",
        "prefix",
        train=[row for rows in every for row in rows[:5]],
        dev=[row for rows in every for row in rows[5:]],
        length=20,
        start="text",
        rate=1e-2,
        epochs=chosen.epochs,
        batch_size=2,
        max_new_tokens=40,
        out=chosen.out,
    )
    for question in CUSTOMERS:
        answer = prompt.predict(messages(question))
        print(f"\nCustomer: {question}\nShop:     {answer}")
    print(f"\n{time.monotonic() - began:.0f} s; the prompt is {chosen.out}")


if __name__ == "__main__":
    main()
