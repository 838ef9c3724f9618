"""How the things of training scenes look: their colours, drawn per episode, and their sizes, drawn per scene."""
