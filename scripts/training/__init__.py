"""Training of the small super-resolution networks that are kept in `models/`.

Run it as ``python -m training`` with ``scripts`` on the module path. It needs PyTorch, which the
package itself does not; nothing in `srpipe` imports this.
"""
