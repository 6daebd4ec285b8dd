"""What the base model reads: a mix of stories and drills."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable

from training.demo.base_texts import base_documents


def kind_of(document: str) -> str:
    if " Again" in document:
        return "copying"
    if re.search(r"The \w+(: | is with | belongs to )[A-Z][a-z]*\.$", document):
        return "owning"
    return "usage or story"


def test_the_mix_is_as_named_and_follows_the_seed() -> None:
    documents = list(itertools.islice(base_documents(1), 1000))
    shares = Counter(map(kind_of, documents))
    assert 60 < shares["copying"] < 100
    assert 170 < shares["owning"] < 230
    assert (
        documents == list(itertools.islice(base_documents(1), 1000)) != list(itertools.islice(base_documents(2), 1000))
    )


def test_nouns_in_use_can_be_left_out() -> None:
    def are_in_use(documents: Iterable[str]) -> int:
        return sum(bool(re.match(r"(There is|I know) an? \w+ that", document)) for document in documents)

    assert are_in_use(itertools.islice(base_documents(1), 500)) > 20
    assert are_in_use(itertools.islice(base_documents(1, usage_share=0), 500)) == 0
