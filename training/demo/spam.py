"""Spam and ham messages that share their words, so that no keyword tells them apart.

Friends write about prizes, money and parcels too, and some spam is polite. A message is three clauses of one scene;
the test uses clauses and gap words that training never saw (`words.is_held_out`). It knows no model.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.demo.words import is_held_out, split_list

Label = Literal["ham", "spam"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a message may be about: how it opens, what it says, what it asks for."""

    label: Label
    opening: tuple[str, ...]
    matter: tuple[str, ...]
    request: tuple[str, ...]


GAPS: dict[str, tuple[str, ...]] = {
    "name": split_list("Anna Ben Mia Tom Sara Leo Nina Paul Eva Max Rosa Jon Kim Lea Tim Ida Otto Zoe Sam Lily Hugo"),
    "prize": split_list(
        "phone|holiday|car|gift card|bike|cruise|laptop|watch|television|camera|hotel stay|console|cash prize|"
        "weekend trip",
        "|",
    ),
    "shop": split_list("market bakery cinema school gym library club office station museum pool theater bank hotel"),
    "site": split_list(
        "win-now.info|my-parcel.click|safe-login.net|top-deal.biz|quick-cash.org|fast-post.info|claim24.com|bonus.click|"
        "verify-me.net|luckyday.biz|post-check.org|easy-loan.info",
        "|",
    ),
    "day": split_list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday today tomorrow tonight"),
    "amount": split_list("50 75 90 100 120 150 200 250 300 400 500 750 800 900 1000 1500 2000 2500 5000"),
    "code": split_list("2210 8831 4471 9045 3316 7702 1289 6650 5108 4826 9937 3075 6142 2468 1357 8024"),
    "food": split_list("pizza soup cake salad pasta curry bread rice fish cheese pie coffee tea cookies fruit"),
}
"""Words that fill `{gaps}`; a held-out word appears in the test only."""

SCENES: tuple[Scene, ...] = (
    Scene(  # the classical prize
        "spam",
        (
            "Congratulations!",
            "Dear customer,",
            "Great news!",
            "You are our winner of the {day}!",
            "Hello lucky one,",
            "Your number was drawn!",
            "Last notice:",
            "Dear friend,",
        ),
        (
            "you have won a {prize}.",
            "a free {prize} is waiting for you.",
            "we picked you for a {prize}.",
            "your {prize} worth {amount} is ready.",
            "the {prize} is yours, and it costs nothing.",
            "you get a {prize} if you answer before {day}.",
            "our draw gave you a {prize}.",
            "nobody has collected the {prize} in your name.",
        ),
        (
            "Claim it at {site}",
            "Reply YES to get it.",
            "Call {code} now!",
            "Send your address to {site}",
            "Just pay {amount} for the shipping.",
            "Go to {site} before it is gone.",
            "Text WIN to {code}.",
            "Confirm with code {code} at {site}",
        ),
    ),
    Scene(  # the parcel
        "spam",
        (
            "Hello,",
            "Post office:",
            "Delivery notice:",
            "Dear Sir or Madam,",
            "Info:",
            "We missed you {day}.",
            "Hi {name},",
            "Driver message:",
        ),
        (
            "your parcel is on hold.",
            "we could not deliver your parcel.",
            "a small fee of {amount} is open.",
            "your address is not complete.",
            "the package goes back on {day}.",
            "customs keeps your package.",
            "a letter for {name} is waiting with us.",
            "the label of your parcel was damaged.",
        ),
        (
            "Choose a new time at {site}",
            "Pay the fee here: {site}",
            "Please confirm your address: {site}",
            "Log in at {site} to free it.",
            "Follow {site} and enter code {code}.",
            "Update your details at {site}",
            "Answer with your card number.",
            "See {site} for the next step.",
        ),
    ),
    Scene(  # the account
        "spam",
        (
            "Security alert:",
            "Dear member,",
            "Your bank:",
            "Important:",
            "Hello {name},",
            "Service team:",
            "Final warning:",
            "Account notice:",
        ),
        (
            "your account was locked.",
            "someone logged in to your account on {day}.",
            "your card ends {day}.",
            "we saw a payment of {amount}.",
            "your password is too old.",
            "we must check who you are.",
            "your mailbox is full and will be closed.",
            "a new device wants to use your account.",
        ),
        (
            "Log in at {site}",
            "Confirm your password at {site}",
            "Send us the code {code} we texted you.",
            "Check it now: {site}",
            "If this was not you, visit {site}",
            "Enter your card at {site} to keep it.",
            "Call {code} and have your password ready.",
            "Unlock it at {site} within one day.",
        ),
    ),
    Scene(  # money
        "spam",
        (
            "Need money?",
            "Hello,",
            "My dear,",
            "Good day,",
            "Work from home!",
            "Hi, quick question:",
            "Attention:",
            "For {name} only:",
        ),
        (
            "get {amount} without any papers.",
            "earn {amount} a day, no work.",
            "my uncle left {amount} and I need a partner.",
            "double your money by {day}.",
            "you paid too much tax, {amount} is yours.",
            "a loan of {amount} is ready for you.",
            "we pay {amount} for an easy job.",
            "this coin will rise before {day}.",
        ),
        (
            "Sign up at {site}",
            "Write me your bank number.",
            "Reply with your name and account.",
            "Start at {site}",
            "Only ten places left: {site}",
            "Send {amount} first and I send back more.",
            "Tell nobody and answer soon.",
            "Call {code} for your share.",
        ),
    ),
    Scene(  # the false relative
        "spam",
        (
            "Hi mum,",
            "Hi dad,",
            "Hey, it is me.",
            "Hello grandma,",
            "Hi, my phone broke.",
            "Hey, new number here.",
            "Dear, do you remember me?",
            "Hi, we met online.",
        ),
        (
            "I have a new number.",
            "I lost my card and I am stuck.",
            "I must pay {amount} by {day}.",
            "the bank does not let me in.",
            "I am at the station without money.",
            "I wanted to visit you, but the ticket is {amount}.",
            "I am too shy to call.",
            "my old phone fell into the water.",
        ),
        (
            "Can you send {amount} to this account?",
            "Please send me the code {code} you get.",
            "Do not call, just transfer it.",
            "Buy me a gift card and send the numbers.",
            "I pay it back {day}, I promise.",
            "See my pictures at {site}",
            "Write to my new number only.",
            "Send it fast and tell nobody.",
        ),
    ),
    Scene(  # a friend won something
        "ham",
        (
            "Guess what,",
            "Hi {name},",
            "Haha,",
            "You will not believe it:",
            "Hey,",
            "Mum says",
            "Good news:",
            "By the way,",
        ),
        (
            "I won a {prize} at the {shop}!",
            "{name} got a free {prize} at work.",
            "my sister won {amount} at the fair.",
            "the school gave {name} a prize.",
            "we won the match on {day}.",
            "I was picked for the team.",
            "the {shop} gives away free {food} today.",
            "we came first in the quiz at the {shop}.",
        ),
        (
            "Call me when you have time.",
            "Come over {day} and see it.",
            "I tell you more tonight.",
            "Are you free to celebrate {day}?",
            "We should have {food} on it.",
            "Thank you for your help with it!",
            "Can I show it to {name}?",
            "Dad is so proud.",
        ),
    ),
    Scene(  # parcels among friends
        "ham",
        (
            "Hi {name},",
            "Hello,",
            "Hey,",
            "Good morning,",
            "Just so you know,",
            "Mum,",
            "Quick note:",
            "Hi neighbor,",
        ),
        (
            "your parcel came to our door.",
            "the post brought a letter for {name}.",
            "the package for the {shop} is here.",
            "I sent you the book on {day}.",
            "the driver left your package with me.",
            "I gave them the wrong address.",
            "the parcel from grandma was full of {food}.",
            "the post office closes early on {day}.",
        ),
        (
            "You can get it after six.",
            "I bring it {day}.",
            "Is somebody home {day}?",
            "Did you pay the {amount} for it?",
            "Ring the bell twice.",
            "Shall I open it?",
            "I put it in the hall.",
            "Tell me when you are back.",
        ),
    ),
    Scene(  # money among friends
        "ham",
        (
            "Hi {name},",
            "Hey,",
            "Sorry,",
            "Hello dear,",
            "Dad,",
            "Quick question:",
            "About {day}:",
            "Thanks again,",
        ),
        (
            "I still owe you {amount} for the {food}.",
            "the tickets for the {shop} were {amount}.",
            "I forgot my card at the {shop}.",
            "the bank called about our loan.",
            "my account is fine again.",
            "{name} paid for all of us.",
            "the new job pays well.",
            "I changed my password and forgot it.",
        ),
        (
            "I give it back {day}.",
            "Can you pay and I bring the money {day}?",
            "Do you want cash?",
            "Let us ask {name}.",
            "I will go there in person.",
            "No hurry at all.",
            "Do not worry about it.",
            "See you at the {shop}.",
        ),
    ),
    Scene(  # plans
        "ham",
        (
            "Hi,",
            "Hey {name},",
            "Good evening,",
            "Hello all,",
            "Morning!",
            "Dear team,",
            "Are you there?",
            "So,",
        ),
        (
            "are we still on for {day}?",
            "the meeting at the {shop} moved to {day}.",
            "I am late, the bus broke down.",
            "we need {food} for {day}.",
            "dinner is at seven.",
            "{name} is ill and cannot come.",
            "the door code of the {shop} is {code}.",
            "I am at the station now.",
        ),
        (
            "Please reply so that I can book.",
            "Can you pick me up?",
            "Call me if you are lost.",
            "Bring {food} if you can.",
            "Let me know before {day}.",
            "Is that fine with you?",
            "Say hi to {name}.",
            "See you soon!",
        ),
    ),
    Scene(  # real notices
        "ham",
        (
            "Dear customer,",
            "Hello {name},",
            "Reminder:",
            "Dear parents,",
            "Your library:",
            "Dentist:",
            "Info:",
            "Dear members,",
        ),
        (
            "your book is ready at the {shop}.",
            "your visit is on {day} at nine.",
            "the {shop} is closed on {day}.",
            "your table is booked for {day}.",
            "the trip costs {amount}, as we said.",
            "your order of {food} is ready.",
            "the course starts on {day}.",
            "we found a coat at the {shop}.",
        ),
        (
            "Please come ten minutes early.",
            "You do not need to answer.",
            "Ask at the desk if you cannot come.",
            "Bring your card, please.",
            "We will never ask for your password.",
            "Free coffee for everyone!",
            "Thank you for waiting.",
            "We look forward to seeing you.",
        ),
    ),
)

LOOKALIKES = {"a": "@", "e": "3", "i": "1", "o": "0", "s": "$"}
DISGUISED_SHARE = 0.25
"""Share of spam that hides some letters behind digits and signs."""


def message(rng: random.Random, label: Label, *, held_out: bool) -> str:
    """Write one message from clauses and gap words of one side of the split."""
    scene = rng.choice([scene for scene in SCENES if scene.label == label])
    clauses = [_draw(rng, clauses, held_out) for clauses in (scene.opening, scene.matter, scene.request)]
    if rng.random() < 0.3:
        del clauses[0]
    text = " ".join(_fill(rng, clause, held_out) for clause in clauses)
    text = _vary(rng, text[0].upper() + text[1:])
    return _disguise(rng, text) if label == "spam" and rng.random() < DISGUISED_SHARE else text


def messages(seed: int, count: int, *, held_out: bool) -> list[tuple[str, Label]]:
    """Write `count` different messages, half of them spam."""
    rng = random.Random(f"{seed}/{held_out}")
    found: dict[str, Label] = {}
    labels: tuple[Label, ...] = ("ham", "spam")
    for label in labels:
        while sum(other == label for other in found.values()) < count // 2:
            found.setdefault(message(rng, label, held_out=held_out), label)
    pairs = list(found.items())
    rng.shuffle(pairs)
    return pairs


def _draw(rng: random.Random, pool: Sequence[str], held_out: bool) -> str:
    return rng.choice([item for item in pool if is_held_out(item) == held_out] or list(pool))


def _fill(rng: random.Random, clause: str, held_out: bool) -> str:
    return clause.format(**{gap: _draw(rng, pool, held_out) for gap, pool in GAPS.items()})


def _vary(rng: random.Random, text: str) -> str:
    """Write as people do on a telephone: sometimes small letters, no full stop, or an extra mark."""
    style = rng.random()
    if style < 0.15:
        return text.lower()
    if style < 0.25:
        return text.rstrip(".")
    return text.replace("!", "!!", 1) if style < 0.3 else text


def _disguise(rng: random.Random, text: str) -> str:
    return "".join(LOOKALIKES.get(char, char) if rng.random() < 0.3 else char for char in text)
