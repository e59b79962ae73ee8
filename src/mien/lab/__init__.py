"""The lab: everything that trains, measures and exports a network. It needs the extra ``mien[lab]``; the core never imports it."""
