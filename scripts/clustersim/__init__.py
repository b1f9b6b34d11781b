"""How jobs in slabs scale with the number of nodes: a simulation that replays measured figures."""
