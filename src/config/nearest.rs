//! Suggestions for misspelt names, by edit distance.

/// The candidate most likely meant, if one is close enough.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = normal(given);
    // A third of the letters may be wrong, but at least one: with more it is another word.
    let limit = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `maxInFlight`, `max-in-flight` and `max.in.flight` count as the same name.
fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '.')).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours, each counted as one.
///
/// Not that of the crate `strsim`: the library names the nearest property too, and would need one more package for these lines.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
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
