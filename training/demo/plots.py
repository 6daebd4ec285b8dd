"""What may happen in the stories: plots in four beats, and the people, places and things in them.

A plot has several tellings; the first wording of each beat belongs to the first telling, and so on. `[a|b]` offers
words; `{h}` and `{f}` are the hero and the friend, as `{h}` (she), `{h.him}`, `{h.his}` or `{h.name}`; `<h:...>` is
speech, by `x` if nobody known speaks. How these become sentences is `stories`' business.
"""

from dataclasses import dataclass

from training.demo.words import split_list

Beat = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """One chain of events in as many tellings as each beat has wordings."""

    wish: Beat
    trouble: Beat
    turn: Beat
    end: Beat


GIRLS = ("Anna", "Mia", "Lily", "Ruby", "Nora", "Ella", "Rosa", "Clara", "Zoe", "Ivy", "Tara", "Lucy", "Mina", "Olga")
BOYS = ("Tom", "Ben", "Max", "Leo", "Hugo", "Sam", "Omar", "Felix", "Jack", "Nico", "Paul", "Otto", "Finn", "Luis")

HEROES = (
    *("girl", "boy") * 4,
    *("fox", "rabbit", "bear", "mouse", "duck", "frog", "cat", "dog", "hedgehog", "owl", "turtle", "squirrel"),
    *("robot", "dragon", "giant", "wizard", "baker", "farmer", "sailor", "king", "painter"),
)
"""Kinds of hero; the first two take their gender from the word."""

TRAITS = split_list(
    "little kind brave shy clever lazy curious proud quiet cheerful lonely careful silly gentle young funny"
)

HOMES = (
    "in a small house by the sea",
    "at the edge of a dark forest",
    "in a village under a tall mountain",
    "on a farm with a red barn",
    "in a busy town",
    "near a wide river",
    "on a tiny island",
    "in a round hut on a hill",
    "next to an old mill",
    "in a tower full of books",
    "beside a quiet lake",
    "in a warm valley",
)

WEATHERS = (
    "The sun was warm and the sky was blue",
    "It was a cold and windy day",
    "The rain fell on the roof",
    "Snow lay on the ground",
    "The morning was bright and still",
    "Fog hung over the fields",
    "The leaves were red and gold",
    "It was the first day of spring",
    "The night was full of stars",
    "Dark clouds hung in the sky",
)

TOYS = split_list("ball|kite|drum|boat|hat|bell|lamp|book|doll|ring|scarf|map|cup|flute|coat|key|basket|mirror", "|")
COLORS = split_list("red blue green yellow white black golden silver purple brown")
FOODS = split_list("bread|soup|cake|honey|cheese|apple pie|warm milk|rice|jam|porridge", "|")
PLACES = split_list(
    "the forest|the market|the old bridge|the beach|the top of the hill|the lake|the garden|the cave|the river|"
    "the school|the mill|the meadow|the harbor|the tower|the big tree",
    "|",
)
BEASTS = split_list("bird|lamb|kitten|puppy|goat|pony|beetle|hen|fawn|swan|calf|mole", "|")

PLOTS: tuple[Plot, ...] = (
    Plot(  # lost and found
        (
            "{h} had a {color} {toy}, and {h} took it everywhere. [One day|One morning], it was gone.",
            "The best thing {h} had was a {color} {toy}. But [today|that day] {h} could not find it.",
        ),
        (
            "{h} looked under the bed and behind the door, but the {toy} was not there. <h:Where is my {toy}?>",
            "{h} looked in every room. Then {h} sat down and [cried|wept]. <h:My {toy} is gone!>",
        ),
        (
            "{f} heard {h.him} and came in. <f:Think. Where did you see it last?> <h:At {place}!>",
            "{f} said they could look for it together. They went all the way to {place}.",
        ),
        (
            "And there, at {place}, lay the {toy}, a little wet but not broken. {h} held it [close|tight].",
            "A {beast} was asleep on it at {place}. They woke it [softly|gently], and {h} got the {toy} back.",
        ),
    ),
    Plot(  # a friend in need
        (
            "{h} was on the way to {place} when {h} heard a small voice. <x:Help me!>",
            "[One day|One evening], {h} went for a walk to {place}. Something moved in the grass.",
        ),
        (
            "It was a {beast} with a thorn in its foot. It could not [run|stand|walk].",
            "A {beast} was stuck in a hole and could not get out. It was [wet and cold|full of fear].",
        ),
        (
            "{h} was not big, but {h} did not run away. <h:Do not be afraid. I will help you.>",
            "{h} ran home and came back with {f} and a long rope. <f:Hold on!>",
        ),
        (
            "Soon the {beast} was free. It came to see {h.him} every [day|week] after that.",
            "The {beast} was safe, and it gave {h} a {color} {toy} to say thanks.",
        ),
    ),
    Plot(  # building
        (
            "{h} wanted to make a [boat|bridge|house] of wood. <h:It will be the best one ever!>",
            "{h} had a plan. {h} would make a [swing|wagon|tower] all alone.",
        ),
        (
            "But the wood was too heavy, and everything fell down with a [crash|bang].",
            "{h} made it too fast. When the wind blew, it broke in two.",
        ),
        (
            "{f} came by and [saw it|smiled]. <f:May I hold one end?> {h} did not want help, but then {h} said yes.",
            "{h} sat on the ground and thought. <h:I must go slow,> {h} said, and then {h} went to ask {f}.",
        ),
        (
            "Together they made it strong. At night they sat in front of it and ate {food}.",
            "This time it held. {h} and {f} were very proud.",
        ),
    ),
    Plot(  # afraid of the dark
        (
            "{h} did not like the night. When the light was out, {h} saw [monsters|shadows] on the wall.",
            "Every night {h} hid under the blanket, because {h} was afraid of the dark.",
        ),
        (
            "[One night|Then one night] there was a strange sound. Tap, tap, tap. <h:Who is there?>",
            "One night the wind was loud, and something said, whoo, whoo. {h} could not sleep.",
        ),
        (
            "{h} took a lamp and went to look. {h.his} knees were [weak|soft], but {h} went on.",
            "{f} took {h.his} hand. <f:Let us go and see. The dark is only the day with its eyes shut.>",
        ),
        (
            "It was only a {beast} at the window. {h} [laughed|had to laugh] and gave it some {food}.",
            "There was nothing but the wind and the moon. After that, {h} was never afraid again.",
        ),
    ),
    Plot(  # the race
        (
            "There was to be a race to {place}. {h} wanted to win more than anything.",
            "<f:I am faster than you,> said {f.name}. <h:No, I am!> So they made a race to {place}.",
        ),
        (
            "{h} ran and ran. But halfway there, {h} saw a {beast} that had lost its mother.",
            "{h} was in front, but then {h} fell over a stone and hurt {h.his} leg.",
        ),
        (
            "{h} thought of the prize. Then {h} turned back to help.",
            "{f} could have won now. But {f} stopped and gave {h.him} a hand.",
        ),
        (
            "They came in last, side by side, and nobody had ever been so happy to lose.",
            "Nobody won that day, but [everyone|all of them] got a piece of cake.",
        ),
    ),
    Plot(  # sharing
        (
            "{h} had a big plate of {food}. It smelled very good. <h:This is all for me.>",
            "One day {h} found a box full of {food} at {place}. {h} hid it under a tree.",
        ),
        (
            "{f} came by. {f} had had nothing to eat all day, but {h} turned away.",
            "{h} ate and ate until {h.his} belly hurt. It was no fun to eat alone.",
        ),
        (
            "Then {h} saw how thin {f} was, and {h} felt bad. <h:I am sorry. Sit with me.>",
            "So {h} went to {f.his} door. <h:I have too much. Do you want some?>",
        ),
        (
            "They ate together, and the {food} [was|tasted] twice as good.",
            "{f} brought plums, and they had a feast. From then on {h} always kept half for a friend.",
        ),
    ),
    Plot(  # a storm
        (
            "{h} and {f} took a [little|small] boat out on the water. They wanted to catch a fish.",
            "{h} and {f} went far, far out to {place} to pick berries.",
        ),
        (
            "Then the sky went black. The wind howled, and they could not see the way home.",
            "A storm came fast. <f:We are lost!> {f.his} voice was small.",
        ),
        (
            "{h} saw a light, very far away. <h:Look! We must go there.>",
            "{h} sang a song, loud and slow, so that they would not be afraid.",
        ),
        (
            "An old woman opened her door and gave them {food}. In the morning the sky was clear again.",
            "At last they came to the shore, wet but safe. They never forgot that night.",
        ),
    ),
    Plot(  # a secret door
        (
            "Behind the stove, {h} found a tiny {color} door. It was no bigger than a hand.",
            "One day {h} saw a door in the big tree. It had not been there before.",
        ),
        (
            "It was shut, and there was no key. {h} tried and tried, but it would not open.",
            "<x:Who are you?> said the door. {h} almost fell over. <x:I open only for a friend.>",
        ),
        (
            "{h} ran to tell {f}, and {f} said, very softly, the word please.",
            "{f} had an old key on a string. It had never fit any door. But it fit this one.",
        ),
        (
            "Behind the door was a garden full of light. They went there every summer.",
            "Inside there was only a note. It said: You were kind, so you may come again.",
        ),
    ),
    Plot(  # learning to do something
        (
            "{h} wanted to learn to [swim|sing|dance|fly a kite|ride]. But it was hard.",
            "Everyone in town could [whistle|swim|dance|read], but {h} could not.",
        ),
        (
            "The first time, it went all wrong, and the others laughed. {h} ran away to {place}.",
            "{h} tried once, and twice, and a third time. <h:I will never learn it!>",
        ),
        (
            "{f} sat down next to {h.him}. <f:I could not do it either. Try it with me, a little every day.>",
            "An old {beast} was watching. <x:You are too fast. Close your eyes and breathe.>",
        ),
        (
            "After seven days {h} could do it, and {h} did it all day long.",
            "And one day, all at once, it worked! <h:Look at me!>",
        ),
    ),
    Plot(  # a lie
        (
            "{h} broke the {color} {toy} that belonged to {f}. Nobody saw it.",
            "By mistake, {h} ate the cake that was for {f.his} birthday.",
        ),
        (
            "<f:Who did this?> {h} said that it was the {beast}.",
            "<h:It was not me,> {h} said. But {h.his} face was hot, and {h} could not look up.",
        ),
        (
            "That night {h} could not sleep. In the morning {h} went to {f} and told the truth.",
            "{h} felt worse and worse. At last {h} said it. <h:It was me. I am very sorry.>",
        ),
        (
            "{f} was sad, but not for long. <f:Thank you for telling me.> They [fixed it|made it good] together.",
            "{f} was quiet for a while. Then {f} gave {h.him} a hug, and all was well.",
        ),
    ),
    Plot(  # a magic gift
        (
            "An old man gave {h} a {color} {toy}. <x:It can grant one wish. Use it well.>",
            "On the way to {place}, {h} found a {color} {toy}. It shone like a star. It was magic!",
        ),
        (
            "{h} thought of gold, and of a castle, and of {food} for a hundred years.",
            "<h:I want to be as tall as a tree!> And so it was. But now {h} did not fit into the house.",
        ),
        (
            "Then {h} saw that {f} was ill in bed. It was not hard to choose anymore.",
            "{f} looked up at {h.him}. <f:I miss you down here.> {h} missed {f.him} too.",
        ),
        (
            "{h} made the wish, and by night all was well. The {toy} never shone again, and {h} did not mind.",
            "So {h} wished for one thing only: that everything would be as before. And it was.",
        ),
    ),
    Plot(  # the dragon's cold
        (
            "A dragon sat at {place}, and everyone was afraid of it. Only {h} was not so sure.",
            "Every night a loud roar came from {place}. <f:It is a monster!>",
        ),
        (
            "{h} went closer. The dragon had [big|wet|red] eyes and a very red nose. <x:Go away. I am ill.>",
            "{h} went to look, step by step. There sat a huge beast, and it was crying. <x:My tooth hurts!>",
        ),
        (
            "{h} and {f} made a big pot of {food} and took it up there.",
            "{h} told it to open its mouth. There was a {toy} stuck between its teeth! One pull, and it was out.",
        ),
        (
            "The dragon felt better, and in winter it made the whole town warm.",
            "From that day on it roared only on birthdays.",
        ),
    ),
    Plot(  # the new neighbour
        (
            "Somebody new came to live next door. {h} looked over the wall and saw {f}.",
            "{f} was new in school and sat all alone. {h} saw it.",
        ),
        (
            "But {h} did not know what to say, and {f} did not look up.",
            "<h:Do you want to play?> But {f} did not know the words, and shook {f.his} head.",
        ),
        (
            "So {h} took {h.his} {color} {toy} and put it between them, and waited.",
            "{h} drew a {beast} in the sand. {f} drew a {beast} too, and then they both [smiled|laughed].",
        ),
        (
            "When the sun went down, they were still there. They were friends for life.",
            "They did not need many words. The next day they met again at {place}.",
        ),
    ),
    Plot(  # growing
        (
            "{h} put a seed into the ground at {place}. <h:Grow, little seed!>",
            "{f} gave {h} a small brown seed. <f:Give it water, and wait.>",
        ),
        (
            "{h} looked the next day, and the next. Nothing. {h} hated to wait.",
            "A week went by, and there was only earth. <h:It is a bad seed!>",
        ),
        (
            "<f:Some things need time,> said {f.name}. So {h} gave it water every morning.",
            "{h} wanted to dig it up, but {f} held {h.his} arm. <f:Not yet.>",
        ),
        (
            "In spring there was a {color} flower, and it was [as tall as {h.him}|the biggest of all].",
            "And then, one day, there was one green leaf. {h} danced around it.",
        ),
    ),
    Plot(  # the thief
        (
            "Every night something took the {food} from the kitchen. {h} wanted to know who it was.",
            "The {color} {toy} of the king was gone! <h:I will find out who took it.>",
        ),
        (
            "{h} saw small tracks on the floor. They went to {place}.",
            "{h} did not sleep that night. {h} sat behind a chair and waited. Then came a soft step.",
        ),
        (
            "It was a {beast} with five little ones. They had had nothing to eat.",
            "It was {f}! {f} was walking in {f.his} sleep.",
        ),
        (
            "{h} did not tell on them. From then on {h} put out a bowl of {food} every night.",
            "In the morning they all had a good laugh about it.",
        ),
    ),
    Plot(  # too proud
        (
            "{h} thought that nobody was as [smart|strong|fine] as {h.him}. <h:I need no one.>",
            "{h} could sing better than all the others, and {h} said so every day.",
        ),
        (
            "One day {h} fell into a deep hole near {place}. {h} called, but nobody came.",
            "Then {h} lost {h.his} voice. Not a sound came out.",
        ),
        (
            "Only {f} had heard it. <f:Why should I help you?> Then {f} got a rope all the same.",
            "{f} made {h.him} hot {food} and stayed with {h.him} for three days.",
        ),
        (
            "After that {h} was not so proud anymore, and {h} had more friends than ever.",
            "When {h} was well again, the first song was for {f}.",
        ),
    ),
    Plot(  # the birthday
        (
            "It was {h.his} birthday, but nobody had said a word about it.",
            "Tomorrow was {f.his} birthday, and {h} had no gift and no money.",
        ),
        (
            "{h} went to see {f}, but the house was dark. <h:They all forgot me.>",
            "{h} went to the market and looked at all the fine things. They cost too much.",
        ),
        (
            "{h} was about to go home when there was a sound at {place}.",
            "So {h} sat down and made a {toy} out of paper, and it took all night.",
        ),
        (
            "<x:Surprise!> There they all were, with {food} and a {color} {toy}.",
            "<f:You made this for me? It is the best gift of all!>",
        ),
    ),
    Plot(  # the journey
        (
            "{h} wanted to see the sea. {h} had only heard of it in songs.",
            "{h} wanted to know where the river ends. So {h} took a {color} {toy} and some {food} and left.",
        ),
        (
            "The way was long. On the third day {h.his} shoes fell apart.",
            "At {place} the road split in two, and there was no sign.",
        ),
        (
            "{h} met {f}, who knew the way. <f:I will come with you. Two is better than one.>",
            "A {beast} sat on a stone. <x:Go left. But what you want most is at home.>",
        ),
        (
            "At last they saw it, blue and without end. They stood there and said nothing.",
            "{h} saw many things. But the best day of all was the day {h} came home.",
        ),
    ),
    Plot(  # the snowman / a thing comes alive
        (
            "{h} made a snowman and put a {color} hat on its head.",
            "{h} drew a {beast} with {color} paint. It was so good that it looked alive.",
        ),
        (
            "At night it [winked|moved|sat up]. <x:Good evening. I am cold and I want to see the world.>",
            "When the clock struck twelve, it spoke. <x:I want to see {place}!>",
        ),
        (
            "{h} woke {f} up, and the three of them went out into the night.",
            "{h} put it on a sled and pulled it all the way.",
        ),
        (
            "When the sun came up, it was still again. But {h} was sure that it smiled.",
            "In the morning {f} said that it had been a dream. But there was snow on the bed.",
        ),
    ),
    Plot(  # a quarrel
        (
            "{h} and {f} both wanted the {color} {toy}. <h:It is mine!> <f:No, mine!>",
            "{h} and {f} were best friends, until they had a fight about a {toy}.",
        ),
        (
            "They pulled and pulled until it broke. Now nobody had it.",
            "{h} went home and shut the door. It was very quiet without {f}.",
        ),
        (
            "{h} looked at the two parts, and then at {f}. <h:I am sorry.> <f:Me too.>",
            "{f} put a note under {h.his} door. It said only: Come out.",
        ),
        (
            "They put it together again with string. It looked funny, but they liked it more than before.",
            "They met at {place} and could not even say how it had begun.",
        ),
    ),
    Plot(  # the lost little one
        (
            "In the market, {h} saw a {beast} that was all alone. It had lost its mother.",
            "There was a knock on the door. A wet {beast} stood there. <x:I cannot find my home.>",
        ),
        (
            "They went from house to house, but nobody knew it.",
            "<h:Where do you live?> <x:Where it is green and it smells of {food}.> That did not help much.",
        ),
        (
            "Then {f} had an idea. <f:Let it walk in front. We will go where it goes.>",
            "{h} went up the highest hill and looked in all directions.",
        ),
        (
            "And so they came to {place}, and there the mother was. How glad she was!",
            "Behind {place} they heard a call. The little one ran, and did not look back, and that was good.",
        ),
    ),
    Plot(  # the machine
        (
            "{h} made a machine that could cook {food}. <h:Now I will never have to work!>",
            "{h} had a machine for everything: one for the dishes, one for the bed, one for {h.his} shoes.",
        ),
        (
            "But it would not stop. Soon there was {food} on the floor, on the bed and on the roof.",
            "One day all of them went wrong at the same time. The bed ran out of the house!",
        ),
        (
            "<f:Pull the {color} string!> {f} was up to the neck in it. {h} pulled, and it went still.",
            "{h} and {f} ran after it all the way to {place}.",
        ),
        (
            "The whole town came to eat. It took three days.",
            "After that {h} did things by hand again, and it was not so bad.",
        ),
    ),
    Plot(  # music
        (
            "Nobody in the town ever sang. {h} did not know why.",
            "{h} had a {color} flute, but {h} played only when no one was near.",
        ),
        (
            "<f:The king does not like music,> said {f.name}. The king was sad and had been sad for years.",
            "One day the wind took the song with it, all the way to {place}. {h} was full of fear.",
        ),
        (
            "{h} went to the king and sang, very softly. First he was angry. Then he was quiet.",
            "{f} stood in front of the door. <f:Was that you? Please play it again.>",
        ),
        (
            "And then the king sang too, and he sang all wrong, and nobody minded.",
            "The next day {h} played for everyone. {h.his} hands shook only a little.",
        ),
    ),
    Plot(  # the giant shoe / size does not matter
        (
            "{h} was the smallest of all. <f:You are too small to help,> said {f.name}.",
            "{h} always had to stay at home, because {h} was so small.",
        ),
        (
            "Then the key to the house fell into a hole, and no hand was thin enough to get it.",
            "Then {f} got stuck in a tree at {place}, and the rope was out of reach.",
        ),
        (
            "<h:Let me try.> {h} went in, deeper and deeper. It was dark in there.",
            "Nobody knew what to do. Then {h} took a deep breath and went up, from branch to branch.",
        ),
        (
            "When {h} came back with it, they all cheered. Nobody ever said too small again.",
            "<f:I was wrong about you,> said {f.name}. {h} was small, but felt as big as a house.",
        ),
    ),
    Plot(  # night sky
        (
            "One night a star fell from the sky and landed at {place}.",
            "{h} could not sleep. From the window, {h} saw that the moon was gone.",
        ),
        (
            "{h} went out to find it. It was as small as a nut, and it was cold. <x:I want to go home.>",
            "It lay in the lake, round and pale. <x:I came down to drink, and now I cannot get up.>",
        ),
        (
            "{h} put it in a basket and went up the highest hill with {f}.",
            "{h} and {f} made a ladder out of all the chairs in the town.",
        ),
        (
            "They threw it up with all their might. Since then, one star [winks|shines] for {h.him}.",
            "The sky was bright again. And if you look well, you can see the marks of their hands.",
        ),
    ),
    Plot(  # the wrong bag
        (
            "On the way to {place}, {h} took the wrong bag by mistake. In it was a {color} {toy}.",
            "{h} found a bag at {place}. There was a name on it that {h} could not read.",
        ),
        (
            "<f:Keep it! Nobody will know.> {h} thought about it all night.",
            "It was full of money. {h} could have had anything now.",
        ),
        (
            "But somebody, somewhere, was looking for it. So {h} went from door to door.",
            "In the morning {h} went to the mill to ask who had lost it.",
        ),
        (
            "It belonged to an old sailor. He laughed and told them stories until it was dark.",
            "It belonged to {f}! <f:You gave it back. I will never forget that.>",
        ),
    ),
)

ENDINGS = (
    "",
    "",
    "",
    "They were happy.",
    "And that was the end of a long day.",
    "{h} slept well that night.",
    "And they are friends to this day.",
    "{h} never forgot it.",
    "<h:What a day!>",
    "That night, {h} told the whole story twice.",
    "It was the best day of the year.",
    "And if you go there, you can still hear them laugh.",
)
