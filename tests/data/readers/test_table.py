"""Tables of images and labels: columns by name, unknown labels, splits, and errors with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data import DataError, MultiLabelData, load_data
from mlkd.data.readers.table import read
from mlkd.data.validate import find_problems


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table beside images 0.jpg to 9.jpg, each of another shade."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(10):
        Image.fromarray(np.full((8, 8, 3), 20 * k, np.uint8)).save(folder / f"{k}.jpg")

    def write_table(text: str, name: str = "labels.csv") -> Path:
        (folder / name).write_text(text)
        return folder / name

    return write_table


def labels(data: MultiLabelData) -> dict[str, set[str]]:
    return {i: {data.classes[k] for k in np.flatnonzero(row)} for i, row in zip(data.ids, data.targets, strict=True)}


def unknown(data: MultiLabelData) -> dict[str, set[str]]:
    assert data.ignore_mask is not None
    return {
        i: {data.classes[k] for k in np.flatnonzero(row)} for i, row in zip(data.ids, data.ignore_mask, strict=True)
    }


SPLIT_TABLE = """image,labels,split
0.jpg,dog;cat,train
1.jpg,dog,train
2.jpg,cat ; bird,validation
3.jpg,bird,test
"""


def test_labels_in_one_column(write: Callable[..., Path]) -> None:
    splits = read(write(SPLIT_TABLE))
    assert list(splits) == ["train", "val", "test"]
    assert splits["train"].classes == ("bird", "cat", "dog")
    assert splits["train"].name == "photos"
    assert labels(splits["train"]) == {"0.jpg": {"cat", "dog"}, "1.jpg": {"dog"}}
    assert labels(splits["val"]) == {"2.jpg": {"bird", "cat"}}
    assert labels(splits["test"]) == {"3.jpg": {"bird"}}
    assert splits["train"].ignore_mask is None
    assert splits["train"].boxes is None
    assert abs(int(splits["test"].images[0][0, 0, 0]) - 60) < 3
    assert find_problems(splits) == []


def test_one_column_per_class(write: Callable[..., Path]) -> None:
    table = "File_Name,photographer,sky,dog,Split\n0.jpg,ann,1,0,train\n1.jpg,bob,0,1.0,train\n2.jpg,,?,1,test\n"
    splits = read(write(table + "3.jpg,bob,,-1,test\n4.jpg,eve,FALSE,true,val\n"))
    assert splits["train"].classes == ("sky", "dog")
    assert labels(splits["train"]) == {"0.jpg": {"sky"}, "1.jpg": {"dog"}}
    assert labels(splits["test"]) == {"2.jpg": {"dog"}, "3.jpg": set()}
    assert unknown(splits["test"]) == {"2.jpg": {"sky"}, "3.jpg": {"sky", "dog"}}
    assert labels(splits["val"]) == {"4.jpg": {"dog"}}


def test_unknown_labels_in_one_column(write: Callable[..., Path]) -> None:
    table = "image;tags;split\n0.jpg;a|b;train\n1.jpg;;train\n2.jpg;?;val\n3.jpg;a|?b;test\n4.jpg;-1;test\n"
    path = write(table)
    splits = read(path)
    assert splits["train"].classes == ("a", "b")
    assert labels(splits["train"]) == {"0.jpg": {"a", "b"}, "1.jpg": set()}
    assert unknown(splits["train"]) == {"0.jpg": set(), "1.jpg": {"a", "b"}}
    assert unknown(splits["val"]) == {"2.jpg": {"a", "b"}}
    assert labels(splits["test"]) == {"3.jpg": {"a"}, "4.jpg": set()}
    assert unknown(splits["test"]) == {"3.jpg": {"b"}, "4.jpg": {"a", "b"}}
    assert unknown(read(path, empty="none")["train"])["1.jpg"] == set()
    assert unknown(read(path, empty="none")["test"])["4.jpg"] == {"a", "b"}


def test_minus_one_for_absent(write: Callable[..., Path]) -> None:
    path = write("image,sky,dog,split\n0.jpg,1,-1,train\n1.jpg,-1,1,val\n2.jpg,1,1,test\n")
    with pytest.raises(DataError, match=r"labels\.csv: the classes have 1 and -1 but no 0.*`\?absent=-1`"):
        read(path)
    splits = read(path, absent="-1")
    assert labels(splits["train"]) == {"0.jpg": {"sky"}}
    assert splits["train"].ignore_mask is None


def test_other_formats_are_the_same_table(write: Callable[..., Path], tmp_path: Path) -> None:
    expected = read(write(SPLIT_TABLE))
    rows = [line.split(",") for line in SPLIT_TABLE.splitlines()[1:]]
    records = [{"file_name": i, "labels": [x.strip() for x in own.split(";")], "split": s} for i, own, s in rows]
    tables = {
        "a.tsv": SPLIT_TABLE.replace(",", "\t"),
        "b.CSV": "\ufeff" + SPLIT_TABLE.replace("\n", "\r\n"),
        "c.jsonl": "".join(json.dumps(record) + "\n" for record in records),
        "d.csv": '"image","labels","split"\n' + "".join(f'"{i}","{own}","{s}"\n\n' for i, own, s in rows),
    }
    for name, text in tables.items():
        for split, data in load_data(f"table:{write(text, name)}").items():
            assert labels(data) == labels(expected[split])


def test_parquet(write: Callable[..., Path]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    expected = read(write(SPLIT_TABLE))
    rows = [line.split(",") for line in SPLIT_TABLE.splitlines()[1:]]
    path = write("", "e.parquet")
    columns = {"image": [row[0] for row in rows], "labels": [row[1] for row in rows], "split": [row[2] for row in rows]}
    parquet.write_table(pyarrow.table(columns), path)
    for split, data in read(path).items():
        assert labels(data) == labels(expected[split])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"e\.parquet: broken Parquet"):
        read(path)


def test_options_choose_columns(write: Callable[..., Path]) -> None:
    path = write("when,photo,sky,dog,fold,what\n1,0.jpg,1,0,train,a+b\n1,1.jpg,0,1,val,b\n0,2.jpg,1,1,test,a\n")
    splits = load_data(f"table:{path}?image=photo&classes=dog,sky&split=fold")
    assert splits["train"].classes == ("dog", "sky")
    splits = load_data(f"table:{path}?image=photo&labels=what&separator=+&split=fold")
    assert labels(splits["train"]) == {"0.jpg": {"a", "b"}}


def test_boxes(write: Callable[..., Path]) -> None:
    table = "image,xmin,ymin,xmax,ymax,label,split\n0.jpg,0,1,4.5,6,dog,train\n1.jpg,1,1,2,2,cat,val\n"
    splits = read(write(table + "0.jpg,2,2,8,8,cat,train\n2.jpg,,,,,dog,test\n"))
    train = splits["train"]
    assert labels(train) == {"0.jpg": {"dog", "cat"}}
    assert train.boxes is not None
    assert train.boxes[0].tolist() == [[1, 0, 1, 4.5, 6], [0, 2, 2, 8, 8]]
    assert splits["test"].boxes is not None
    assert splits["test"].boxes[0].shape == (0, 5)
    assert find_problems(splits) == []


def test_images_in_a_folder_and_without_suffix(write: Callable[..., Path]) -> None:
    path = write("image_id,dog,split\n0,1,train\n1,1,val\n2,1,test\n")
    assert find_problems(read(path)) == []
    (path.parent / "images").mkdir()
    for k in range(3):
        (path.parent / f"{k}.jpg").rename(path.parent / "images" / f"{k}.jpg")
    assert find_problems(read(path)) == []
    (path.parent / "images").rename(path.parent / "pixels")
    assert "0: no such file" in find_problems(read(path))[0]
    assert find_problems(read(path, images="pixels")) == []
    assert read(path)["train"].ids == ("0",)


def test_metadata_of_each_split(tmp_path: Path) -> None:
    """The layout of an image folder of Hugging Face's `datasets`."""
    for split, first in (("train", 0), ("validation", 4), ("test", 6)):
        (tmp_path / "hf" / split).mkdir(parents=True)
        lines = []
        for k in range(first, first + 2):
            Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "hf" / split / f"{k}.png")
            lines.append(json.dumps({"file_name": f"{k}.png", "labels": ["a", "b"][: k % 2 + 1]}))
        (tmp_path / "hf" / split / "metadata.jsonl").write_text("\n".join(lines))
    splits = read(tmp_path / "hf")
    assert {name: data.ids for name, data in splits.items()} == {
        "train": ("train/0.png", "train/1.png"),
        "val": ("validation/4.png", "validation/5.png"),
        "test": ("test/6.png", "test/7.png"),
    }
    assert labels(splits["val"]) == {"validation/4.png": {"a"}, "validation/5.png": {"a", "b"}}
    assert find_problems(splits) == []


def test_without_a_split_the_table_is_stratified(write: Callable[..., Path]) -> None:
    rows = [f"{k}.jpg,{k % 2},{(k + 1) % 2}" for k in range(10)]
    path = write("\n".join(["image,odd,even", *rows]))
    splits = read(path)
    assert {name: len(split) for name, split in splits.items()} == {"train": 7, "val": 1, "test": 2}
    assert splits["test"].targets.sum(axis=0).tolist() == [1, 1]
    write("\n".join(["image,odd,even", *rows[::-1]]))
    for name, split in read(path).items():
        assert set(split.ids) == set(splits[name].ids)
    assert any(set(read(path, seed=seed)["test"].ids) != set(splits["test"].ids) for seed in (1, 2))
    assert len(read(path, val=0.2, test=0.3)["test"]) == 3
    with pytest.raises(ValueError, match=r"`val` is 0\.5 and `test` is 0\.5; expected positive fractions"):
        read(path, val=0.5, test=0.5)


BAD = {
    "no image column": ("picture,dog\n0.jpg,1\n", r"labels\.csv: no column of images among `picture`, `dog`"),
    "no labels": ("image,date\n0.jpg,monday\n", "no column of labels and none of 0 and 1 among `image`, `date`"),
    "a typo": ("image,dog\n0.jpg,1\n1.jpg,2\n", r"labels\.csv, line 3: '2' in the column `dog`; expected 1, 0, or \?"),
    "no rows": ("image,dog\n", "the table has no rows"),
    "empty": ("", "the table has no rows"),
    "ragged": ("image,dog\n0.jpg,1\n1.jpg\n", "line 3: 1 values; expected 2, one per column"),
    "unclosed": ('image,dog\n0.jpg,"1\n', r"line 2: broken CSV \("),
    "twice": ("image,dog\n0.jpg,1\n0.jpg,1\n", r"line 3: `0\.jpg` is also at .*labels\.csv, line 2; expected each"),
    "a column twice": ("image,dog,dog\n0.jpg,1,0\n", "the column `dog` occurs more than once"),
    "no path": ("image,dog\n,1\n", "line 2: nothing in the column `image`"),
    "outside": ("image,dog\n../../x.jpg,1\n", "lies outside the data folder"),
    "absolute": ("image,dog\n/etc/passwd,1\n", "lies outside the data folder"),
    "no split": (
        "image,dog,split\n0.jpg,1,train\n1.jpg,1,\n",
        "line 3: '' is the split; expected a name such as train",
    ),
    "only train": ("image,dog,split\n0.jpg,1,train\n", "no split to evaluate on; the splits are train"),
    "no label at all": ("image,labels,split\n0.jpg,,train\n1.jpg,,test\n", "no image has a label"),
    "box": ("image,x1,y1,x2,y2,label\n0.jpg,3,0,2,9,dog\n", r"line 2: the box \(3, 0, 2, 9\); expected 0 <= x1 < x2"),
    "no number": ("image,x1,y1,x2,y2,label\n0.jpg,a,0,2,9,dog\n", "line 2: 'a, 0, 2, 9' is no box"),
    "two labels": ("image,x1,y1,x2,y2,label\n0.jpg,1,0,2,9,dog;cat\n", "line 2: 2 labels for one box"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_table(write: Callable[..., Path], case: str) -> None:
    text, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read(write(text))


def test_bad_files(write: Callable[..., Path]) -> None:
    path = write('{"image": "0.jpg", "labels": ["a"]}\n{"image": \n', "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: broken JSON"):
        read(path)
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: a list; expected an object"):
        read(write("[1]\n", "a.jsonl"))
    path.unlink()
    with pytest.raises(DataError, match=r"photos: no table; expected a file such as"):
        read(path.parent)
    write("image,dog\n0.jpg,1\n").write_bytes("image,dög\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv: not encoded in UTF-8"):
        read(path.parent)
    write("x", "other.tsv")
    with pytest.raises(
        DataError, match=r"several tables, labels\.csv, other\.tsv; choose one, as in `table:.*labels\.csv`"
    ):
        read(path.parent)
    with pytest.raises(DataError, match=r"0\.jpg: no table; expected a file that ends in \.csv"):
        read(path.parent / "0.jpg")
    with pytest.raises(DataError, match="no such file; expected a table"):
        read(path.parent / "absent.csv")
    with pytest.raises(DataError, match="no column `hund`, which `classes` names; did you mean `dog`"):
        read(write("image,dog\n0.jpg,1\n"), classes="hund")
