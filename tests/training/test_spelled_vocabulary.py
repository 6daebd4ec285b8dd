"""The vocabulary of whole words and single letters."""

from tokenizers import Tokenizer as LibraryTokenizer

from training.spelled_vocabulary import train_spelled_bpe

TEXTS = ['The plural of "apple" is the word apples, an orange too. The river and the sea, 1234 times.'] * 3


def pieces(text: str, **options) -> list[str]:
    tokenizer = train_spelled_bpe(TEXTS, 330, **options)
    return [tokenizer.token_bytes(id_).decode() for id_ in tokenizer.encode(text)]


def test_a_quoted_word_is_a_row_of_letters() -> None:
    assert pieces(' "apple"') == [' "', *"apple", '"']


def test_frequent_words_are_tokens() -> None:
    assert pieces("The plural of the word") == ["The", " plural", " of", " the", " word"]


def test_other_words_are_letters_even_where_they_begin_like_a_token() -> None:
    assert pieces(" rivers plurals") == [" ", *"rivers", " ", *"plurals"]


def test_a_word_can_be_kept_from_being_a_token() -> None:
    assert pieces("The river", spelled={"river", "the"}) == [*"The", " ", *"river"]


def test_digits_and_capitals_stand_alone() -> None:
    assert pieces(" 1234") == [" ", *"1234"]
    assert pieces("APPLE") == [*"APPLE"]


def test_the_library_reads_the_same_tokens() -> None:
    tokenizer = train_spelled_bpe(TEXTS, 330)
    library = LibraryTokenizer.from_str(tokenizer.files()["tokenizer.json"].decode())
    for text in (*TEXTS, ' Thethe "The" THE apples ant andes', "wordapple  \n sea,sea"):
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


def test_training_twice_gives_the_same_file() -> None:
    assert train_spelled_bpe(TEXTS, 330).files() == train_spelled_bpe(iter(TEXTS), 330).files()
