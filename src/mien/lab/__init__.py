"""The lab: everything that trains, measures and exports a network. Needs ``mien[lab]``; the core never imports it."""
