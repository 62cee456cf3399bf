"""The page of all names is what its script writes, and has what it promises."""

import re

import pytest

import jax_ranges as jr
from tests import api_page


def test_the_page_is_up_to_date():
    assert api_page.PAGE.read_text("utf-8") == api_page.page(), "run: python -m tests.api_page"


@pytest.mark.parametrize("name", jr.__all__)
def test_every_name_is_there_and_leads_to_its_file(name):
    (file,) = re.findall(rf"^### \[`{name}`\]\((.*)\)$", api_page.page(), re.MULTILINE)
    source = (api_page.PAGE.parent / file).read_text("utf-8")
    assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE)


def test_signatures_are_written_as_users_write_them():
    text = api_page.page()
    assert "jr.load(file: File, *others: File) -> Ranges\n" in text
    assert "    loops: str = 'merge',\n) -> Callable[..., tuple[Any, Ranges]]\n" in text
    assert "- `.get_info(total=False)`: The ranges so far, on the host: of the window" in text
    assert "- `.min`, `.max`: of all values that are not NaN, ±inf included.\n" in text
    assert "str(object='')" not in text
