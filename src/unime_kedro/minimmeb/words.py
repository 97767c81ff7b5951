"""Word lists about the drawings: which are left out, which have a second name, which look or mean nearly the same.

Chosen by hand from OpenMoji's names and tags; a test checks every entry against the vendored metadata.
"""

from __future__ import annotations

# Plural or mass nouns ("a jeans"), names that do not say what is drawn ("mate", "ice", "wedding"), drawings that look
# alike at 56 pixels (locked/unlocked, bus/trolleybus), words a reader would not expect in a picture set, and one side
# of every "a poodle is a dog": bird, bread, hut, melon, moose, mountain, panda, poodle, rooster, stopwatch, train.
EXCLUDED = frozenset(
    """
    badger bank beans bikini bird blowfish blueberries books bread briefs bubbles bug butter camping candy chains
    cherries chopsticks cigarette cityscape coffin comet construction cooking coral cyclone dango dumpling dvd ewe
    fireworks flashlight fly fog foggy fondue garlic glasses gloves goggles grapes hamsa handbag headstone herb
    hibiscus houses hut hyacinth ice jeans joker kaaba kimono knot label landslide lime link locked lotus luggage
    maracas mate melon microbe minibus moose motorway mountain notebook oden orca ox package pager pancakes panda
    peanuts pick piñata placard poodle popcorn raccoon ram receipt rooster rosette sake salt sari satellite sauropod
    school seat shamrock ship shortcake shorts skis skunk soap socks softball spaghetti sparkler sparkles speedboat
    squid station stopwatch sunglasses sunrise sunset synagogue tamale tangerine taxi trackball train tram
    trolleybus unlocked videocassette wedding wing wood worm
    """.split()  # noqa: SIM905  (a list of one word a line would be two screens long)
)

#: name -> other words for the same thing; each is among the drawing's tags
SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("aeroplane", "plane"),
    "automobile": ("car",),
    "axe": ("hatchet",),
    "backpack": ("rucksack",),
    "bicycle": ("bike",),
    "bison": ("buffalo",),
    "brick": ("bricks",),
    "bucket": ("pail",),
    "bullseye": ("target",),
    "camel": ("dromedary",),
    "cat": ("kitty",),
    "church": ("chapel",),
    "coat": ("jacket",),
    "cockroach": ("roach",),
    "crutch": ("cane",),
    "dog": ("puppy",),
    "donkey": ("burro",),
    "doughnut": ("donut",),
    "eggplant": ("aubergine",),
    "elevator": ("lift",),
    "envelope": ("letter",),
    "fire": ("flame",),
    "flatbread": ("naan",),
    "gear": ("cogwheel",),
    "hamburger": ("burger",),
    "helicopter": ("copter",),
    "hippopotamus": ("hippo",),
    "honeybee": ("bee", "bumblebee"),
    "jellyfish": ("jelly",),
    "ledger": ("notebook",),
    "llama": ("alpaca",),
    "lollipop": ("candy",),
    "metro": ("subway",),
    "microphone": ("mic",),
    "mushroom": ("toadstool",),
    "necktie": ("tie",),
    "newspaper": ("news",),
    "phoenix": ("firebird",),
    "postbox": ("mailbox",),
    "purse": ("handbag",),
    "rabbit": ("bunny",),
    "rhinoceros": ("rhino",),
    "rock": ("boulder", "stone"),
    "sailboat": ("yacht",),
    "saxophone": ("sax",),
    "scroll": ("papyrus",),
    "seedling": ("sapling", "sprout"),
    "shovel": ("spade",),
    "sled": ("sledge", "toboggan"),
    "snake": ("serpent",),
    "strawberry": ("berry",),
    "telephone": ("phone",),
    "television": ("tv",),
    "thread": ("spool",),
    "tornado": ("hurricane",),
    "turtle": ("tortoise",),
    "violin": ("fiddle",),
    "wastebasket": ("bin",),
    "wheel": ("tire",),
    "wrench": ("spanner",),
}

#: Drawings that look or mean nearly the same. Such a cluster is one thing to every split (see ``scenes`` and
#: ``classes.novel_classes``): what is learned of one member must not be tested on another.
LOOK_ALIKES: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in """
    airplane helicopter rocket
    ambulance bus automobile tractor
    ant beetle cockroach cricket spider scorpion mosquito
    axe hammer wrench screwdriver
    bacon hamburger sandwich
    badminton tennis lacrosse
    banjo guitar violin
    baseball basketball volleyball bowling tennis
    bear koala hamster
    bicycle motorcycle
    dove eagle phoenix parrot
    blossom bouquet rose sunflower tulip
    croissant bagel pretzel doughnut
    burrito taco falafel flatbread
    butterfly honeybee
    calendar clipboard memo scroll newspaper bookmark ledger
    canoe ferry sailboat
    castle church mosque hospital hotel factory house stadium
    cat lion tiger leopard
    chicken turkey
    clamp wrench
    coat dress
    crab lobster shrimp
    crayon pen pencil paintbrush
    crocodile lizard snake dragon
    cookie pizza
    dog fox wolf
    dolphin shark whale fish seal
    donkey horse zebra unicorn
    duck goose swan
    elephant mammoth
    fire firecracker bomb
    flamingo peacock
    frog turtle
    gorilla monkey orangutan sloth
    laptop keyboard printer television
    lemon mango pear peach olive
    locomotive metro monorail
    loudspeaker megaphone
    mouse rat hamster chipmunk hedgehog beaver otter
    cow bison boar pig
    goat llama
    postbox envelope
    rainbow sun
    saxophone trombone trumpet
    shower bathtub
    snowflake snowman
    watch compass
    syringe thermometer
    thread yarn
    telescope microscope
    telephone radio
    tornado cloud
    tomato onion
    hippopotamus rhinoceros
    """.strip().splitlines()
)
