//! What a person or program can ask for; the only door for surfaces.
