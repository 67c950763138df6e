//! Checks of single values, which all sections share.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::keys;
use crate::config::mistake::Mistakes;
use crate::config::nearest::nearest;
use crate::config::path::Path;
use crate::config::raw::{Decimal, Items, Span, Whole};
use crate::core::ladder::is_topic_name;

/// A share: above 0, at most 1.
pub fn share(part: Decimal, path: &Path, mistakes: &mut Mistakes) -> f64 {
    if !(part.0 > 0.0 && part.0 <= 1.0) {
        mistakes.note(path, "is out of range", hint(path));
    }
    part.0
}

/// The hint for a path, if it has one.
pub fn hint(path: &Path) -> Option<String> {
    keys::hint(path).map(str::to_owned)
}

/// Notes a missing key, with its hint.
pub fn note_missing(path: &Path, mistakes: &mut Mistakes) {
    mistakes.note_missing(path, keys::hint(path).unwrap_or_default());
}

/// The value of a keyword.
pub fn one_of<T: Copy>(text: &str, known: &[(&str, T)], path: &Path, mistakes: &mut Mistakes) -> Option<T> {
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let words = known.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let remedy = nearest(text, known.iter().map(|(word, _)| *word))
        .map_or_else(|| hint(path).unwrap_or_else(|| format!("one of {words}")), |meant| format!("did you mean \"{meant}\"?"));
    mistakes.note(path, format!("is not one of {words}"), Some(remedy));
    None
}

/// A number within a range.
pub fn whole_in<T: TryFrom<i64>>(number: Whole, range: RangeInclusive<i64>, path: &Path, mistakes: &mut Mistakes) -> Option<T> {
    if !range.contains(&number.0) {
        mistakes.note(path, "is out of range", hint(path));
        return None;
    }
    T::try_from(number.0).ok()
}

/// A duration within a range.
pub fn duration_in(span: Span, range: RangeInclusive<Duration>, path: &Path, mistakes: &mut Mistakes) -> Option<Duration> {
    if !range.contains(&span.0) {
        mistakes.note(path, "is out of range", hint(path));
        return None;
    }
    Some(span.0)
}

/// The strings of a list with their indexes; other elements are mistakes.
pub fn texts(items: &Items, path: &Path, mistakes: &mut Mistakes) -> Vec<(usize, String)> {
    let mut texts = Vec::new();
    for (i, item) in items.0.iter().enumerate() {
        let path = path.index(i);
        match &item.0 {
            Ok(text) => texts.push((i, text.clone())),
            Err(kind) => mistakes.note(&path, format!("is {kind}, not a string"), hint(&path)),
        }
    }
    texts
}

/// Topic names.
pub fn topic_names(items: &Items, path: &Path, mistakes: &mut Mistakes) -> Vec<String> {
    let mut names = Vec::new();
    for (i, item) in items.0.iter().enumerate() {
        match &item.0 {
            Ok(name) if is_topic_name(name) => names.push(name.clone()),
            _ => mistakes.note(&path.index(i), "is not a valid topic name", hint(path)),
        }
    }
    names
}

/// Checks a URL; an error says what is wrong and, if that is not obvious, what to do.
pub fn check_url(url: &str) -> Result<(), (&'static str, Option<&'static str>)> {
    let uri: http::Uri = url.parse().map_err(|_| ("is not a URL", None))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls-system") => {}
        Some("https") => {
            return Err((
                "needs TLS, but this kladder was built without it",
                Some("build it with the feature `tls`, or use http"),
            ));
        }
        _ => return Err(("is not an http or https URL", None)),
    }
    if uri.host().is_none_or(str::is_empty) { Err(("has no host", None)) } else { Ok(()) }
}
