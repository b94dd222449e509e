"""The index by words: BM25 as its formula says, in a file that equal texts give again."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import bm25s
import numpy as np
import pytest
from bm25s.tokenization import Tokenized
from safetensors.numpy import load_file, save_file

from memorag_pipeline.errors import CorruptBlobError
from memorag_pipeline.retrieval.sparse_index import SparseIndex, build_sparse_index
from memorag_pipeline.retrieval.sparse_search import SparseSearch
from memorag_pipeline.retrieval.terms import search_terms_of, terms_of
from tests.retrieval.chunk_tables import paragraphs

TEXTS = ["The cat sat on the mat.", "A dog, a Cat and a bird", "", "记忆模型先阅读整个语料", "cat cat cat"]


def search(index: SparseIndex, query: str, k: int) -> list[tuple[int, float]]:
    ((rows, scores),) = SparseSearch([index]).search(query, k, [None])
    return list(zip(rows.tolist(), scores.tolist(), strict=True))


def built(folder: Path, texts: list[str] = TEXTS) -> SparseIndex:
    build_sparse_index(texts, folder / "sparse")
    return SparseIndex(folder / "sparse")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The STRASSE, the straße!", ["the", "strasse", "the", "strasse"]),
        ("don't x_y 3.14", ["don", "t", "x", "y", "3", "14"]),
        ("记忆模型", ["记忆", "忆模", "模型"]),
        ("用KV缓存", ["用", "kv", "缓存"]),
        ("ＡＢＣ １２", ["abc", "12"]),  # noqa: RUF001
        ("été naïve", ["été", "naïve"]),
        ("\u200b … !", []),
        ("con\u00adtract zero\u200bwidth word\u2060joiner", ["contract", "zerowidth", "wordjoiner"]),
        ("हिन्दी தமிழ் বাংলা क्षेत्र", ["हिन्दी", "தமிழ்", "বাংলা", "क्षेत्र"]),
        ("ภาษาไทย ភាសាខ្មែរ", ["ภาษาไทย", "ភាសាខ្មែរ"]),
        ("ภาษา\u200bไทย", ["ภาษา", "ไทย"]),
        ("العَرَبِيَّة שָׁלוֹם کتـــاب", ["العربية", "שלום", "کتاب"]),
        ("می\u200cخواهم", ["میخواهم"]),  # noqa: RUF001
        ("İstanbul ISTANBUL", ["istanbul", "istanbul"]),
        ("a\u0301b q\u0301 1\ufe0f\u20e3", ["áb", "q\u0301", "1\u20e3"]),
    ],
)
def test_terms_are_words_and_pairs_of_chinese_characters(text: str, terms: list[str]) -> None:
    assert terms_of(text) == terms


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("ประเทศไทยใช้ภาษาไทยเป็นภาษาราชการ", "ภาษา"),
        ("the con\u00adtract", "contract"),
        ("في اللُّغَةِ", "اللغة"),
        ("हिन्दी की किताब", "हिन्दी"),
    ],
)
def test_words_are_found_however_they_are_written(tmp_path: Path, text: str, query: str) -> None:
    index = built(tmp_path, ["another text altogether", text])
    assert [row for row, _ in search(index, query, 2)] == [1]


def test_scores_are_those_of_bm25(tmp_path: Path) -> None:
    documents = [terms_of(text) for text in TEXTS]
    average = sum(map(len, documents)) / len(documents)

    def score(query: str, terms: list[str]) -> float:
        total = 0.0
        for term in terms_of(query):
            having, often = sum(term in each for each in documents), terms.count(term)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            total += idf * often / (often + 1.5 * (0.25 + 0.75 * len(terms) / average))
        return total

    for query in ("cat", "the cat", "阅读语料", "the the bird"):
        expected = {row: score(query, terms) for row, terms in enumerate(documents)}
        found = search(built(tmp_path), query, 10)
        assert dict(found) == pytest.approx({row: value for row, value in expected.items() if value}, rel=1e-5)
        assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)


def test_equal_scores_come_in_the_order_of_rows_and_no_more_than_wanted(tmp_path: Path) -> None:
    index = built(tmp_path, ["b a", "a c", "a d", "a e"])
    assert [row for row, _ in search(index, "a", 3)] == [0, 1, 2]
    assert [row for row, _ in search(index, "d a", 2)] == [2, 0]
    assert search(index, "unheard of", 3) == []


def test_texts_without_terms_make_an_index(tmp_path: Path) -> None:
    assert built(tmp_path, ["", "…"]).texts == 2
    assert search(built(tmp_path, ["", "…"]), "a", 3) == []


def test_equal_texts_give_equal_files(tmp_path: Path) -> None:
    build_sparse_index(TEXTS, tmp_path / "one")
    build_sparse_index(iter(TEXTS), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_is_no_sparse_index_is_refused(tmp_path: Path) -> None:
    built(tmp_path)
    columns = load_file(tmp_path / "sparse")
    (tmp_path / "noise").write_bytes(b"no index" * 100)
    save_file(columns, tmp_path / "unmarked")
    shorter = {**columns, "weights": columns["weights"][:-1]}
    save_file(shorter, tmp_path / "shorter", {"format": "memorag-sparse-2", "texts": "5"})
    outside = {**columns, "rows": np.full_like(columns["rows"], 99)}
    save_file(outside, tmp_path / "outside", {"format": "memorag-sparse-2", "texts": "5"})
    for name in ("noise", "unmarked", "shorter"):
        with pytest.raises(CorruptBlobError, match=f"{name}: not a sparse index"):
            SparseIndex(tmp_path / name)
    with pytest.raises(CorruptBlobError, match=r"outside: a row of .* is not among its 5"):
        search(SparseIndex(tmp_path / "outside"), "cat", 2)


@pytest.mark.parametrize("cuts", [[], [2], [1, 2, 4]])
def test_scores_are_those_of_bm25s_over_all_texts_however_they_are_divided(tmp_path: Path, cuts: list[int]) -> None:
    texts = [text for topic in ("lambda", "while", "global", "import") for text in paragraphs(topic)]
    bounds = [0, *(len(texts) * cut // 5 for cut in cuts), len(texts)]
    indexes = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        build_sparse_index(texts[start:end], tmp_path / str(number))
        indexes.append(SparseIndex(tmp_path / str(number)))
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(term, len(numbers)) for term in search_terms_of(text)] for text in texts]
    reference = bm25s.BM25(method="lucene")
    reference.index(Tokenized(ids=ids, vocab=numbers), create_empty_token=False, show_progress=False)
    for query in ("the module", "global statement", "while lambda expression"):
        expected = reference.get_scores([numbers[term] for term in search_terms_of(query)])
        found = np.zeros(len(texts), np.float32)
        for start, (rows, scores) in zip(bounds, SparseSearch(indexes).search(query, 100, [None] * 9), strict=False):
            found[start + rows] = scores
        assert np.abs(found - expected).max() < 1e-6 * expected.max()


def test_the_index_of_an_earlier_release_scores_by_the_weights_that_it_has(tmp_path: Path) -> None:
    columns = {"starts": [0, 2, 3], "rows": [0, 1, 1], "weights": [0.5, 0.25, 2.0]}
    arrays = {name: np.array(columns[name], dtype) for name, dtype in (("starts", "i8"), ("rows", "i4"))}
    arrays |= {"weights": np.array(columns["weights"], np.float32), "terms": np.frombuffer(b"cat\ndog", np.uint8)}
    save_file(arrays, tmp_path / "old", {"format": "memorag-sparse-1", "texts": "2"})
    assert search(SparseIndex(tmp_path / "old"), "cat dog", 5) == [(1, 2.25), (0, 0.5)]


def test_masked_texts_are_not_found(tmp_path: Path) -> None:
    ((rows, _),) = SparseSearch([built(tmp_path)]).search("cat", 3, [np.array([True, False, False, False, False])])
    assert rows.tolist() == [4, 1]
