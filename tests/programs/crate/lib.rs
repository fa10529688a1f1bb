//! A library of one function, with a test.

/// The sum of the first `count` squares.
pub fn squares(count: u64) -> u64 {
    (1..=count).map(|number| number * number).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn three_squares() {
        assert_eq!(super::squares(3), 14);
    }
}
