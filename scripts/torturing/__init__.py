"""Long campaigns that try to break srpipe; the tests run short forms of them."""
