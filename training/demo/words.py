"""The words that the embedded data is made of, their regular forms, and the rule that holds some of them out.

It does not know tasks or stories. Only words with regular forms are listed, so that every rule here is exact; words
that would be held out while other texts need their forms are not listed at all.
"""

import random
import string
import zlib


def split_list(text: str, separator: str | None = None) -> tuple[str, ...]:
    """Cut a written list into its items; without a separator, at white space."""
    return tuple(text.split(separator))


NOUNS_BY_CATEGORY: dict[str, tuple[str, ...]] = {
    category: split_list(words)
    for category, words in {
        "animal": """ant badger bat bear beaver bee beetle bird bull camel cat chick cobra cow crab cricket crow cub
            dingo dog dolphin donkey dove duck duckling eagle falcon fawn ferret finch frog gecko giraffe
            goat gorilla gull hamster hawk hedgehog hen heron hippo hornet horse hyena iguana insect jackal
            jaguar kitten koala lamb lemur leopard lion lizard llama lobster magpie mole monkey moth mule
            newt ocelot octopus orca otter owl panda panther parrot peacock pelican penguin pigeon pony
            puffin puppy rabbit raccoon ram rat raven robin rooster seal shark skunk sloth slug snail snake
            sparrow spider squirrel stork swan tiger toad turkey turtle viper vulture walrus wasp weasel
            whale wombat worm yak zebra""",
        "food": """almond apple apricot avocado bagel banana bean berry biscuit burger cake candy caramel carrot
            cashew cherry cookie cracker cucumber curry donut egg fig grape lemon lime melon muffin mushroom
            nectarine noodle nut olive omelet onion orange pancake papaya pastry peach peanut pear pepper
            pickle pie pizza plum pretzel pudding pumpkin raisin salad sandwich sausage soup stew taco tart
            truffle turnip waffle walnut yam""",
        "tool": """anvil axe blade bolt broom brush bucket chain chisel clamp crayon drill eraser file hammer hook
            hose kettle ladder lever magnet mop nail needle pan pedal pen pencil pin plow pot pump rake
            razor rope ruler saw scale scraper screw shovel sieve spade spoon sponge stapler tape torch
            trowel wedge wheel wire wrench""",
        "garment": """apron belt blazer blouse bonnet boot bow cape cap cloak coat collar dress glove gown hat helmet
            hood jacket jersey mask mitten necktie robe sandal sash shawl shirt shoe skirt slipper sneaker
            sock sweater tuxedo uniform veil vest""",
        "vehicle": """airplane ambulance barge bicycle boat bus canoe car carriage cart coach ferry glider jeep jet
            kayak minivan motorbike plane raft rocket sailboat scooter ship sled submarine subway tank taxi
            tractor trailer train tram tricycle truck van wagon yacht""",
        "building": """airport bakery bank barn cabin castle cathedral chapel church cinema clinic cottage dairy
            factory farm fort garage hospital hotel hut inn library mill museum office palace pharmacy
            prison pyramid school shed shop stable studio temple tent theater tower villa warehouse windmill""",
        "person": """actor artist baker barber butler captain carpenter chef cleaner clerk clown cook dancer
            dentist doctor driver editor farmer florist gardener guard hunter jeweler judge juggler king
            lawyer librarian mechanic miner nurse painter pilot pirate plumber poet porter priest prince
            princess queen ranger reporter sailor scout singer smith soldier student surgeon tailor teacher
            trader waiter writer""",
        "instrument": """accordion banjo bassoon bell bugle cello clarinet cymbal drum fiddle flute gong guitar harp
            horn lute lyre mandolin oboe organ recorder saxophone sitar tambourine triangle trombone trumpet tuba
            ukulele viola violin whistle xylophone""",
    }.items()
}
"""Each noun with the one category a child would name. Plurals are all regular."""

THINGS = split_list(
    """acorn album alarm angle arch arrow badge bag bandage basin basket bath bead beard bed bench blanket
    blister block blossom board bottle box branch bridge bubble button cage calendar candle canyon card carpet
    cell chair cheek chest chimney circle clock clue coin comet corner couch cradle crown cup curb curtain
    cushion cyclone desert desk diamond dimple doll door dot drawer dream elbow engine entry envelope eyebrow
    fence fern finger flag flame flower forest fountain frame freckle galaxy garden gate gem globe hall handle
    harbor hedge hill hinge hole island jar jewel jigsaw joke key kite knot lake lamp lantern lens letter lid
    lock lotion lump map marble meadow medal memory message mirror moment moon mountain napkin nest net
    notebook oak ocean orbit orchard page palm parcel path pebble pillow pipe planet plant plate pocket pond
    poster prize puddle puzzle quilt raindrop ribbon ridge ring river road roof root rose rug sack secret seed
    shadow shell shoulder sign sink sofa song spark spot stamp statue stem step stick stone stove straw stream
    street string sunset swamp swing table tail tale thorn throne ticket tile towel toy tray treasure trunk
    tulip tunnel turret twig umbrella valley vase village vine wall wallet wave wick window wing wish word
    zipper"""
)

NOUNS = tuple(sorted({noun for nouns in NOUNS_BY_CATEGORY.values() for noun in nouns} | set(THINGS)))

VERBS = split_list(
    """accept add adjust admire adopt advise agree allow amuse annoy answer applaud apply approach argue arrange
    arrest arrive assist attach attack attend avoid bake balance bandage bark bathe blink bloom boil borrow
    bounce braid breathe brush bump burn bury buzz call camp care carry carve cause celebrate change charge
    chase chatter cheat check cheer chew claim clean climb close coach collect color comb compare complain
    complete connect consider contain continue copy correct cough count cover crash crawl cross crush cry cure
    curl dance dare dash decay decide decorate delay deliver deny deserve destroy dine divide doubt drain
    dress dry dust earn empty enjoy enter escape examine excite excuse exercise exist expect explain explode
    explore fail fasten fear fetch fill film flash float flood flow fold follow frame frighten fry gather gaze
    giggle glow grate grease greet guard guess guide hammer hand handle happen harvest hatch heal heat help
    hope hover hunt hurry identify ignore imagine improve include invent invite iron itch join juggle jump
    kick kiss knock laugh launch learn lick lift like list listen load lock look love march marry match
    measure melt mend mix moan mourn mumble need nest notice obey offer order pack paint park paste pause peel
    perform pick plant play point polish pour practice praise pray prepare present press pretend promise
    protect pull pump push question race rain raise reach realize receive refuse relax remain remember remind
    remove repair repeat reply rescue rest return rinse roast rock roll rule rush sail save scare scatter
    scratch scream search settle shade share shave shelter shout sigh slice smash smell smile sneeze snore
    snow soak sort spell spill splash spray sprout squeak squeeze stare start stretch study succeed suggest
    supply support surprise surround suspect talk tease thank tickle touch tour trace trade train treat
    tremble trick trust try tumble turn twist type unite vanish visit wait walk wander want warm warn wash
    watch water wave weigh welcome whisper whistle wish wobble wonder worry wrestle yawn yell zoom"""
)
"""Verbs whose past form only adds -ed or -d, or turns -y into -ied."""

ADJECTIVES = split_list(
    """angry bold brave bright broad busy calm cheap chilly clean clear clever clumsy cold cool cozy crazy creamy
    crisp curly damp dark deep dense dirty dry dull dusty early easy faint fair fancy fierce firm fluffy foggy
    fresh friendly frosty funny fuzzy gentle gloomy grand gray greasy great greedy green happy hard harsh
    heavy high humble hungry icy jolly juicy kind large lazy light lively lonely long loud lovely low lucky
    mean mellow messy mighty mild moist muddy narrow near neat new nice noble noisy odd old pale pink plain
    poor pretty proud pure quick quiet rare rich ripe rough round rude rusty safe salty sandy scary shaky
    shallow sharp shiny short silky silly simple sleepy slow small smart smelly smoky smooth soft sore sour
    spicy steady steep sticky stiff stormy strange strict strong sunny sweet swift tall tame tasty tender
    thick thirsty tidy tight tiny tough ugly vague warm weak wealthy weird wide wild windy wise witty young"""
)
"""Adjectives whose comparative only adds -er or -r, or turns -y into -ier."""

UN_ADJECTIVES = split_list(
    """able armed aware bearable beaten believable born broken certain charted checked clean clear clouded combed
    common concerned conscious cooked covered cut damaged dated defeated done dressed earned eaten educated
    equal even expected explored fair faithful familiar finished fit folded forgiving fortunate friendly
    furnished happy harmed healthy heard helpful hurt important injured interested invited just kind known
    labeled lawful likely limited lit lucky married moved named natural noticed official opened packed paid
    painted pleasant polished popular prepared productive protected proven real reasonable related reliable
    ripe safe salted scented scratched seen selfish settled shaken shaved signed skilled solved spoken stable
    steady stoppable sure tamed tested tidy tied touched trained true trusted used usual wanted washed welcome
    well willing wise worn worthy written"""
)
"""Adjectives whose opposite adds un-."""

NAMES = split_list(
    """Ada Adam Alan Alba Alma Amir Amos Anna Anton Arlo Asha Basil Bella Ben Boris Bruno Carla Carlo Cedric
    Celia Chloe Clara Colin Cora Dana Daisy David Della Diego Dora Edgar Edith Eli Elio Ella Elmo Emil Emma
    Enzo Erik Esme Ethan Eva Ezra Fatima Felix Fern Fiona Flora Frank Freya Gina Giulia Grace Greta Gus Hana
    Hank Hanna Hector Heidi Henry Hugo Ida Igor Ines Iris Isla Ivan Ivy Jack Jade James Jana Jasper Joan Joel
    Jonas Jude Julia June Kai Kara Karl Katya Kira Lara Lars Laura Lena Leo Leon Lily Lina Logan Lola Lucy
    Luis Luka Luna Mabel Maria Mark Marta Mateo Maya Mila Milo Mina Mira Molly Nadia Nell Nico Nils Nina Noah
    Nora Olga Olive Omar Oscar Otis Otto Paolo Paul Petra Pia Piet Priya Quinn Rafael Rajiv Remy Rita Robin
    Rosa Ruby Rufus Ruth Sami Sara Selma Simon Sofia Stella Sven Tara Theo Tilda Tina Tobias Uma Vera Viktor
    Wanda Wendy Wilma Yara Yusuf Zack Zara Zelda Zoe"""
)

_VOWELS = "aeiou"


def is_held_out(word: str) -> bool:
    """Whether `word` is kept for the test: one word in four, by a hash that nobody tuned.

    The rule looks at the lower-cased word alone, so a word is held out of every kind of task at once.
    """
    return zlib.crc32(word.lower().encode()) % 4 == 0


def split_words(words: tuple[str, ...], *, held_out: bool) -> tuple[str, ...]:
    return tuple(word for word in words if is_held_out(word) == held_out)


def plural(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return noun[:-1] + "ies"
    return noun + "s"


def past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return verb + "ed"


def ing(verb: str) -> str:
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + "ing"


def comparative(adjective: str) -> str:
    if adjective.endswith("e"):
        return adjective + "r"
    if adjective.endswith("y") and adjective[-2] not in _VOWELS:
        return adjective[:-1] + "ier"
    return adjective + "er"


def with_article(noun: str) -> str:
    """Put `a` or `an` before a noun, by its first letter (the lists hold the exceptions)."""
    return ("an " if noun[0] in _VOWELS and not noun.startswith(("uni", "uku")) else "a ") + noun


def pseudo_word(rng: random.Random) -> str:
    """Make up a pronounceable word that is in no list: rules learned on such words cannot be memorised."""
    while True:
        word = "".join(_syllable(rng) for _ in range(rng.choice((1, 2, 2, 2, 3))))
        if 3 <= len(word) <= 10 and word not in LISTED:
            return word


def tiny_word(rng: random.Random) -> str:
    """Make up a row of one to three letters that is in no list: it is told from others by looking at few of them."""
    while (word := "".join(rng.choices(string.ascii_lowercase, k=rng.choice((1, 1, 2, 2, 3))))) in LISTED:
        pass
    return word


LISTED = frozenset(
    [*NOUNS, *VERBS, *ADJECTIVES, *UN_ADJECTIVES]
    + [plural(noun) for noun in NOUNS]
    + [form(verb) for verb in VERBS for form in (past, ing)]
    + [comparative(adjective) for adjective in ADJECTIVES]
    + [name.lower() for name in NAMES]
)
_ONSETS = split_list(
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sk sl sm sn sp st t th tr v w y z"
)
_NUCLEI = split_list("a a e e i i o o u u ai ea ee oo ou oa")
_CODAS = ("", "", "", *split_list("b ck d ft g l ld ll m mp n nd ng nk nt p r rd rk rm rn rt s sh sk st t x y"))


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)
