//! Suggestions for misspelt names, by edit distance: insertions, deletions, replacements and swaps of neighbours, each counted as one.

/// The candidate most likely meant, if one is close enough.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = normal(given);
    // A third of the letters may be wrong, but at least one: with more it is another word.
    let limit = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&given, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `maxInFlight`, `max-in-flight` and `max.in.flight` count as the same name.
fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["tiers", "sources", "attempts", "max_in_flight"];
        assert_eq!(nearest("teirs", keys), Some("tiers"));
        assert_eq!(nearest("source", keys), Some("sources"));
        assert_eq!(nearest("maxInFlight", keys), Some("max_in_flight"));
        assert_eq!(nearest("retries", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
