//! Who runs what when; knows nothing about protocols.
