"""Class maps of asymmetric label noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxrobust.errors import UserError, check, nearest

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
# truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog (Patrini et al. 2017)
CIFAR10_FLIPS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

# The twenty super-classes of CIFAR-100, five classes each, in the order of their numbers.
_CIFAR100_SUPER_CLASSES = tuple(
    tuple(line.split())
    for line in """
    beaver dolphin otter seal whale
    aquarium_fish flatfish ray shark trout
    orchid poppy rose sunflower tulip
    bottle bowl can cup plate
    apple mushroom orange pear sweet_pepper
    clock keyboard lamp telephone television
    bed chair couch table wardrobe
    bee beetle butterfly caterpillar cockroach
    bear leopard lion tiger wolf
    bridge castle house road skyscraper
    cloud forest mountain plain sea
    camel cattle chimpanzee elephant kangaroo
    fox porcupine possum raccoon skunk
    crab lobster snail spider worm
    baby boy girl man woman
    crocodile dinosaur lizard snake turtle
    hamster mouse rabbit shrew squirrel
    maple_tree oak_tree palm_tree pine_tree willow_tree
    bicycle bus motorcycle pickup_truck train
    lawn_mower rocket streetcar tank tractor
    """.strip().splitlines()
)
CIFAR100_CLASSES = tuple(sorted(name for group in _CIFAR100_SUPER_CLASSES for name in group))
# each class -> the next of its super-class, the last -> the first (Patrini et al. 2017)
CIFAR100_FLIPS = {
    CIFAR100_CLASSES.index(name): CIFAR100_CLASSES.index(group[(i + 1) % 5])
    for group in _CIFAR100_SUPER_CLASSES
    for i, name in enumerate(group)
}


def usual(class_names: Sequence[str]) -> dict[int, int]:
    """Returns the map that the literature uses for these classes: CIFAR-10's or CIFAR-100's.

    Raises:
      UserError: no map is usual for these classes.
    """
    names = tuple(class_names)
    if names == CIFAR10_CLASSES:
        return CIFAR10_FLIPS
    if names == CIFAR100_CLASSES:
        return CIFAR100_FLIPS
    raise UserError(
        "Asymmetric noise needs a map for these classes: which is mistaken for which, "
        f"e.g. '{names[0]}:{names[1]}'."
    )


def parse(flips: str | Mapping, class_names: Sequence[str]) -> dict[int, int]:
    """Returns a user's map as class numbers.

    Args:
      flips: 'from:to,from:to' or a mapping; classes by name, or else by number (0 ... K-1).
      class_names: K names.

    Raises:
      UserError: an unknown class, one that is mapped twice, or text of another form.
    """
    if isinstance(flips, str):
        pairs = [tuple(part.split(":")) for part in flips.split(",") if part.strip()]
        check(
            bool(pairs) and all(len(pair) == 2 for pair in pairs),
            f"Noise map {flips!r} must read 'from:to,from:to'.",
        )
    else:
        pairs = list(flips.items())
    numbers = [(_number(a, class_names), _number(b, class_names)) for a, b in pairs]
    sources = [a for a, _ in numbers]
    check(len(set(sources)) == len(sources), f"Noise map {flips!r} maps a class to two others.")
    return dict(numbers)


def _number(name: str | int, class_names: Sequence[str]) -> int:
    text, names = str(name).strip(), list(class_names)
    if text in names:
        return names.index(text)
    if text.isdigit() and int(text) < len(names):
        return int(text)
    raise UserError(f"Noise map: no class {text!r}.{nearest(text, names)}")
