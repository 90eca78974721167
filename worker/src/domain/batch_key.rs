//! The idempotency key of a batch, and those that its tasks get from it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::limits::IDEMPOTENCY_KEY_BYTES_MAX;

/// A key for a batch of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchKey(String);

impl BatchKey {
    /// A key of 1 to 200 bytes; `None`: it is none.
    pub fn new(key: &str) -> Option<Self> {
        let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
        fits.then(|| Self(key.to_owned()))
    }

    /// The key of the task at this place, counted from 0: the same for the same batch.
    pub fn of(&self, place: usize) -> String {
        let number = place + 1;
        let plain = format!("{}#{number}", self.0);
        if plain.len() <= IDEMPOTENCY_KEY_BYTES_MAX {
            return plain;
        }
        let mut hashed = String::from("sha256:");
        for byte in Sha256::digest(self.0.as_bytes()) {
            // Writing into a text does not fail.
            let _ = write!(hashed, "{byte:02x}");
        }
        format!("{hashed}#{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_a_key_of_its_own_that_fits() {
        let short = BatchKey::new("night").unwrap();
        assert_eq!([short.of(0), short.of(9)], ["night#1", "night#10"]);
        let [one, other] = ["a", "b"].map(|end| BatchKey::new(&("x".repeat(199) + end)).unwrap());
        assert_eq!(one.of(0), one.of(0));
        for (left, right) in [(one.of(0), one.of(1)), (one.of(0), other.of(0))] {
            assert_ne!(left, right);
        }
        assert!(one.of(199).len() <= IDEMPOTENCY_KEY_BYTES_MAX);
        assert_eq!(BatchKey::new(""), None);
        assert_eq!(BatchKey::new(&"x".repeat(201)), None);
    }
}
