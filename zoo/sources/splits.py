"""Which items of a source are train, validation and test."""

from zoo.errors import unknown

SPLIT_RULES = {
    "dws": "validation is the last 5,000 training images, test the source's own",
    "nfn": "train 45,000, validation the next 5,000, test the source's own",
    "nfn-all-rest": "as nfn, but test is all that remains",
    "80-10-10": "eight, one and one tenth of all items, in order",
}


def split_rule(split: str, source: str) -> str:
    """The rule of `split_items` that a recipe's `split` stands for on a source.

    NFN's released loader takes all that is left of Fashion-MNIST as test: 20,000 items.

    >>> split_rule("nfn", "mnist"), split_rule("nfn", "fashion-mnist")
    ('nfn', 'nfn-all-rest')
    """
    return "nfn-all-rest" if split == "nfn" and source == "fashion-mnist" else split


def split_items(
    source_train: int, total: int, rule: str, source_validation: int = 0
) -> dict[str, range]:
    """Which items are train, validation and test: disjoint ranges.

    - "dws": test is the source's own test items; validation the last min(5,000, a tenth) of
      the training items, train the rest. A source without test items gives the last tenth
      of all, and what is before it counts as its training items.
    - "nfn": train the first 45,000, validation the next 5,000, test as for dws; further
      training items are unused. With fewer than 50,000 training items, validation is their
      last tenth and train the rest.
    - "nfn-all-rest": as "nfn", but test is all after validation (Fashion-MNIST as
      published: 20,000).
    - "80-10-10": tenths of all items, whatever the source calls them.

    A source with validation items of its own, which follow its training items, has these as
    validation whatever the rule, and all training items as train; the last tenth of them is
    test if it has no test items.

    Below ten items (twenty, if the source has no test items) validation or test can be
    empty; train never is.

    Args:
        source_train: number of the source's own training items, `train_items`.
        total: number of all items.
        source_validation: number of the source's own validation items.

    Raises:
        ValueError: if the rule is unknown or the numbers are not 1 <= source_train <= total
            with room for the validation items.

    Source: `dws` Navon et al. 2023, `nfn` Zhou et al. 2023.
    """
    if rule not in SPLIT_RULES:
        raise ValueError(unknown("split rule", rule, SPLIT_RULES))
    if not 1 <= source_train <= total:
        raise ValueError(f"expected 1 <= source_train <= total, got {source_train} and {total}")

    if not 0 <= source_validation <= total - source_train:
        raise ValueError(
            f"expected 0 <= source_validation <= total - source_train, got {source_validation} "
            f"of {total} - {source_train}"
        )

    if rule == "80-10-10":
        train, validation = max(1, total * 8 // 10), max(1, total * 9 // 10)
        return {
            "train": range(train),
            "validation": range(train, validation),
            "test": range(validation, total),
        }
    if source_validation:
        end = source_train + source_validation
        train = source_train if end < total else source_train - source_train // 10
        return {
            "train": range(train),
            "validation": range(source_train, end),
            "test": range(end, total) if end < total else range(train, source_train),
        }
    test = source_train if source_train < total else total - total // 10
    if rule == "dws":
        validation, train = test, test - min(5_000, test // 10)
    elif test >= 50_000:
        validation, train = 50_000, 45_000
    else:
        validation, train = test, test - test // 10
    if rule == "nfn-all-rest":
        test = validation
    return {
        "train": range(train),
        "validation": range(train, validation),
        "test": range(test, total),
    }
