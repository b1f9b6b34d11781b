"""The page's text."""

from __future__ import annotations

import json
import re

from srpipe.compare.page import Labels, page_html
from srpipe.compare.pair import make_pair
from srpipe.plan.geometry import Size


def test_names_of_files_are_text_and_nothing_else() -> None:
    pair = make_pair(Size(30, 20), Size(60, 40), "a", "b")
    evil = '</script><img src=x onerror="alert(1)">&amp;'
    page = page_html(pair, Labels(evil, "after"), '</script>" page_files', "jpg")
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "{{" not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;amp;" in page


def test_tiles_are_described_in_the_page() -> None:
    pair = make_pair(Size(30, 20), Size(60, 40), "a", "b")
    page = page_html(pair, Labels("a", "b"), "my page_files", "jpg")
    found = re.search(r"const sources = (.*);", page)
    assert found is not None
    sources = json.loads(found[1])
    assert sources["after"]["Image"]["Url"] == "my%20page_files/after_files/"
    assert sources["after"]["Image"]["Size"] == {"Width": "60", "Height": "40"}
    assert sources["before"]["Image"]["Size"] == {"Width": "30", "Height": "20"}
    assert 'src="my%20page_files/openseadragon.min.js"' in page
    assert "http" not in page.replace("http://schemas.microsoft.com/deepzoom/2008", "")
