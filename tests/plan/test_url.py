from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srpipe.plan.url import (
    is_url,
    protocols_of,
    redact_text,
    redact_url,
    secrets_in,
    url_key,
    url_name,
)

# Characters that nothing else in the URLs below has, so that a secret is found wherever it is left.
SECRETS = st.text("QJZ9%~!$", min_size=4, max_size=12)
WILD_SECRETS = st.text("QJZ9%~!$:/?#@&=+", min_size=4, max_size=12).map(lambda text: f"Q{text}Z")
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
SCHEMES = st.sampled_from(["https", "s3", "gs", "ftp", "simplecache::s3", "zip://in.tif::https"])


@given(scheme=SCHEMES, user=SECRETS, password=SECRETS, host=WORDS, path=WORDS, value=SECRETS)
def test_no_credentials_are_left(
    scheme: str, user: str, password: str, host: str, path: str, value: str
) -> None:
    url = f"{scheme}://{user}:{password}@{host}:443/{path}.tif?X-Amz-Signature={value}&{value}#{value}"
    shown = redact_url(url)
    assert not set("QJZ9%~!$") & set(shown)
    assert f"***@{host}:443/{path}.tif?X-Amz-Signature=***" in shown
    assert redact_url(shown) == shown
    text = redact_text(f"GET {url} failed: '{url}', {password} for {user}", secrets_in(url))
    assert not set("QJZ9%~!$") & set(text)
    assert text.startswith("GET ")


@given(password=WILD_SECRETS, host=WORDS, path=WORDS)
@example(password="Q/a?b#c@dZ", host="host", path="x")
def test_a_password_that_should_have_been_encoded_is_hidden_too(
    password: str, host: str, path: str
) -> None:
    shown = redact_url(f"https://me:{password}@{host}/{path}.tif")
    assert password not in shown
    assert not {"Q", "J", "Z"} & set(shown)


@given(st.text())
def test_what_is_no_url_stays(text: str) -> None:
    if "://" not in text:
        assert redact_url(text) == text
        assert redact_text(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/scan@2x.tif",
        "gs://bucket/a b/c.tif",
        "https://example.org:8443/a/b.tif",
        "https://[::1]:8443/a.tif",
        "simplecache::s3://bucket/a.tif",
        "zip://a.tif::s3://bucket/scans.zip",
        "file:///data/a.tif",
    ],
)
def test_urls_without_credentials_are_shown_as_they_are(url: str) -> None:
    assert is_url(url)
    assert redact_url(url) == url
    assert redact_text(f"{url} is there") == f"{url} is there"


@pytest.mark.parametrize("path", ["a.tif", "/a/b.tif", "C:/x.tif", "a::b", "x/https://y", ""])
def test_paths_are_no_urls(path: str) -> None:
    assert not is_url(path)


@given(signature=SECRETS, user=SECRETS, word=WORDS)
def test_the_key_is_of_the_object_and_not_of_its_signature(
    signature: str, user: str, word: str
) -> None:
    plain = f"https://host/{word}.tif"
    signed = f"https://{user}@host/{word}.tif?X-Amz-Signature={signature}&X-Amz-Date={signature}"
    azure = f"{plain}?sv=2024&se={signature}&sig={signature}"
    assert url_key(plain) == url_key(signed) == url_key(azure)
    assert url_key(plain) != url_key(f"https://host/{word}x.tif")
    assert url_key(f"{plain}?id=1") != url_key(f"{plain}?id=2")


def test_names_and_protocols() -> None:
    assert url_name("https://host/a/scan [1].tif?x=/y.tif") == "scan__1_.tif"
    assert url_name("https://me:pw@host/a.tif") == "a.tif"
    assert url_name("zip://in/a.tif::s3://bucket/scans.zip") == "a.tif"
    assert len(url_name(f"s3://b/{'x' * 300}.tif")) == 100
    assert protocols_of("simplecache::S3://b/a.tif") == ("simplecache", "s3")
    assert protocols_of("zip://a.tif::s3://b/c.zip") == ("zip", "s3")


def test_secrets_of_options() -> None:
    options = {"s3": {"key": "AKIAX", "client_kwargs": {"aws_session_token": "tttt"}, "anon": True,
                      "endpoint_url": "http://here"}}  # fmt: skip
    assert set(secrets_in("s3://b/a.tif", options)) == {"AKIAX", "tttt"}
